"""Asking a map: credible levels and densities at positions, regions and their areas."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline import healpix
from pipeline.skymap.maps import SkyMap


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


def region(skymap: SkyMap, credible_level: float) -> NDArray[np.int64]:
    """Return the range set of the smallest region that holds at least this probability.

    That is every place of credible level up to the given one, and the group of equal densities that crosses it.
    """
    reached = skymap.credible_level[skymap.credible_level >= credible_level]
    limit = reached.min() if len(reached) else 1.0
    inside = (skymap.credible_level <= limit) & (skymap.density_per_deg2 > 0)
    return healpix.merge_ranges(np.stack([skymap.start[inside], skymap.stop[inside]], axis=1))


def region_area_deg2(skymap: SkyMap, credible_level: float) -> float:
    """Return the area of :func:`region` in square degrees."""
    return healpix.ranges_area_deg2(region(skymap, credible_level))
