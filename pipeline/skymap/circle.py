"""Error circles as maps: a position and a radius that holds a stated probability, as a Fisher distribution.

Fisher's distribution on the sphere has the density ``exp(kappa cos(theta))`` at an angle ``theta`` from its centre: a
Gaussian where it is narrow, uniform where ``kappa`` is 0. Within ``theta`` lies the probability
``(1 - exp(-kappa (1 - cos(theta)))) / (1 - exp(-2 kappa))``, from which ``kappa`` follows exactly.

References
----------
Fisher 1953, Proc. R. Soc. A 217, 295, doi:10.1098/rspa.1953.0064.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pipeline import healpix
from pipeline.errors import CatalogError
from pipeline.skymap.maps import SkyMap, event_name, make_skymap

Float = NDArray[np.float64]
Int = NDArray[np.int64]
_JIT: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy"}
_LEVEL_STEP = 0.006
"""By how much the level may differ between a pixel's centre and a corner, at most."""
_DENSITY_STEP = math.log(2.0)
_LEAST_DEG = 1e-5
"""Least radius: less is not much more than a cell of order 29."""
_ABOVE_UNIFORM = 1e-6
"""By which part a circle must hold more than a uniform sky: below, differences of its density lose their digits."""
_TAIL = 1e-6
"""Probability outside which pixels need not follow the density."""


def fisher_skymap(
    event: str,
    event_mjd: float | None,
    ra: float,
    dec: float,
    radius_deg: float,
    containment: float = 0.9,
    systematic_deg: float = 0.0,
) -> SkyMap:
    """Return the map of an error circle.

    Parameters
    ----------
    event : str
        Name of the event.
    event_mjd : float or None
        Time of the event, TAI.
    ra, dec : float
        Centre, ICRS degrees.
    radius_deg : float
        Radius of the circle, degrees.
    containment : float
        Probability within the radius, between 0 and 1.
    systematic_deg : float
        Radius of a systematic error that holds the same probability, degrees; added in quadrature to the radius.

    Returns
    -------
    SkyMap
        Multi-order map of the whole sky: pixels are divided until the level in each is right, also at its corners, to
        better than 0.006 (in the mean 0.001), and the density to a factor of two where there is probability.

    Raises
    ------
    CatalogError
        A number is out of bounds, or the circle would hold no more than a uniform sky does.
    """
    numbers = (ra, dec, radius_deg, containment, systematic_deg)
    if not all(math.isfinite(item) for item in numbers) or abs(dec) > 90.0 or systematic_deg < 0:
        raise CatalogError(f"error circle is not understood: {numbers}", source=event)
    radius = math.hypot(radius_deg, systematic_deg)
    kappa = concentration(radius, containment) if radius_deg > 0 else math.nan
    if not math.isfinite(kappa):
        raise CatalogError(
            f"error circle of {radius:.6g} deg cannot hold {containment:.6g} of the probability", source=event
        )
    orders, cells = _pixels(ra, dec, kappa)
    shift = 2 * (healpix.MAX_ORDER - orders)
    start = cells << shift
    by = np.argsort(start, kind="stable")
    density = _densities(orders, cells, ra, dec, kappa)
    area = healpix.cell_area_deg2(0) / np.exp2(2.0 * orders)
    density /= float((density * area).sum())
    return make_skymap(event_name(event), event_mjd, start[by], ((cells + 1) << shift)[by], density[by], source=event)


def concentration(radius_deg: float, containment: float) -> float:
    """Return the ``kappa`` of the Fisher distribution that holds a probability within a radius; NaN if none does."""
    if not (_LEAST_DEG <= radius_deg < 180.0 and 0.0 < containment < 1.0):
        return math.nan
    height = 2.0 * math.sin(math.radians(radius_deg) / 2.0) ** 2
    if containment <= 0.5 * height * (1.0 + _ABOVE_UNIFORM):
        return math.nan
    # The denominator is below 1, so that the probability of a plane's Gaussian bounds kappa from above.
    low, high = 0.0, -math.log1p(-containment) / height
    while True:
        middle = 0.5 * (low + high)
        if not low < middle < high:
            return high
        if math.expm1(-middle * height) / math.expm1(-2.0 * middle) < containment:
            low = middle
        else:
            high = middle


def level_within(kappa: float, theta_deg: float) -> float:
    """Return the probability within an angle of the centre of a Fisher distribution."""
    height = 2.0 * math.sin(math.radians(theta_deg) / 2.0) ** 2
    return math.expm1(-kappa * height) / math.expm1(-2.0 * kappa)


