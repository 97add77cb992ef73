"""What a catalog says about itself: where it is from, its positions, its columns, and how far a match may lie."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from pipeline.errors import CatalogError
from pipeline.schema import column

TYPES: dict[str, pa.DataType] = {
    "string": pa.string(),
    "bool": pa.bool_(),
    "int32": pa.int32(),
    "int64": pa.int64(),
    "float32": pa.float32(),
    "float64": pa.float64(),
}
POSITION_FORMATS = ("deg", "microdeg", "sexagesimal")

_NAME = re.compile(r"[a-z0-9][a-z0-9_]*")
_RESERVED = {"id", "separation_arcsec", "n_neighbours"}


@dataclass(frozen=True)
class CatalogColumn:
    """One column taken over from a catalog.

    Attributes
    ----------
    name : str
        Our name, snake_case, ending with its unit where it has one.
    type : str
        One of ``TYPES``.
    source : str
        Its name in the catalog's file.
    unit, doc : str
        Unit in the VO convention; one line on what it is.
    """

    name: str
    type: str
    source: str
    unit: str = ""
    doc: str = ""

    @property
    def arrow_type(self) -> pa.DataType:
        """The Arrow type."""
        return TYPES[self.type]


@dataclass(frozen=True)
class CatalogDeclaration:
    """A catalog as declared in ``catalogs/<name>.toml``.

    Attributes
    ----------
    name : str
        Name of the catalog; added columns are ``xm_<name>_*``.
    doc, source, licence, reference : str
        What it is, where its file is from, under which terms, which paper to cite.
    epoch : float
        Epoch of the positions, Julian year.
    ra, dec : str
        Position columns in the file.
    position_format : str
        ``deg``, ``microdeg`` (integers of 1e-6 deg) or ``sexagesimal`` (hours and degrees).
    radius_arcsec : float
        Largest separation of a match.
    columns : tuple of CatalogColumn
        Columns taken over.
    id : str or None
        The column that identifies a source; it becomes ``xm_<name>_id``.
    missing : tuple of str
        Texts that mean "no value", besides the empty one.
    delimiter : str
        Delimiter, where the file is text.
    checksum : str or None
        sha256 that the file must have.
    """

    name: str
    doc: str
    source: str
    licence: str
    ra: str
    dec: str
    radius_arcsec: float
    columns: tuple[CatalogColumn, ...] = ()
    epoch: float = 2000.0
    position_format: str = "deg"
    id: str | None = None
    reference: str = ""
    missing: tuple[str, ...] = ()
    delimiter: str = ","
    checksum: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the declaration as plain values; :func:`parse_declaration` reads it back."""
        values = {name: value for name, value in asdict(self).items() if value is not None}
        values["missing"] = list(self.missing)
        values["column"] = [dict(item) for item in values.pop("columns")]
        return values

    def output_name(self, name: str) -> str:
        """Return the name that a column of the catalog has among the enrichment columns."""
        return f"xm_{self.name}_id" if name == self.id else f"xm_{self.name}_{name}"

    def fields(self) -> list[pa.Field]:
        """Return the columns that a match with this catalog adds, id first."""
        ordered = sorted(self.columns, key=lambda item: item.name != self.id)
        fields = [
            column(self.output_name(item.name), item.arrow_type, unit=item.unit or None, doc=f"{self.name}: {item.doc}")
            for item in ordered
        ]
        nearest = column(
            f"xm_{self.name}_separation_arcsec",
            pa.float64(),
            unit="arcsec",
            doc=f"separation from the nearest source of {self.name} within {self.radius_arcsec:g} arcsec",
        )
        count = column(
            f"xm_{self.name}_n_neighbours",
            pa.int32(),
            doc=f"sources of {self.name} within {self.radius_arcsec:g} arcsec",
        )
        covered = column(
            f"is_{self.name}_covered", pa.bool_(), nullable=False, doc=f"the position lies where {self.name} was built"
        )
        return [*fields, nearest, count, covered]


