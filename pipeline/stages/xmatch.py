"""Cross-match of a table of alerts with one catalog."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline import xmatch
from pipeline.healpix import in_ranges
from pipeline.schema import from_columns
from pipeline.xmatch import CatalogDeclaration, MatchIndex, Positions, SourceClasses

VERSION = 1
REQUIRES = ("ra", "dec", "healpix_29")


def requires(declaration: CatalogDeclaration) -> tuple[str, ...]:
    """Return the columns that a match with this catalog reads: ``mjd`` too where its sources move."""
    return (*REQUIRES, "mjd") if declaration.motion else REQUIRES


class MatchableCatalog(Protocol):
    """What a catalog has to offer: positions, the sky it was built for, and columns by row."""

    @property
    def index(self) -> MatchIndex:
        """Positions sorted by cell."""

    @property
    def covered(self) -> NDArray[np.int64]:
        """Range set of the sky that the catalog was built for."""

    @property
    def declaration(self) -> CatalogDeclaration:
        """Columns, radius and epoch."""

    @property
    def proper_motion(self) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
        """``pmra`` (times cos dec) and ``pmdec`` of every row, mas/yr, NaN where unknown; where motion is declared."""

    def classes(self, kind: str) -> SourceClasses | None:
        """Return the classes of sources by reach: ``motion`` or ``host``; None where it has none."""

    def take(self, rows: NDArray[np.int64], names: Sequence[str]) -> pa.Table:
        """Return columns of some rows."""


def produces(declaration: CatalogDeclaration) -> list[pa.Field]:
    """Return the columns that a match with this catalog adds.

    ``xm_<name>_id`` where sources have one, ``xm_<name>_<column>`` for each declared column, then
    ``xm_<name>_separation_arcsec``, ``xm_<name>_n_neighbours`` and ``is_<name>_covered``.
    """
    return declaration.fields()


def match(alerts: pa.Table, catalog: MatchableCatalog, declaration: CatalogDeclaration) -> pa.Table:
    """Give every alert its nearest source.

    Every alert is matched by itself: two alerts at one place get the same source. Outside the sky that the catalog was
    built for every value is null; inside, ``n_neighbours`` is 0 and the others null where no source lies within the
    radius. Where the catalog declares proper motion, sources are taken where they were at the time of each alert.

    Parameters
    ----------
    alerts : pyarrow.Table
        ``ra``, ``dec`` (degrees), ``healpix_29`` and, for a catalog that declares motion, ``mjd`` (TAI); any number of
        rows.
    catalog : MatchableCatalog
        The opened catalog.
    declaration : CatalogDeclaration
        Columns and radius.

    Returns
    -------
    pyarrow.Table
        The columns of :func:`produces`, same rows.
    """
    return _match(alerts, _positions(alerts), catalog, declaration)


def match_all(alerts: pa.Table, catalogs: Sequence[MatchableCatalog]) -> list[pa.Table]:
    """Match with several catalogs in one pass: what the positions need is computed once. As :func:`match` otherwise."""
    positions = _positions(alerts)
    return [_match(alerts, positions, catalog, catalog.declaration) for catalog in catalogs]


def _positions(alerts: pa.Table) -> Positions:
    return Positions(*(alerts.column(name).to_numpy() for name in REQUIRES))


def _match(
    alerts: pa.Table, positions: Positions, catalog: MatchableCatalog, declaration: CatalogDeclaration
) -> pa.Table:
    covered = in_ranges(catalog.covered, positions.healpix_29)
    radius = declaration.radius_arcsec if covered.all() else np.where(covered, declaration.radius_arcsec, np.nan)
    classes = catalog.classes("motion") if declaration.motion else None
    if classes is None:
        found = xmatch.nearest_at(positions, radius, catalog.index)
    else:
        year = xmatch.julian_epoch(alerts.column("mjd").to_numpy())
        found = xmatch.nearest_moving(
            positions, year, radius, catalog.index, classes, *catalog.proper_motion, declaration.epoch
        )
    matched = found.row >= 0
    names = [item.name for item in declaration.columns]
    payload = catalog.take(found.row[matched], names)
    place = pa.array(np.cumsum(matched) - 1, mask=~matched)  # a null place takes a null
    name = declaration.name
    columns: dict[str, object] = {declaration.output_name(item): payload.column(item).take(place) for item in names}
    columns[f"xm_{name}_separation_arcsec"] = pa.array(found.separation_arcsec, mask=~matched)
    columns[f"xm_{name}_n_neighbours"] = pa.array(found.n_neighbours, mask=~covered)
    columns[f"is_{name}_covered"] = pa.array(covered)
    return from_columns(columns, pa.schema(produces(declaration)))