def _pixels(ra_deg: float, dec_deg: float, kappa: float) -> tuple[Int, Int]:
    """Return orders and cells of the grid, divided from the whole sky down until each pixel is fine enough."""
    orders, kept = [], []
    cells = np.arange(12, dtype=np.int64)
    for order in range(healpix.MAX_ORDER + 1):
        ra, dec = healpix.pix2ang(order, cells)
        coarse = _is_too_coarse(ra, dec, ra_deg, dec_deg, kappa, _reach_rad(order))
        if order == healpix.MAX_ORDER:
            coarse[:] = False
        kept.append(cells[~coarse])
        orders.append(np.full(len(kept[-1]), order, dtype=np.int64))
        cells = (cells[coarse, None] * 4 + np.arange(4)).reshape(-1)
        if not len(cells):
            break
    return np.concatenate(orders), np.concatenate(kept)


def _densities(orders: Int, cells: Int, ra_deg: float, dec_deg: float, kappa: float) -> Float:
    """Return the mean density of each pixel, to a common factor: the mean of its four quarters."""
    density = np.empty(len(cells))
    for order in np.unique(orders):
        here = np.flatnonzero(orders == order)
        finer = min(int(order) + 1, healpix.MAX_ORDER)
        quarters = (cells[here, None] * 4 + np.arange(4)) if finer > order else cells[here, None]
        ra, dec = healpix.pix2ang(finer, quarters.reshape(-1))
        density[here] = np.exp(-kappa * _heights(ra, dec, ra_deg, dec_deg)).reshape(len(here), -1).mean(axis=1)
    return density


def _reach_rad(order: int) -> float:
    """Return a bound of the angle between the centre and a corner of any pixel of an order."""
    nside = 1 << order
    # The widest pixels lie where belt and caps meet; their farthest corner is the one towards the pole.
    z, phi = 2.0 / 3.0, math.pi / (4.0 * nside)
    corner = 1.0 - (1.0 - 1.0 / nside) ** 2 / 3.0
    height = math.sqrt(1.0 - z * z)
    corner_height = math.sqrt(max(1.0 - corner * corner, 0.0))
    east, north = height * math.cos(phi) - corner_height, z - corner
    return 2.0 * math.asin(0.5 * math.sqrt(east**2 + (height * math.sin(phi)) ** 2 + north**2))


# ------------------------------------------------------------------------------------------------ kernels
@njit(**_JIT)
def _heights(ra: Float, dec: Float, ra_deg: float, dec_deg: float) -> Float:
    """Return ``1 - cos(theta)`` of the angles between positions and the centre, exact where they are small."""
    out = np.empty(ra.size)
    scale = math.pi / 360.0  # half an angle in radians
    cosine = math.cos(2.0 * scale * dec_deg)
    for i in range(ra.size):
        along = math.sin(scale * (dec[i] - dec_deg))
        across = math.sin(scale * (ra[i] - ra_deg))
        out[i] = 2.0 * (along * along + cosine * math.cos(2.0 * scale * dec[i]) * across * across)
    return out


@njit(**_JIT)
def _is_too_coarse(
    ra: Float, dec: Float, ra_deg: float, dec_deg: float, kappa: float, reach_rad: float
) -> NDArray[np.bool_]:
    """Return whether the level, or where there is probability the density, differs too much within each pixel."""
    height = _heights(ra, dec, ra_deg, dec_deg)
    out = np.zeros(ra.size, np.bool_)
    whole = -math.expm1(-2.0 * kappa)
    for i in range(ra.size):
        theta = 2.0 * math.asin(min(math.sqrt(0.5 * height[i]), 1.0))
        near = 1.0 - math.cos(max(theta - reach_rad, 0.0))
        far = 1.0 - math.cos(min(theta + reach_rad, math.pi))
        if reach_rad < 0.01 and theta < 0.5:  # where the cosine has lost its digits
            near = 2.0 * math.sin(0.5 * max(theta - reach_rad, 0.0)) ** 2
            far = 2.0 * math.sin(0.5 * (theta + reach_rad)) ** 2
        inner = math.exp(-kappa * near)
        here = math.exp(-kappa * height[i])
        outer = math.exp(-kappa * far)
        has_probability = inner - math.exp(-2.0 * kappa) > _TAIL * whole
        level_differs = max(inner - here, here - outer) > _LEVEL_STEP * whole
        out[i] = level_differs or (has_probability and kappa * (far - near) > 2.0 * _DENSITY_STEP)
    return out
