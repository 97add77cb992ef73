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


class OnePass:
    """Prepares the positions of a table once for all catalogs that it is matched with, one after the other."""

    def __init__(self) -> None:
        self._last: tuple[list[pa.Array], Positions] | None = None

    def positions(self, alerts: pa.Table) -> Positions:
        """Return the positions of a table: those of the last call where the columns are the very same memory."""
        columns = [alerts.column(name) for name in REQUIRES]
        if any(column.num_chunks != 1 for column in columns):
            return Positions(*(column.to_numpy() for column in columns))
        arrays = [column.chunk(0) for column in columns]
        last = self._last
        # The arrays are kept, so that no other table can come to lie at their place.
        if last is None or [_place(array) for array in arrays] != [_place(array) for array in last[0]]:
            last = arrays, Positions(*(column.to_numpy() for column in columns))
            self._last = last
        return last[1]


def _place(array: pa.Array) -> tuple[int, int, int]:
    values = array.buffers()[1]
    return 0 if values is None else values.address, array.offset, len(array)


def match(
    alerts: pa.Table, catalog: MatchableCatalog, declaration: CatalogDeclaration, shared: OnePass | None = None
) -> pa.Table:
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
    shared : OnePass, optional
        Given to every match of one table, what its positions need is computed once.

    Returns
    -------
    pyarrow.Table
        The columns of :func:`produces`, same rows.
    """
    return _match(alerts, (shared or OnePass()).positions(alerts), catalog, declaration)


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
