"""The ``[service]`` table of a declaration: what is asked of which service, and how politely."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from typing import Any
from urllib.parse import urlsplit

from pipeline.catalogs.fetch.cells import cell_radius_arcsec
from pipeline.errors import CatalogError
from pipeline.xmatch import CatalogDeclaration

KINDS = ("xmatch", "tap", "vizier", "simbad", "gaia", "tns")
ADQL_KINDS = ("tap", "simbad", "gaia")

_ADDRESSES = {
    "xmatch": "http://cdsxmatch.u-strasbg.fr/xmatch/api/v1/sync",
    "vizier": "https://vizier.cds.unistra.fr/viz-bin/votable",
    "simbad": "https://simbad.cds.unistra.fr/simbad/sim-tap",
    "gaia": "https://gea.esac.esa.int/tap-server/tap",
    "tns": "https://www.wis-tns.org/system/files/tns_public_objects/tns_public_objects.csv.zip",
}
_TABLES = {"simbad": "basic", "gaia": "gaiadr3.gaia_source", "tns": "tns_public_objects"}
_CHUNKS = {"xmatch": 2000, "tap": 200, "vizier": 200, "simbad": 1000, "gaia": 100, "tns": 1}
_LARGEST_CHUNK = {"xmatch": 100_000, "tap": 10_000, "vizier": 2_000, "simbad": 20_000, "gaia": 10_000, "tns": 1}
_MAXREC = {"xmatch": 200_000, "tap": 20_000, "vizier": 50_000, "simbad": 100_000, "gaia": 2_000, "tns": 10_000_000}
_REACH_ARCSEC = {"xmatch": 180.0}  # the service takes no larger distance
_LARGEST_REACH_ARCSEC = 3600.0
_ORDER = {"xmatch": 11, "simbad": 11, "gaia": 13}  # the denser the catalog, the smaller the cells
_OTHER_ORDER = 12
_ORDERS = (6, 20)
_HOST_ORDER, _HOST_MARGIN_ARCSEC = 9, 600.0
"""Around an alert hosts are looked for as far as 30 kpc at 10 Mpc; nearer galaxies need a file of the whole sky."""
_MOTION_MARGIN_ARCSEC = 20.0
"""How far a source may have moved from where its catalog has it: about 1 arcsec a year for 20 years."""
_TABLE = re.compile(r'[A-Za-z0-9_."+/:-]{1,120}')
_KEYS = {
    "kind": str, "url": str, "table": str, "ra": str, "dec": str, "columns": list, "order": int, "chunk": int,
    "maxrec": int, "pause_sec": float, "duplicates": str, "where": str, "discs": str, "key_variable": str,
}  # fmt: skip
_ONLY = {"where": ADQL_KINDS, "discs": ADQL_KINDS, "key_variable": ("tns",)}


@dataclass(frozen=True)
class Service:
    """A service as declared, with what was left to defaults filled in.

    Attributes
    ----------
    kind : str
        One of ``KINDS``.
    url : str
        Address; it never holds a key.
    table : str
        Catalog or table asked.
    ra, dec : str
        Its position columns, in degrees.
    columns : tuple of (str, str)
        Column of the service, and of the catalog's file in whose place it stands; without the positions.
    order : int
        HEALPix order of the cells asked for.
    margin_arcsec : float
        Sky asked for around every cell, so that each disc around an alert in the cell is covered.
    chunk : int
        Cells in one request.
    maxrec : int
        Rows allowed in one answer; an answer that reaches it counts as truncated.
    pause_sec : float
        Time between two requests.
    duplicates : str
        ``refuse`` (a row twice in one disc is a fault of the service) or ``merge``.
    where : str
        Further ADQL condition.
    discs : str
        ``upload`` them as a table, or write them into the ``query``.
    key_variable : str
        Environment variable of the key; with ``_FILE`` behind its name, that of a file that holds it.
    """

    kind: str
    url: str
    table: str
    ra: str
    dec: str
    columns: tuple[tuple[str, str], ...]
    order: int
    margin_arcsec: float
    chunk: int
    maxrec: int
    pause_sec: float
    duplicates: str = "refuse"
    where: str = ""
    discs: str = "upload"
    key_variable: str = "TNS_API_KEY"

    @property
    def asked(self) -> list[str]:
        """Columns of the service, each once, positions first."""
        return list(dict.fromkeys([self.ra, self.dec, *(name for name, _ in self.columns)]))

    @property
    def reach_arcsec(self) -> float:
        """Radius of the disc that holds a cell and its margin."""
        return cell_radius_arcsec(self.order) + self.margin_arcsec

    def fingerprint(self) -> dict[str, Any]:
        """Return what decides the rows of a snapshot; chunks, pauses and mirrors do not."""
        apart = ("url", "chunk", "maxrec", "pause_sec", "key_variable", "discs")
        values = {item.name: getattr(self, item.name) for item in fields(self) if item.name not in apart}
        return {**values, "columns": [list(pair) for pair in self.columns]}


def check_service(declaration: CatalogDeclaration, *, url: str | None = None, chunk: int | None = None) -> Service:
    """Check the ``[service]`` table of a declaration and return it with its defaults.

    Parameters
    ----------
    declaration : CatalogDeclaration
        As declared.
    url : str, optional
        Another address of the same service.
    chunk : int, optional
        Another number of cells in a request.

    Raises
    ------
    CatalogError
        There is no such table, or a key is unknown, missing, of the wrong type or out of bounds.
    """
    where = f"catalog {declaration.name}, [service]"
    if declaration.service is None:
        raise CatalogError(
            f"catalog {declaration.name} declares no service", mend="build it from its file: alertmill catalogs build"
        )
    given: dict[str, Any] = dict(declaration.service)
    given |= {key: value for key, value in (("url", url), ("chunk", chunk)) if value is not None}
    _check_keys(given, where)
    kind = given["kind"]
    margin = max(declaration.margin_arcsec, declaration.radius_arcsec)
    if declaration.motion is not None:
        margin = max(margin, declaration.radius_arcsec + _MOTION_MARGIN_ARCSEC)
    if declaration.host is not None:
        margin = max(margin, _HOST_MARGIN_ARCSEC)
    address = given.get("url") or _ADDRESSES.get(kind)
    if not address or not (table := given.get("table") or _TABLES.get(kind)):
        raise CatalogError(f"a service of kind {kind} needs {'table' if address else 'url'}", source=where)
    service = Service(
        kind=kind,
        url=_address(address, kind, where),
        table=table,
        ra=given.get("ra", declaration.ra),
        dec=given.get("dec", declaration.dec),
        columns=_columns(declaration, given.get("columns", []), where),
        order=_order(kind, given.get("order"), margin, declaration.host is not None, where),
        margin_arcsec=margin,
        chunk=_bounded(given.get("chunk", _CHUNKS[kind]), "chunk", 1, _LARGEST_CHUNK[kind], where),
        maxrec=_bounded(given.get("maxrec", _MAXREC[kind]), "maxrec", 10, 10_000_000, where),
        pause_sec=_bounded(float(given.get("pause_sec", 1.0)), "pause_sec", 0.0, 600.0, where),
        **{key: given[key] for key in ("duplicates", "where", "discs", "key_variable") if key in given},
    )
    _check_texts(service, where)
    return service


def _check_keys(given: dict[str, Any], where: str) -> None:
    unknown = sorted(set(given) - set(_KEYS))
    if unknown:
        raise CatalogError(f"unknown key {', '.join(unknown)}", source=where, mend=f"known are {', '.join(_KEYS)}")
    if given.get("kind") not in KINDS:
        raise CatalogError(f"kind {given.get('kind')!r} is not one of {', '.join(KINDS)}", source=where)
    for key, value in given.items():
        wanted: Any = (int, float) if _KEYS[key] is float else _KEYS[key]
        if not isinstance(value, wanted) or isinstance(value, bool) or value == "":
            name = {str: "a text", int: "a whole number", float: "a number", list: "a list"}[_KEYS[key]]
            raise CatalogError(f"{key} is not {name}", source=where)
        if given["kind"] not in _ONLY.get(key, KINDS):
            raise CatalogError(f"{key} does not go with kind {given['kind']}", source=where)


def _check_texts(service: Service, where: str) -> None:
    if not _TABLE.fullmatch(service.table):
        raise CatalogError(f"table {service.table!r} cannot be the name of one", source=where)
    if service.kind == "xmatch" and service.table != "simbad" and not service.table.startswith("vizier:"):
        raise CatalogError(f"table {service.table} is neither simbad nor vizier:...", source=where)
    if service.duplicates not in ("refuse", "merge"):
        raise CatalogError(f"duplicates {service.duplicates} is neither refuse nor merge", source=where)
    if service.discs not in ("upload", "query"):
        raise CatalogError(f"discs {service.discs} is neither upload nor query", source=where)
    if service.where.count("'") % 2 or ";" in service.where or "--" in service.where:
        raise CatalogError("where is not one ADQL condition", source=where)
    for name in service.asked:
        if not name or any(character in name for character in '"\r\n\0'):
            raise CatalogError(f"{name!r} cannot be the name of a column", source=where)
    if not re.fullmatch(r"[A-Z][A-Z0-9_]*", service.key_variable):
        raise CatalogError("key_variable is not the name of an environment variable (A-Z, 0-9, _)", source=where)


def _columns(declaration: CatalogDeclaration, pairs: list[str], where: str) -> tuple[tuple[str, str], ...]:
    """Return (column of the service, column of the catalog's file) of all that is taken over beside positions."""
    renamed = {}
    for pair in pairs:
        ours, _, theirs = pair.partition("=")
        if not ours or not theirs:
            raise CatalogError(f"columns has {pair!r}, not our_name=name at the service", source=where)
        renamed[ours.strip()] = theirs.strip()
    sources = {item.name: item.source for item in declaration.columns}
    if declaration.motion:
        sources |= {"pmra": declaration.motion.pmra, "pmdec": declaration.motion.pmdec}
    unknown = sorted(set(renamed) - set(sources))
    if unknown:
        raise CatalogError(f"columns names {', '.join(unknown)}, which the catalog does not declare", source=where)
    at_service = {source: renamed.get(name, source) for name, source in sources.items()}
    return tuple(
        (theirs, source) for source, theirs in at_service.items() if source not in (declaration.ra, declaration.dec)
    )


def _order(kind: str, given: int | None, margin_arcsec: float, is_host: bool, where: str) -> int:
    reach = _REACH_ARCSEC.get(kind, _LARGEST_REACH_ARCSEC)
    if margin_arcsec + cell_radius_arcsec(_ORDERS[1]) > reach:
        raise CatalogError(
            f"a margin of {margin_arcsec:g} arcsec is more than {kind} takes ({reach:g} arcsec)",
            source=where,
            mend="lower margin_arcsec, or use another kind of service",
        )
    if given is None:
        usual = _HOST_ORDER if is_host else _ORDER.get(kind, _OTHER_ORDER)
        fits = (order for order in range(usual, _ORDERS[1]) if margin_arcsec + cell_radius_arcsec(order) <= reach)
        return next(fits, _ORDERS[1])
    order = _bounded(given, "order", *_ORDERS, where)
    if margin_arcsec + cell_radius_arcsec(order) > reach:
        raise CatalogError(
            f"a cell of order {order} with its margin reaches beyond {reach:g} arcsec", source=where, mend="raise order"
        )
    return order


def _bounded(value: Any, key: str, least: Any, most: Any, where: str) -> Any:
    if not least <= value <= most:
        raise CatalogError(f"{key} {value} is not between {least} and {most}", source=where)
    return value


def _address(text: str, kind: str, where: str) -> str:
    """Return the address, which must not carry what is secret: it is stored and printed."""
    try:
        pieces = urlsplit(text)
        host = pieces.hostname
        _ = pieces.port
    except ValueError:
        host = None
    if not host or pieces.scheme not in ("http", "https"):
        raise CatalogError("url is not an http:// or https:// address", source=where)
    if pieces.username is not None or pieces.query or pieces.fragment:
        raise CatalogError("url holds a user, a query or a fragment", source=where, mend="give the bare address")
    if kind == "tns" and pieces.scheme == "http" and not is_loopback(host):
        raise CatalogError("the key would travel in the clear", source=where, mend="use https://")
    return text.rstrip("/")


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine."""
    return host in ("127.0.0.1", "::1", "localhost")
