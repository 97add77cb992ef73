"""Catalog files (Parquet, text, FITS, VOTable, HATS folders) to tables of declared columns, some rows at a time."""

from __future__ import annotations

import gzip
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from pipeline.catalogs.declarations import load_otypes
from pipeline.catalogs.hats import open_hats
from pipeline.errors import CatalogError
from pipeline.xmatch import CatalogDeclaration

Columns = dict[str, pa.ChunkedArray]

_BATCH = 262_144
_BLOCK_BYTES = 8 << 20
_XML_BYTES = 1 << 20
_DOCUMENT_TYPE = re.compile(rb"<!(?:DOCTYPE|ENTITY)", re.IGNORECASE)
_LONGEST_MARK = len(b"<!DOCTYPE")
_SUFFIXES = {
    "parquet": (".parquet", ".pq"),
    "text": (".csv", ".csv.gz", ".tsv", ".txt", ".txt.gz"),
    "fits": (".fits", ".fits.gz", ".fit"),
    "votable": (".vot", ".votable", ".xml", ".vot.gz", ".xml.gz"),
}
_SEXAGESIMAL = (
    r"^(?P<sign>[+-]?)(?P<whole>\d{1,3})[ :hd]+(?P<minutes>\d{1,2})[ :m']+(?P<seconds>\d{1,2}(?:\.\d*)?)[s\"]?$"
)


def form_of(file: Path) -> str:
    """Return the form of a catalog file: ``parquet``, ``text``, ``fits``, ``votable``; ``hats`` is a folder.

    Raises
    ------
    CatalogError
        It is absent, or of a form that its name does not tell.
    """
    if file.is_dir():
        return "hats"
    if not file.is_file():
        raise CatalogError(f"catalog file {file} does not exist")
    form = next((name for name, ends in _SUFFIXES.items() if file.name.lower().endswith(ends)), None)
    if form is None:
        known = ", ".join(end for ends in _SUFFIXES.values() for end in ends)
        raise CatalogError(f"the form of catalog file {file.name} is not known by its name", mend=f"known are {known}")
    return form


def read_tables(file: Path, declaration: CatalogDeclaration) -> Iterator[pa.Table]:
    """Read one catalog file, some rows at a time.

    Parameters
    ----------
    file : path
        Its form is told by the end of its name; a folder is a HATS catalog.
    declaration : CatalogDeclaration
        Which columns to take and what they are.

    Yields
    ------
    pyarrow.Table
        ``ra``, ``dec`` (degrees; null where there is no position), ``pmra``, ``pmdec`` (mas/yr) where the catalog
        declares proper motion, and the declared columns as ``column <our name>`` with our types.

    Raises
    ------
    CatalogError
        The file is absent, damaged, of unknown form, lacks a column, or holds what its declared type cannot.
    """
    read = {"parquet": _parquet, "text": _text, "fits": _tabular, "votable": _tabular, "hats": _hats}[form_of(file)]
    rows = 0
    try:
        for raw in read(file, declaration.sources(), declaration):
            table = _typed(raw, file, declaration)
            yield table
            rows += len(table)
    except CatalogError as error:
        if error.row is not None:  # of the piece that was read
            error.row += rows
        raise
    except (OSError, ValueError, pa.ArrowException, IndexError, TypeError, EOFError, zlib.error) as error:
        raise CatalogError(f"catalog file cannot be read: {error}", source=str(file)) from error


def _typed(raw: Columns, file: Path, declaration: CatalogDeclaration) -> pa.Table:
    cleaned = {name: _clean(data, declaration.missing) for name, data in raw.items()}

    def where(name: str) -> str:
        return f"{file}, column {name}"

    form, ra, dec = declaration.position_format, declaration.ra, declaration.dec
    columns = {
        "ra": _angle(cleaned[ra], form, 15.0, where(ra)),
        "dec": _angle(cleaned[dec], form, 1.0, where(dec)),
    }
    if declaration.motion:
        for ours, source in (("pmra", declaration.motion.pmra), ("pmdec", declaration.motion.pmdec)):
            columns[ours] = _cast(cleaned[source], pa.float64(), where(source))
    for item in declaration.columns:
        values = _cast(cleaned[item.source], item.arrow_type, where(item.source))
        columns[f"column {item.name}"] = load_otypes().translate(values) if item.vocabulary else values
    return pa.table(columns)


