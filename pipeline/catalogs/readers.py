"""Catalog files (Parquet, text, FITS, VOTable) to one table of declared columns."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from pipeline.errors import CatalogError
from pipeline.xmatch import CatalogDeclaration

_SUFFIXES = {
    "parquet": (".parquet", ".pq"),
    "text": (".csv", ".csv.gz", ".tsv", ".txt", ".txt.gz"),
    "fits": (".fits", ".fits.gz", ".fit"),
    "votable": (".vot", ".votable", ".xml", ".vot.gz", ".xml.gz"),
}
_SEXAGESIMAL = (
    r"^(?P<sign>[+-]?)(?P<whole>\d{1,3})[ :hd]+(?P<minutes>\d{1,2})[ :m']+(?P<seconds>\d{1,2}(?:\.\d*)?)[s\"]?$"
)


def read_table(file: Path, declaration: CatalogDeclaration) -> pa.Table:
    """Read one catalog file.

    Parameters
    ----------
    file : path
        Its form is told by the end of its name.
    declaration : CatalogDeclaration
        Which columns to take and what they are.

    Returns
    -------
    pyarrow.Table
        ``ra``, ``dec`` (degrees; null where there is no position) and the declared columns by our names and types.

    Raises
    ------
    CatalogError
        The file is absent, damaged, of unknown form, lacks a column, or holds what its declared type cannot.
    """
    if not file.is_file():
        raise CatalogError(f"catalog file {file} does not exist")
    form = next((name for name, ends in _SUFFIXES.items() if file.name.lower().endswith(ends)), None)
    if form is None:
        known = ", ".join(end for ends in _SUFFIXES.values() for end in ends)
        raise CatalogError(f"the form of catalog file {file.name} is not known by its name", mend=f"known are {known}")
    names = list(dict.fromkeys([declaration.ra, declaration.dec, *(item.source for item in declaration.columns)]))
    read = {"parquet": _parquet, "text": _text, "fits": _fits, "votable": _votable}[form]
    try:
        raw = read(file, names, declaration)
    except (OSError, ValueError, pa.ArrowException, IndexError, TypeError) as error:
        raise CatalogError(f"catalog file cannot be read: {error}", source=str(file)) from error
    cleaned = {name: _clean(raw[name], declaration.missing) for name in names}
    columns = {
        "ra": _angle(cleaned[declaration.ra], declaration.position_format, 15.0, f"{file}, column {declaration.ra}"),
        "dec": _angle(cleaned[declaration.dec], declaration.position_format, 1.0, f"{file}, column {declaration.dec}"),
    }
    for item in declaration.columns:
        columns[f"column {item.name}"] = _cast(cleaned[item.source], item.arrow_type, f"{file}, column {item.source}")
    return pa.table(
        list(columns.values()), names=["ra", "dec", *(f"column {item.name}" for item in declaration.columns)]
    )


def _need(present: Sequence[str], names: Sequence[str], file: Path) -> None:
    missing = [name for name in names if name not in present]
    if missing:
        raise CatalogError(
            f"catalog file lacks column {', '.join(missing)}", source=str(file), mend=f"it has {', '.join(present)}"
        )


def _parquet(file: Path, names: list[str], declaration: CatalogDeclaration) -> dict[str, pa.ChunkedArray]:
    with pq.ParquetFile(file) as opened:
        _need(opened.schema_arrow.names, names, file)
        table = opened.read(columns=names)
    return {name: table.column(name) for name in names}


def _text(file: Path, names: list[str], declaration: CatalogDeclaration) -> dict[str, pa.ChunkedArray]:
    parse = pa.csv.ParseOptions(delimiter=declaration.delimiter)
    with pa.csv.open_csv(file, parse_options=parse) as opened:
        headers = opened.schema.names
    by_name = {header.strip().strip('"').strip(): header for header in headers}
    _need(list(by_name), names, file)
    wanted = [by_name[name] for name in names]
    # Everything as text first: what a type cannot hold is then told by its value, not guessed from the first block.
    convert = pa.csv.ConvertOptions(include_columns=wanted, column_types=dict.fromkeys(wanted, pa.string()))
    table = pa.csv.read_csv(file, parse_options=parse, convert_options=convert)
    return {name: table.column(by_name[name]) for name in names}


def _fits(file: Path, names: list[str], declaration: CatalogDeclaration) -> dict[str, pa.ChunkedArray]:
    from astropy.table import Table

    return _astropy(Table.read(file, format="fits", hdu=1, unit_parse_strict="silent"), names, file)


def _votable(file: Path, names: list[str], declaration: CatalogDeclaration) -> dict[str, pa.ChunkedArray]:
    from astropy.io.votable import parse_single_table

    return _astropy(parse_single_table(file, verify="ignore").to_table(use_names_over_ids=True), names, file)


def _astropy(table: object, names: list[str], file: Path) -> dict[str, pa.ChunkedArray]:
    _need(table.colnames, names, file)  # type: ignore[attr-defined]
    arrays = {}
    for name in names:
        values = np.ma.asarray(table[name])  # type: ignore[index]
        data, mask = np.ma.getdata(values), np.ma.getmaskarray(values)
        if data.ndim != 1:
            raise CatalogError(f"column {name} holds {data.ndim - 1}-dimensional values", source=str(file))
        if data.dtype.kind in "SO":
            texts = [item.decode("utf-8", "replace") if isinstance(item, bytes) else str(item) for item in data]
            array = pa.array(texts, mask=mask, type=pa.string())
        elif data.dtype.kind == "U":
            array = pa.array(data.tolist(), mask=mask, type=pa.string())
        else:
            array = pa.array(data.astype(data.dtype.newbyteorder("=")), mask=mask)
        arrays[name] = pa.chunked_array([array])
    return arrays


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
