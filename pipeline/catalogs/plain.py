"""A declaration for a user's plain table: positions, a radius, and every other column as it is."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.catalogs.hats import open_hats
from pipeline.catalogs.readers import form_of, need_columns, open_text, plain_names, read_astropy
from pipeline.errors import CatalogError
from pipeline.xmatch import CatalogDeclaration, parse_declaration

_RESERVED = {"", "id", "ra", "dec", "separation_arcsec", "n_neighbours"}
_INTEGER, _LONG_INTEGER, _NUMBER, _TEXT = "integer", "long integer", "number", "text"
_CODE = r"^[+-]?0[0-9]"
"""Digits that begin with a zero name something: as a number they would lose it."""
_LONG = r"^[+-]?[0-9]{16,}$"
"""A float64 may not hold these exactly."""


def declare_table(
    name: str,
    file: str | Path,
    ra: str,
    dec: str,
    radius_arcsec: float,
    *,
    identifier: str | None = None,
    epoch: float = 2000.0,
    delimiter: str = ",",
) -> CatalogDeclaration:
    """Return a declaration of a plain table, which takes over every column of a simple type.

    Parameters
    ----------
    name : str
        Name of the catalog.
    file : path
        Parquet, text, FITS, VOTable or a HATS catalog. Types of text columns are told by all of their values.
    ra, dec : str
        Position columns, ICRS degrees.
    radius_arcsec : float
        Largest separation of a match.
    identifier : str, optional
        Column that identifies a source.
    epoch : float
        Julian year of the positions.
    delimiter : str
        Of a text file.

    Raises
    ------
    CatalogError
        The file cannot be read or lacks a column.
    """
    path = Path(file)
    try:
        types = _types(path, delimiter)
    except (OSError, ValueError, pa.ArrowException, EOFError) as error:
        raise CatalogError(f"catalog file cannot be read: {error}", source=str(path)) from error
    missing = [item for item in (ra, dec, identifier) if item is not None and item not in types]
    if missing:
        raise CatalogError(
            f"catalog file lacks column {', '.join(missing)}", source=str(path), mend=f"it has {', '.join(types)}"
        )
    names = _names([item for item in types if item not in (ra, dec, "_healpix_29") and types[item]])
    columns = [
        {"name": ours, "source": source, "type": str(types[source]), "doc": f"column {source} of {path.name}"}
        for source, ours in names.items()
    ]
    values: dict[str, object] = {
        "name": name,
        "doc": f"table {path.name}",
        "source": path.name,
        "licence": "the user's own",
        "epoch": epoch,
        "ra": ra,
        "dec": dec,
        "radius_arcsec": radius_arcsec,
        "delimiter": delimiter,
        "column": columns,
    }
    if identifier is not None:
        if identifier not in names:
            raise CatalogError(f"column {identifier} cannot identify a source", source=str(path))
        values["id"] = names[identifier]
    return parse_declaration(values, f"options for {path.name}")


def _types(file: Path, delimiter: str) -> dict[str, str | None]:
    """Return the type of every column by name, None where it is none that a catalog can hold."""
    form = form_of(file)
    if form == "text":
        return _text_types(file, delimiter)
    if form == "parquet":
        schema = pq.read_schema(file)
    elif form == "hats":
        schema = open_hats(file).schema
    else:
        schema = pa.schema([(item, _numpy_type(column)) for item, column in read_astropy(file).items()])
    need_columns(schema.names, schema.names, file)
    return {field.name: _declared_type(field.type) for field in schema}


def _numpy_type(values: np.ndarray) -> pa.DataType:
    """Return the Arrow type of a column; null for lists of values and whatever else Arrow has no simple type for."""
    kind = values.dtype.kind
    if values.ndim != 1 or kind not in "biufSUO":
        return pa.null()
    if kind == "O" and not all(isinstance(item, (str, bytes, type(None))) for item in np.ma.getdata(values).tolist()):
        return pa.null()
    return pa.string() if kind in "SUO" else pa.from_numpy_dtype(values.dtype.newbyteorder("="))


def _declared_type(kind: pa.DataType) -> str | None:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_boolean(kind):
        return "bool"
    if pa.types.is_integer(kind):
        return None if kind == pa.uint64() else "int32" if kind.bit_width < 32 or kind == pa.int32() else "int64"
    if pa.types.is_floating(kind):
        return "float64" if kind == pa.float64() else "float32"
    return "string" if pa.types.is_string(kind) or pa.types.is_large_string(kind) else None


def _text_types(file: Path, delimiter: str) -> dict[str, str | None]:
    """Return the narrowest of whole number, number and text that holds all values of each column as they are."""
    with open_text(file, delimiter) as opened:
        names = plain_names(opened.schema)
        need_columns(names, names, file)
        met: list[set[str]] = [set() for _ in names]
        for batch in opened:
            for kinds, values in zip(met, batch.columns, strict=True):
                if _TEXT not in kinds:
                    kinds |= _kinds(values)
    return {name: _text_type(kinds) for name, kinds in zip(names, met, strict=True)}


def _text_type(kinds: set[str]) -> str:
    if not kinds or _TEXT in kinds or kinds >= {_LONG_INTEGER, _NUMBER}:
        return "string"
    return "float64" if _NUMBER in kinds else "int64"


def _kinds(values: pa.Array) -> set[str]:
    """Return what kinds of values a column of texts holds."""
    texts = pc.utf8_trim_whitespace(pc.utf8_trim(pc.utf8_trim_whitespace(values), '"'))
    texts = pc.if_else(pc.equal(texts, ""), pa.scalar(None, pa.string()), texts)
    is_long = {_LONG_INTEGER} if pc.any(pc.match_substring_regex(texts, _LONG)).as_py() else set()
    for target, kind in ((pa.int64(), _INTEGER), (pa.float64(), _NUMBER)):
        try:
            texts.cast(target)
        except pa.ArrowException:
            continue
        is_code = kind == _INTEGER and pc.any(pc.match_substring_regex(texts, _CODE)).as_py()
        return {_TEXT} if is_code else {kind} | is_long
    return {_TEXT}


def _names(sources: Sequence[str]) -> dict[str, str]:
    """Return our name of each column: lower case, digits and underscores, each once."""
    names: dict[str, str] = {}
    for source in sources:
        plain = re.sub(r"[^a-z0-9]+", "_", source.lower()).strip("_")
        plain = f"column_{plain}".rstrip("_") if plain in _RESERVED else plain
        numbered = itertools.chain([plain], (f"{plain}_{number}" for number in itertools.count(2)))
        names[source] = next(item for item in numbered if item not in names.values())
    return names
