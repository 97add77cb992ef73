"""The host galaxy of every alert: of all galaxies within reach, the one nearest in projected kpc."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline import cosmology, xmatch
from pipeline.healpix import in_ranges
from pipeline.schema import column, from_columns
from pipeline.stages.groups import Group
from pipeline.xmatch import CatalogDeclaration, HostColumns, MatchIndex, Pairs, Positions, SourceClasses

VERSION = 1
REQUIRES = ("ra", "dec", "healpix_29", "is_solar_system")

_F64 = pa.float64()
_PRODUCES = [
    column("host_catalog", pa.string(), doc="catalog that the host galaxy is from"),
    column("host_name", pa.string(), doc="name of the host galaxy"),
    column("host_alias", pa.string(), doc="second name of the host galaxy"),
    column("host_ra", _F64, unit="deg", doc="ICRS right ascension of the host galaxy"),
    column("host_dec", _F64, unit="deg", doc="ICRS declination of the host galaxy"),
    column("host_separation_arcsec", _F64, unit="arcsec", doc="separation from the host galaxy"),
    column("host_separation_kpc", _F64, unit="kpc", doc="projected distance, at the angular-diameter distance"),
    column("host_distance_mpc", _F64, unit="Mpc", doc="luminosity distance of the host galaxy"),
    column("host_distance_err_mpc", _F64, unit="Mpc", doc="1 sigma; null where the error is not known"),
    column("host_redshift", _F64, doc="redshift of the host galaxy, as its catalog has it"),
    column("host_stellar_mass_msun", _F64, unit="Msun", doc="stellar mass of the host galaxy"),
    column("host_n_candidates", pa.int32(), doc="galaxies within reach; null where no catalog was built"),
]
_TEXTS = {"host_name": "name", "host_alias": "alias"}


class HostCatalog(Protocol):
    """What a catalog of galaxies has to offer."""

    @property
    def name(self) -> str:
        """Name of the catalog."""

    @property
    def digest(self) -> str:
        """Digest of what decides a match."""

    @property
    def declaration(self) -> CatalogDeclaration:
        """The declaration, with the host columns."""

    @property
    def index(self) -> MatchIndex:
        """Positions sorted by cell."""

    @property
    def covered(self) -> NDArray[np.int64]:
        """Range set of the sky that the catalog was built for."""

    def classes(self, kind: str) -> SourceClasses | None:
        """Return the galaxies by how far they reach (``"host"``)."""

    def take(self, rows: NDArray[np.int64], names: Sequence[str]) -> pa.Table:
        """Return columns of some rows."""


def produces() -> list[pa.Field]:
    """Return the columns that this stage adds, ``host_*``."""
    return list(_PRODUCES)


def group(catalogs: Sequence[HostCatalog]) -> Group:
    """Return the column group bound to catalogs; those that declare no hosts are left aside."""
    chosen = [catalog for catalog in catalogs if catalog.declaration.host is not None]

    def run(alerts: pa.Table) -> pa.Table:
        return match(alerts, chosen)

    digests = {catalog.name: catalog.digest for catalog in chosen}
    return Group("host", VERSION, REQUIRES, tuple(produces()), run, digests=digests)


@dataclass(frozen=True, eq=False)
class _Candidates:
    """Pairs of an alert and a galaxy; arrays of shape (m,), ``place`` is that of the catalog."""

    alert: NDArray[np.int64]
    place: NDArray[np.int64]
    row: NDArray[np.int64]
    separation_arcsec: NDArray[np.float64]
    separation_kpc: NDArray[np.float64]
    distance_mpc: NDArray[np.float64]
    distance_err_mpc: NDArray[np.float64]


def match(alerts: pa.Table, catalogs: Sequence[HostCatalog]) -> pa.Table:
    """Give every alert its host galaxy.

    A galaxy reaches as far as its catalog's ``radius_kpc`` at its angular-diameter distance, at most 5 degrees. Of all
    galaxies that reach an alert the nearest in projected kpc is the host; of equals that with the smaller separation in
    arcsec, then by name of the catalog, then by row. Which distance of a galaxy holds is told in
    :func:`pipeline.cosmology.galaxy_distances`.

    Parameters
    ----------
    alerts : pyarrow.Table
        ``ra``, ``dec`` (degrees), ``healpix_29`` and ``is_solar_system``; any number of rows.
    catalogs : sequence of HostCatalog
        Opened catalogs; those that declare no hosts are left aside.

    Returns
    -------
    pyarrow.Table
        The columns of :func:`produces`, same rows. Where no catalog was built, and for Solar System objects, every
        value is null; where none reaches, ``host_n_candidates`` is 0 and the others null.
    """
    hosts = sorted((item for item in catalogs if item.declaration.host is not None), key=lambda item: item.name)
    ra, dec, cells = (alerts.column(name).to_numpy() for name in REQUIRES[:3])
    is_sought = ~alerts.column("is_solar_system").fill_null(False).to_numpy()
    positions = Positions(np.where(is_sought, ra, np.nan), dec, np.where(is_sought, cells, -1))
    is_covered = np.zeros((len(hosts), alerts.num_rows), dtype=bool)
    found = []
    for place, catalog in enumerate(hosts):
        is_covered[place] = in_ranges(catalog.covered, positions.healpix_29)
        found.append(_candidates(catalog, place, positions, is_covered[place]))
    return _best(found, hosts, np.asarray(is_covered.any(axis=0)))


def _candidates(catalog: HostCatalog, place: int, positions: Positions, is_covered: NDArray[np.bool_]) -> _Candidates:
    """Return every pair of an alert and a galaxy that reaches it."""
    classes = catalog.classes("host")
    declared = catalog.declaration.host
    if classes is None or declared is None:
        nothing = np.empty(0, dtype=np.int64)
        pairs = Pairs(nothing, nothing, np.empty(0))
        declared = HostColumns()
    else:
        pairs = xmatch.within_reach(positions, classes)
    keep = is_covered[pairs.alert]
    alert, row, separation = pairs.alert[keep], pairs.row[keep], pairs.separation_arcsec[keep]
    rows, back = np.unique(row, return_inverse=True)
    distances = _distances(catalog, declared, rows)
    return _Candidates(
        alert,
        np.full(len(alert), place),
        row,
        separation,
        cosmology.separation_kpc(separation, distances.angular_mpc[back]),
        distances.luminosity_mpc[back],
        distances.luminosity_err_mpc[back],
    )


def _distances(catalog: HostCatalog, declared: HostColumns, rows: NDArray[np.int64]) -> cosmology.Distances:
    names = [declared.distance_mpc, declared.distance_err_mpc, declared.angular_distance_mpc, declared.redshift]
    given = [None if name is None else _numbers(catalog, rows, name) for name in names]
    return cosmology.galaxy_distances(*given)


def _numbers(catalog: HostCatalog, rows: NDArray[np.int64], name: str) -> NDArray[np.float64]:
    values = catalog.take(rows, [name]).column(name)
    return np.asarray(values.cast(pa.float64()).to_numpy(), dtype=np.float64)


def _best(found: Sequence[_Candidates], hosts: Sequence[HostCatalog], is_consulted: NDArray[np.bool_]) -> pa.Table:
    """Return the columns: the best candidate of each alert, and how many there are."""
    n = len(is_consulted)
    texts = {name: np.full(n, None, dtype=object) for name in ("host_catalog", *_TEXTS)}
    numbers = {item.name: np.full(n, np.nan) for item in _PRODUCES if item.type == _F64}
    counts = np.zeros(n, dtype=np.int32)
    if found:
        one = _Candidates(
            *(np.concatenate(items) for items in zip(*(vars(item).values() for item in found), strict=True))
        )
        counts = np.bincount(one.alert, minlength=n).astype(np.int32)
        order = np.lexsort((one.row, one.place, one.separation_arcsec, one.separation_kpc, one.alert))
        first = order[np.flatnonzero(np.diff(one.alert[order], prepend=-1))]
        for place, catalog in enumerate(hosts):
            _fill(texts, numbers, one, first[one.place[first] == place], catalog)
    columns: dict[str, Any] = {name: pa.array(values, pa.string()) for name, values in texts.items()}
    columns |= {name: pa.array(values, from_pandas=True) for name, values in numbers.items()}
    columns["host_n_candidates"] = pa.array(counts, mask=~is_consulted)
    return from_columns(columns, pa.schema(_PRODUCES))


def _fill(
    texts: dict[str, NDArray], numbers: dict[str, NDArray], one: _Candidates, chosen: NDArray, catalog: HostCatalog
) -> None:
    """Write what the chosen candidates, all of one catalog, give to their alerts."""
    alert, row = one.alert[chosen], one.row[chosen]
    declared = catalog.declaration.host
    if declared is None or not len(chosen):
        return
    texts["host_catalog"][alert] = catalog.name
    for output, key in _TEXTS.items():
        name = getattr(declared, key)
        if name is not None:
            texts[output][alert] = catalog.take(row, [name]).column(name).cast(pa.string()).to_pylist()
    numbers["host_ra"][alert], numbers["host_dec"][alert] = catalog.index.ra[row], catalog.index.dec[row]
    for name in ("separation_arcsec", "separation_kpc", "distance_mpc", "distance_err_mpc"):
        numbers[f"host_{name}"][alert] = getattr(one, name)[chosen]
    for name in ("redshift", "stellar_mass_msun"):
        source = getattr(declared, name)
        if source is not None:
            numbers[f"host_{name}"][alert] = _numbers(catalog, row, source)