def parse_declaration(values: Mapping[str, Any], where: str) -> CatalogDeclaration:
    """Return the declaration that plain values (of a TOML file) make.

    Parameters
    ----------
    values : mapping
        Keys as the attributes of :class:`CatalogDeclaration`; columns as a list of mappings ``column``.
    where : str
        Named in errors: the file.

    Raises
    ------
    CatalogError
        A key is unknown, missing or of the wrong type.
    """
    given = dict(values)
    columns = tuple(_column(item, where) for item in _list(given.pop("column", []), "column", where))
    known = CatalogDeclaration.__dataclass_fields__
    unknown = sorted(set(given) - set(known) | ({"columns"} & set(given)))
    if unknown:
        raise CatalogError(f"catalog declaration has unknown key {', '.join(unknown)}", source=where)
    needed = [key for key in ("name", "doc", "source", "licence", "ra", "dec", "radius_arcsec") if key not in given]
    if needed:
        raise CatalogError(f"catalog declaration lacks {', '.join(needed)}", source=where)
    for key in ("radius_arcsec", "epoch"):
        if key in given and (isinstance(given[key], bool) or not isinstance(given[key], (int, float))):
            raise CatalogError(f"{key} of a catalog declaration is not a number", source=where)
    for key, value in given.items():
        if key not in ("radius_arcsec", "epoch", "missing") and not isinstance(value, str):
            raise CatalogError(f"{key} of a catalog declaration is not a text", source=where)
    given["missing"] = tuple(str(text) for text in _list(given.get("missing", []), "missing", where))
    declaration = CatalogDeclaration(
        **{**given, "radius_arcsec": float(given["radius_arcsec"]), "epoch": float(given.get("epoch", 2000.0))},
        columns=columns,
    )
    _check(declaration, where)
    return declaration


def _list(value: Any, key: str, where: str) -> list[Any]:
    if not isinstance(value, (list, tuple)):
        raise CatalogError(f"{key} of a catalog declaration is not a list", source=where)
    return list(value)


def _column(values: Any, where: str) -> CatalogColumn:
    if not isinstance(values, Mapping) or not all(isinstance(value, str) for value in values.values()):
        raise CatalogError("a column of a catalog declaration is not a table of texts", source=where)
    unknown = sorted(set(values) - set(CatalogColumn.__dataclass_fields__))
    if unknown or "name" not in values:
        what = f"has unknown key {', '.join(unknown)}" if unknown else "has no name"
        raise CatalogError(f"a column of a catalog declaration {what}", source=where)
    item = CatalogColumn(**{"type": "string", "source": values["name"], **values})
    if item.type not in TYPES:
        raise CatalogError(f"column {item.name} has type {item.type}, known are {', '.join(TYPES)}", source=where)
    if not _NAME.fullmatch(item.name) or item.name in _RESERVED:
        raise CatalogError(f"{item.name!r} cannot name a column of a catalog (a-z, 0-9, _)", source=where)
    return item


def _check(declaration: CatalogDeclaration, where: str) -> None:
    names = [item.name for item in declaration.columns]
    if not _NAME.fullmatch(declaration.name):
        raise CatalogError(f"{declaration.name!r} cannot name a catalog (a-z, 0-9, _)", source=where)
    if len(set(names)) != len(names):
        raise CatalogError("catalog declaration names a column twice", source=where)
    if declaration.id is not None and declaration.id not in names:
        raise CatalogError(f"id {declaration.id} is not one of the declared columns", source=where)
    if declaration.position_format not in POSITION_FORMATS:
        raise CatalogError(
            f"position_format {declaration.position_format} is not one of {', '.join(POSITION_FORMATS)}", source=where
        )
    if not 0.0 < declaration.radius_arcsec <= 648_000.0:
        raise CatalogError(
            f"radius_arcsec {declaration.radius_arcsec} is not above 0 and at most 180 deg", source=where
        )
    if len(declaration.delimiter) != 1:
        raise CatalogError("delimiter of a catalog declaration is not one character", source=where)