def need_columns(present: Sequence[str], names: Sequence[str], file: Path) -> None:
    """Raise CatalogError where a file lacks one of the columns named, or has one more than once."""
    missing = [name for name in names if name not in present]
    if missing:
        raise CatalogError(
            f"catalog file lacks column {', '.join(missing)}", source=str(file), mend=f"it has {', '.join(present)}"
        )
    counts = Counter(present)
    repeated = [name for name in dict.fromkeys(names) if counts[name] > 1]
    if repeated:
        raise CatalogError(
            f"catalog file has column {', '.join(repeated)} more than once", source=str(file), mend="rename all but one"
        )


def _parquet(file: Path, names: list[str], declaration: CatalogDeclaration) -> Iterator[Columns]:
    with pq.ParquetFile(file) as opened:
        need_columns(opened.schema_arrow.names, names, file)
        for batch in opened.iter_batches(_BATCH, columns=names):
            yield {name: pa.chunked_array([batch.column(name)]) for name in names}


def _hats(folder: Path, names: list[str], declaration: CatalogDeclaration) -> Iterator[Columns]:
    catalog, rows = open_hats(folder), 0
    for file in catalog.files():
        try:
            for columns in _parquet(file, names, declaration):
                yield columns
                rows += len(columns[names[0]])
        except (OSError, pa.ArrowException) as error:
            raise CatalogError(f"HATS catalog is damaged: {error}", source=str(file)) from error
    if catalog.rows not in (None, rows):
        raise CatalogError(
            f"HATS catalog has {rows} rows instead of {catalog.rows}: tiles are missing", source=str(folder)
        )


def _text(file: Path, names: list[str], declaration: CatalogDeclaration) -> Iterator[Columns]:
    # Everything as text first: what a type cannot hold is then told by its value, not guessed from the first block.
    with open_text(file, declaration.delimiter) as opened:
        present = plain_names(opened.schema)
        by_name = dict(zip(present, opened.schema.names, strict=True))
    need_columns(present, names, file)
    with open_text(file, declaration.delimiter, [by_name[name] for name in names]) as opened:
        for batch in opened:
            yield {name: pa.chunked_array([batch.column(by_name[name])]) for name in names}


def plain_names(schema: pa.Schema) -> list[str]:
    """Return the column names of a text file without padding and quotes."""
    return [header.strip().strip('"').strip() for header in schema.names]


def open_text(file: Path, delimiter: str, columns: Sequence[str] | None = None) -> pa.csv.CSVStreamingReader:
    """Open a delimited text file (compressed or not) to be read block by block, columns (default all) as text."""
    parse = pa.csv.ParseOptions(delimiter=delimiter)
    if columns is None:
        with pa.csv.open_csv(file, parse_options=parse) as opened:
            columns = opened.schema.names
    convert = pa.csv.ConvertOptions(include_columns=columns, column_types=dict.fromkeys(columns, pa.string()))
    read = pa.csv.ReadOptions(block_size=_BLOCK_BYTES)
    return pa.csv.open_csv(file, read_options=read, parse_options=parse, convert_options=convert)


def read_astropy(file: Path) -> Mapping[str, Any]:
    """Return the table of a FITS or VOTable file: its columns by name.

    Raises
    ------
    CatalogError
        A VOTable brings a document type with it: entities could make it as large as they like.
    """
    if form_of(file) == "fits":
        from astropy.table import Table

        table = Table.read(file, format="fits", hdu=1, unit_parse_strict="silent", memmap=True)
    else:
        from astropy.io.votable import parse_single_table

        if _has_document_type(file):
            raise CatalogError(
                "a VOTable with a document type (DTD, entities), or in UTF-16, is not read",
                source=str(file),
                mend="write it without, in UTF-8",
            )
        table = parse_single_table(file, verify="ignore").to_table(use_names_over_ids=True)
    return {name: table[name] for name in table.colnames}


def _has_document_type(file: Path) -> bool:
    """Return whether a VOTable may declare entities: a comment as long as one likes can stand before them."""
    tail = b""
    with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as opened:
        while block := opened.read(_XML_BYTES):
            text = tail + block
            if b"\0" in block or _DOCUMENT_TYPE.search(text):  # zero bytes: an encoding in which it would not be seen
                return True
            tail = text[-_LONGEST_MARK:]
    return False


