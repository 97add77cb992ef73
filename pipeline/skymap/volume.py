"""Three-dimensional credible levels: of a place at a distance, or at one known with an error."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.skymap.levels import rows_at
from pipeline.skymap.maps import SkyMap
from pipeline.skymap.voxels import levels_about

_SHARP = 1e-6
"""An error below this part of the width of the map's own distance makes no difference."""


def volume_levels(
    skymap: SkyMap, healpix_29: ArrayLike, distance_mpc: ArrayLike, distance_err_mpc: ArrayLike | None = None
) -> NDArray[np.float64]:
    """Return the credible level in volume: the probability of all places in space at least as dense.

    Parameters
    ----------
    skymap : SkyMap
        A map with distance or without.
    healpix_29 : array_like of int64, shape (n,)
        Order-29 cells; -1 where there is no position.
    distance_mpc : array_like of float64, shape (n,)
        Luminosity distances; NaN where unknown.
    distance_err_mpc : array_like of float64, shape (n,), optional
        Their standard errors. The level is then the mean of the level over the distance's own probability, a normal
        one cut at 0. Without, or where NaN or 0, the distance is taken for exact.

    Returns
    -------
    numpy.ndarray of float64, shape (n,)
        Level; 1 where the map holds no probability, NaN where map, pixel or row has no distance.

    Notes
    -----
    The table behind it is made at a map's first use and kept with it; see :mod:`pipeline.skymap.voxels`. Within it,
    levels are right to 1e-4. A level is of all probability that has a distance.
    """
    cells = np.asarray(healpix_29, dtype=np.int64).reshape(-1)
    distance = np.broadcast_to(np.asarray(distance_mpc, dtype=np.float64), cells.shape)
    error = np.broadcast_to(
        np.asarray(0.0 if distance_err_mpc is None else distance_err_mpc, dtype=np.float64), cells.shape
    )
    out = np.full(cells.shape, np.nan)
    mu, sigma = skymap.distance_mu_mpc, skymap.distance_sigma_mpc
    if mu is None or sigma is None:
        return out
    row = rows_at(skymap, cells)
    known = (cells >= 0) & (distance > 0) & np.isfinite(distance)
    out[known & ((row < 0) | (skymap.density_per_deg2[row] == 0))] = 1.0
    table = skymap.volume
    inside = np.flatnonzero(known & (row >= 0) & np.isfinite(table.log_peak[row]))
    at, error = row[inside], error[inside]
    with np.errstate(over="ignore"):  # farther than numbers go is density 0
        log_density = table.log_peak[at] - 0.5 * np.square((distance[inside] - mu[at]) / sigma[at])
    out[inside] = np.interp(log_density, table.log_density, table.level, left=1.0)
    blurred = np.isfinite(error) & (error > _SHARP * sigma[at])
    if blurred.any():
        at, these = at[blurred], inside[blurred]
        out[these] = levels_about(
            distance[these], error[blurred], table.log_peak[at], mu[at], sigma[at], table.log_density, table.level
        )
    return out
