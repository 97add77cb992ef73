"""What a catalog says about itself: where it is from, its positions, its columns, and how far a match may lie."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
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
VOCABULARIES = ("simbad_otype",)
POSITION_FORMATS = ("deg", "microdeg", "sexagesimal")

_NAME = re.compile(r"[a-z0-9][a-z0-9_]*")
_RESERVED = {"id", "ra", "dec", "separation_arcsec", "n_neighbours"}
_LEAST_MARGIN_ARCSEC = 10.0
_NUMBERS = ("radius_arcsec", "epoch", "margin_arcsec")
_NOT_TEXTS = (*_NUMBERS, "missing", "motion", "host", "service", "snapshot")


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
    vocabulary : str
        One of ``VOCABULARIES`` whose spellings the file uses: the column then holds the codes; or empty.
    """

    name: str
    type: str
    source: str
    unit: str = ""
    doc: str = ""
    vocabulary: str = ""

    @property
    def arrow_type(self) -> pa.DataType:
        """The Arrow type."""
        return TYPES[self.type]


@dataclass(frozen=True)
class Motion:
    """Proper motion, by the names of its columns in the catalog's file; positions are at the declared epoch.

    Attributes
    ----------
    pmra, pmdec : str
        Columns of the proper motion in mas/yr; that in right ascension contains the cosine of the declination.
    """

    pmra: str
    pmdec: str


@dataclass(frozen=True)
class HostColumns:
    """What makes a catalog's rows host galaxies: columns, by our names, and how far out a host is looked for.

    Attributes
    ----------
    radius_kpc : float
        Largest projected distance of a transient from its host, at the host's angular-diameter distance.
    name, alias : str or None
        Name of the galaxy, and a second one.
    distance_mpc, distance_err_mpc : str or None
        Luminosity distance and its 1 sigma; no error column means that the error is unknown.
    angular_distance_mpc, redshift : str or None
        Angular-diameter distance; redshift. At least the distance or the redshift is there.
    half_light_arcsec, stellar_mass_msun : str or None
        Half-light radius; stellar mass.
    """

    radius_kpc: float = 30.0
    name: str | None = None
    distance_mpc: str | None = None
    distance_err_mpc: str | None = None
    angular_distance_mpc: str | None = None
    redshift: str | None = None
    half_light_arcsec: str | None = None
    stellar_mass_msun: str | None = None
    alias: str | None = None


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
    motion : Motion or None
        Where the proper motion stands; with it sources are matched at the alert's epoch.
    host : HostColumns or None
        With it the rows are galaxies among which hosts are looked for.
    margin_arcsec : float
        How far around a tile the catalog repeats its neighbours' rows; default the radius, at least 10 arcsec.
    service : mapping or None
        Where and how the catalog is asked for from a service.
    snapshot : bool
        What the catalog says of a source changes with time, so its snapshots are kept apart by date.
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
    motion: Motion | None = None
    host: HostColumns | None = None
    margin_arcsec: float = 0.0
    service: Mapping[str, str | int | float | list[str]] | None = field(default=None, hash=False)
    snapshot: bool = False

    def __post_init__(self) -> None:
        """Set the margin that was not given."""
        if not self.margin_arcsec:
            object.__setattr__(self, "margin_arcsec", max(self.radius_arcsec, _LEAST_MARGIN_ARCSEC))

    def to_dict(self) -> dict[str, Any]:
        """Return the declaration as plain values; :func:`parse_declaration` reads it back."""
        values = {name: value for name, value in asdict(self).items() if value is not None}
        values["missing"] = list(self.missing)
        values["column"] = [dict(item) for item in values.pop("columns")]
        if self.host is not None:
            values["host"] = {name: value for name, value in values["host"].items() if value is not None}
        return values

    def sources(self) -> list[str]:
        """Return the columns of the file that are read, each once: positions, motion, then what is taken over."""
        motion = [self.motion.pmra, self.motion.pmdec] if self.motion else []
        return list(dict.fromkeys([self.ra, self.dec, *motion, *(item.source for item in self.columns)]))

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
    for key in _NUMBERS:
        if key in given:
            given[key] = _number(given[key], key, where)
    for key, value in given.items():
        if key not in _NOT_TEXTS and not isinstance(value, str):
            raise CatalogError(f"{key} of a catalog declaration is not a text", source=where)
    if not isinstance(given.get("snapshot", False), bool):
        raise CatalogError("snapshot of a catalog declaration is neither true nor false", source=where)
    given["missing"] = tuple(str(text) for text in _list(given.get("missing", []), "missing", where))
    if "motion" in given:
        given["motion"] = _motion(given["motion"], where)
    if "host" in given:
        given["host"] = _host(given["host"], columns, where)
    if "service" in given:
        given["service"] = _service(given["service"], where)
    if given.get("margin_arcsec") == 0.0:  # 0 in the class means "not given"
        raise CatalogError("margin_arcsec 0 is not above 0", source=where)
    declaration = CatalogDeclaration(**given, columns=columns)
    _check(declaration, where)
    return declaration


