"""Credible levels at the positions of any table: the rows of a catalog, of candidates, of a list of galaxies."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline import healpix
from pipeline.errors import InputError
from pipeline.followup.search import check_events
from pipeline.schema import column
from pipeline.skymap import DEG2_PER_SR, SkyMap, levels, volume_levels


def positions(table: pa.Table, maps: Sequence[SkyMap], *, source: str = "table") -> pa.Table:
    """Return the same rows with what each map says of them.

    Parameters
    ----------
    table : pyarrow.Table
        ``ra``, ``dec`` (ICRS degrees; capitals will do), and, where it has them, ``dist_mpc`` and ``dist_err_mpc``
        (luminosity distance, 1 sigma); any other columns are kept.
    maps : sequence of SkyMap
        One map adds ``credible_level``, ``probdensity`` (sr-1) and, where the table has ``dist_mpc`` and the map
        distances, ``volume_level``; of several maps each column starts with the event's name and ``_``.
    source : str
        Named in errors.

    Returns
    -------
    pyarrow.Table
        All rows in their order; null where a row has no position, ``volume_level`` where it has no distance.

    Raises
    ------
    InputError
        The table lacks ``ra`` or ``dec``, or holds no numbers there; or has one of the added columns already.
    """
    check_events(maps)
    ra, dec = _numbers(table, "ra", source), _numbers(table, "dec", source)
    present = {item.lower() for item in table.column_names}
    distance = _numbers(table, "dist_mpc", source) if "dist_mpc" in present else None
    error = _numbers(table, "dist_err_mpc", source) if "dist_err_mpc" in present else None
    cells = healpix.ang2pix(healpix.MAX_ORDER, ra, dec)
    for skymap in maps:
        prefix = f"{skymap.event}_" if len(maps) > 1 else ""
        for item, values in _columns(skymap, prefix, cells, distance, error):
            if item.name in table.column_names:
                raise InputError(f"the table has a column {item.name} already", source=source, mend="rename it")
            table = table.append_column(item, pa.array(values, mask=np.isnan(values)))
    return table


def _columns(
    skymap: SkyMap,
    prefix: str,
    cells: NDArray[np.int64],
    distance: NDArray[np.float64] | None,
    error: NDArray[np.float64] | None,
) -> list[tuple[pa.Field, NDArray[np.float64]]]:
    level, density = levels(skymap, cells)
    told = f"on the map of {skymap.event}"
    added = [
        (column(f"{prefix}credible_level", pa.float64(), doc=f"probability at least as dense {told}"), level),
        (
            column(f"{prefix}probdensity", pa.float64(), unit="sr-1", doc=f"probability density {told}"),
            density * DEG2_PER_SR,
        ),
    ]
    if distance is not None and skymap.has_distance:
        usable = np.where(distance > 0, distance, np.nan)
        volume = volume_levels(skymap, cells, usable, error)
        volume = np.where(cells < 0, np.nan, volume)
        added.append((column(f"{prefix}volume_level", pa.float64(), doc=f"credible level in space {told}"), volume))
    return added


def _numbers(table: pa.Table, name: str, source: str) -> NDArray[np.float64]:
    """Return a column as float64, shape (n,), null as NaN; in capitals or not."""
    alike = [item for item in table.column_names if item.lower() == name]
    name = alike[0] if name not in alike and len(alike) == 1 else name
    if name not in table.column_names:
        raise InputError(
            f"the table has no column {name}",
            source=source,
            mend=f"ra and dec in degrees are needed; it has {', '.join(table.column_names) or 'none'}",
        )
    data = table.column(name)
    try:
        if pa.types.is_string(data.type) or pa.types.is_boolean(data.type):
            raise pa.ArrowInvalid(f"it holds {data.type}")
        # whatever its type, numbers are numbers; an id in it would not be a coordinate
        return pc.cast(data, pa.float64(), safe=False).to_numpy()
    except pa.ArrowException as error:
        raise InputError(f"column {name} holds no numbers: {error}", source=source, mend="give degrees") from error