def _tabular(file: Path, names: list[str], declaration: CatalogDeclaration) -> Iterator[Columns]:
    table = read_astropy(file)
    need_columns(list(table), names, file)
    length = len(table[names[0]])
    for start in range(0, max(length, 1), _BATCH):
        yield {name: pa.chunked_array([_to_arrow(table[name][start : start + _BATCH], name, file)]) for name in names}


def _to_arrow(column: Any, name: str, file: Path) -> pa.Array:
    values = np.ma.asarray(column)
    data, mask = np.ma.getdata(values), np.ma.getmaskarray(values)
    if data.ndim != 1:
        raise CatalogError(f"column {name} holds {data.ndim - 1}-dimensional values", source=str(file))
    if data.dtype.kind in "SO":
        texts = [item.decode("utf-8", "replace") if isinstance(item, bytes) else item for item in data.tolist()]
        if not all(item is None or isinstance(item, str) for item in texts):
            raise CatalogError(f"column {name} holds lists of values", source=str(file))
        return pa.array(texts, mask=mask, type=pa.string())
    if data.dtype.kind == "U":
        return pa.array(data.tolist(), mask=mask, type=pa.string())
    return pa.array(data.astype(data.dtype.newbyteorder("=")), mask=mask)


def _clean(data: pa.ChunkedArray, missing: Sequence[str]) -> pa.ChunkedArray:
    """Return texts without padding and quotes, and what means "no value" as null."""
    if pa.types.is_dictionary(data.type):
        data = data.cast(data.type.value_type)
    if pa.types.is_string(data.type) or pa.types.is_large_string(data.type):
        data = data.cast(pa.string())
        data = pc.utf8_trim_whitespace(pc.utf8_trim(pc.utf8_trim_whitespace(data), '"'))
        none = pc.is_in(data, value_set=pa.array(["", *missing], pa.string()))
        return pc.if_else(none, pa.scalar(None, pa.string()), data)
    return data


def _cast(data: pa.ChunkedArray, target: pa.DataType, where: str) -> pa.ChunkedArray:
    try:
        if pa.types.is_floating(target) and pa.types.is_integer(data.type):
            data = data.cast(pa.float64())
        if pa.types.is_floating(data.type):  # NaN and infinity stand for "no value" in catalogs
            data = pc.if_else(pc.is_finite(data), data, pa.scalar(None, data.type))
        # Rounding float64 to a declared float32 is meant; cutting an integer or a fraction is not.
        data = data.cast(target, safe=not (pa.types.is_floating(target) and pa.types.is_floating(data.type)))
        if pa.types.is_floating(target):  # a text may say "nan" as well
            data = pc.if_else(pc.is_finite(data), data, pa.scalar(None, target))
        return data
    except pa.ArrowException as error:
        raise CatalogError(f"values do not fit type {target}: {error}", source=where) from error


def _angle(data: pa.ChunkedArray, form: str, per_unit: float, where: str) -> pa.ChunkedArray:
    """Return degrees; ``per_unit`` is 15 where a sexagesimal number counts hours."""
    if form == "sexagesimal" and pa.types.is_string(data.type):
        parts = pc.extract_regex(data, pattern=_SEXAGESIMAL)
        wrong = pc.and_(data.is_valid(), parts.is_null())
        if pc.any(wrong).as_py():
            row = pc.index(wrong, True).as_py()
            raise CatalogError(f"{data[row].as_py()!r} is not a sexagesimal angle", source=where, row=row)
        number = {
            key: pc.struct_field(parts, key).cast(pa.float64()).to_numpy() for key in ("whole", "minutes", "seconds")
        }
        seconds = number["whole"] * 3600.0 + number["minutes"] * 60.0 + number["seconds"]
        negative = pc.equal(pc.struct_field(parts, "sign"), "-").to_numpy()
        degrees = np.where(negative == True, -seconds, seconds) / (3600.0 / per_unit)  # noqa: E712 (null is not True)
    else:
        degrees = _cast(data, pa.float64(), where).to_numpy()
        if form == "microdeg":
            degrees = degrees / 1e6
    return pa.chunked_array([pa.array(degrees, from_pandas=True)])