def _list(value: Any, key: str, where: str) -> list[Any]:
    if not isinstance(value, (list, tuple)):
        raise CatalogError(f"{key} of a catalog declaration is not a list", source=where)
    return list(value)


def _number(value: Any, key: str, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise CatalogError(f"{key} of a catalog declaration is not a number", source=where)
    return float(value)


def _table(values: Any, key: str, known: Sequence[str], where: str) -> dict[str, Any]:
    if not isinstance(values, Mapping):
        raise CatalogError(f"[{key}] of a catalog declaration is not a table", source=where)
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise CatalogError(
            f"[{key}] of a catalog declaration has unknown key {', '.join(unknown)}",
            source=where,
            mend=f"known are {', '.join(known)}",
        )
    return dict(values)


def _motion(values: Any, where: str) -> Motion:
    given = _table(values, "motion", ("pmra", "pmdec"), where)
    if set(given) != {"pmra", "pmdec"} or not all(isinstance(name, str) and name for name in given.values()):
        raise CatalogError("[motion] of a catalog declaration needs the columns pmra and pmdec", source=where)
    return Motion(**given)


def _host(values: Any, columns: Sequence[CatalogColumn], where: str) -> HostColumns:
    given = _table(values, "host", [item.name for item in fields(HostColumns)], where)
    if "radius_kpc" in given:
        given["radius_kpc"] = _number(given["radius_kpc"], "[host] radius_kpc", where)
        if not 0.0 < given["radius_kpc"] <= 1000.0:
            raise CatalogError(
                f"[host] radius_kpc {given['radius_kpc']} is not above 0 and at most 1000 kpc", source=where
            )
    types = {item.name: item.type for item in columns}
    for key, name in given.items():
        if key == "radius_kpc":
            continue
        if not isinstance(name, str) or name not in types:
            raise CatalogError(f"[host] {key} {name!r} is not one of the declared columns", source=where)
        needed = "a text" if key in ("name", "alias") else "a number"
        if {"string": "a text", "bool": "a flag"}.get(types[name], "a number") != needed:
            raise CatalogError(f"[host] {key} is column {name} of type {types[name]}, not {needed}", source=where)
    if "distance_mpc" not in given and "redshift" not in given:
        raise CatalogError("[host] of a catalog declaration names neither distance_mpc nor redshift", source=where)
    return HostColumns(**given)


def _service(values: Any, where: str) -> dict[str, Any]:
    if not isinstance(values, Mapping):
        raise CatalogError("[service] of a catalog declaration is not a table", source=where)
    for key, value in values.items():
        is_list = isinstance(value, list) and all(isinstance(item, str) for item in value)
        if isinstance(value, bool) or not (is_list or isinstance(value, (str, int, float))):
            raise CatalogError(f"[service] {key} is not a text, a number or a list of texts", source=where)
    if not isinstance(values.get("kind"), str):
        raise CatalogError("[service] of a catalog declaration lacks kind", source=where)
    return dict(values)


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
    if item.vocabulary and (item.vocabulary not in VOCABULARIES or item.type != "string"):
        raise CatalogError(
            f"column {item.name} of type {item.type} cannot have vocabulary {item.vocabulary}", source=where
        )
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
    if not declaration.radius_arcsec <= declaration.margin_arcsec <= 648_000.0:
        raise CatalogError(
            f"margin_arcsec {declaration.margin_arcsec} is not from radius_arcsec {declaration.radius_arcsec}"
            " to 180 deg",
            source=where,
        )
    if not 1800.0 <= declaration.epoch <= 2200.0:
        raise CatalogError(f"epoch {declaration.epoch} is not a year from 1800 to 2200", source=where)
    if len(declaration.delimiter) != 1:
        raise CatalogError("delimiter of a catalog declaration is not one character", source=where)
