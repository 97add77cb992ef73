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
from pipeline.xmatch import CatalogDeclaration, MatchIndex

VERSION = 1
REQUIRES = ("ra", "dec", "healpix_29")


class MatchableCatalog(Protocol):
    """What a catalog has to offer: positions, the sky it was built for, and columns by row."""

    @property
    def index(self) -> MatchIndex:
        """Positions sorted by cell."""

    @property
    def covered(self) -> NDArray[np.int64]:
        """Range set of the sky that the catalog was built for."""

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
    radius.

    Parameters
    ----------
    alerts : pyarrow.Table
        ``ra``, ``dec`` (degrees) and ``healpix_29``; any number of rows.
    catalog : MatchableCatalog
        The opened catalog.
    declaration : CatalogDeclaration
        Columns and radius.

    Returns
    -------
    pyarrow.Table
        The columns of :func:`produces`, same rows.
    """
    ra, dec, cells = (np.asarray(alerts.column(name).to_numpy()) for name in REQUIRES)
    covered = in_ranges(catalog.covered, cells)
    found = xmatch.nearest(
        ra, dec, np.where(covered, declaration.radius_arcsec, np.nan), catalog.index, healpix_29=cells
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
