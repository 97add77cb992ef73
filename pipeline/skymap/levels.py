"""Asking a map: credible levels and densities at positions, regions and their areas."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline import healpix
from pipeline.skymap.maps import CELL_DEG2, SKY_DEG2, SkyMap


def rows_at(skymap: SkyMap, healpix_29: ArrayLike) -> NDArray[np.int64]:
    """Return the row of the map that holds each order-29 cell, shape (n,); -1 where the map has none."""
    cells = np.asarray(healpix_29, dtype=np.int64)
    row = np.searchsorted(skymap.start, cells, side="right") - 1
    return np.where((row >= 0) & (cells < skymap.stop[np.maximum(row, 0)]), row, -1)


def levels(skymap: SkyMap, healpix_29: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return credible level and probability density at order-29 cells.

    Parameters
    ----------
    skymap : SkyMap
        The map.
    healpix_29 : array_like of int64, shape (n,)
        Order-29 cells; -1 where there is no position.

    Returns
    -------
    credible_level, density_per_deg2 : numpy.ndarray of float64, shape (n,)
        Level 1 and density 0 where the map has no pixel; NaN for cell -1.
    """
    cells = np.asarray(healpix_29, dtype=np.int64)
    row = rows_at(skymap, cells)
    level = np.where(row >= 0, skymap.credible_level[row], 1.0)
    density = np.where(row >= 0, skymap.density_per_deg2[row], 0.0)
    return np.where(cells < 0, np.nan, level), np.where(cells < 0, np.nan, density)


def reached_level(skymap: SkyMap, credible_level: float) -> float:
    """Return the level of the region that holds at least this probability: of the group that crosses it."""
    reached = skymap.credible_level[skymap.credible_level >= credible_level]
    return float(reached.min()) if len(reached) else 1.0


def region(skymap: SkyMap, credible_level: float) -> NDArray[np.int64]:
    """Return the range set of the smallest region that holds at least this probability.

    That is every place of credible level up to the given one, and the group of equal densities that crosses it.
    """
    inside = (skymap.credible_level <= reached_level(skymap, credible_level)) & (skymap.density_per_deg2 > 0)
    return healpix.merge_ranges(np.stack([skymap.start[inside], skymap.stop[inside]], axis=1))


def region_area_deg2(skymap: SkyMap, credible_level: float) -> float:
    """Return the area of :func:`region` in square degrees."""
    return healpix.ranges_area_deg2(region(skymap, credible_level))


def mass_in(skymap: SkyMap, ranges: NDArray[np.int64]) -> float:
    """Return the probability within a range set (order 29, shape (k, 2)); a density holds evenly in its pixel."""
    edges = np.asarray(ranges, dtype=np.int64).reshape(-1, 2)
    if not len(edges) or not len(skymap.start):
        return 0.0
    size = (skymap.stop - skymap.start).astype(np.float64)
    before = np.concatenate([[0.0], np.cumsum(skymap.density_per_deg2 * size)])

    def up_to(cell: NDArray[np.int64]) -> NDArray[np.float64]:
        row = np.searchsorted(skymap.start, cell, side="right") - 1
        at = np.maximum(row, 0)
        within = np.clip(cell - skymap.start[at], 0, skymap.stop[at] - skymap.start[at])
        return np.where(row >= 0, before[at] + skymap.density_per_deg2[at] * within, 0.0)

    return float((up_to(edges[:, 1]) - up_to(edges[:, 0])).sum() * CELL_DEG2)


def searched_areas(skymap: SkyMap, healpix_29: ArrayLike) -> NDArray[np.float64]:
    """Return the area of all places at least as dense as each order-29 cell, square degrees, shape (n,).

    The whole sky where the map holds no probability; NaN for cell -1.
    """
    cells = np.asarray(healpix_29, dtype=np.int64)
    row = rows_at(skymap, cells)
    area = np.where(row >= 0, skymap.searched_area_deg2[row], SKY_DEG2)
    return np.where(cells < 0, np.nan, area)
