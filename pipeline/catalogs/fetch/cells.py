"""Cells to ask for, and the discs in which services are asked for them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline import healpix
from pipeline.xmatch import build_index, nearest

TOLERANCE_ARCSEC = 0.1
"""What a disc is asked larger than it is needed, so that rounding at its edge decides nothing."""
_SMALLEST_DISC_ARCSEC = 1.0
_COVER = 0.501
"""Radius of each of seven discs that cover one of radius 1, up to a degree on the sphere (a half in the plane)."""


@dataclass(frozen=True)
class Discs:
    """Discs of one radius: ``ra``, ``dec`` in degrees, shape (n,)."""

    ra: NDArray[np.float64]
    dec: NDArray[np.float64]
    radius_arcsec: float

    def __len__(self) -> int:
        """Return the number of discs."""
        return len(self.ra)

    def halves(self) -> tuple[Discs, Discs]:
        """Return the first and the second half of the discs."""
        middle = len(self) // 2
        return (
            Discs(self.ra[:middle], self.dec[:middle], self.radius_arcsec),
            Discs(self.ra[middle:], self.dec[middle:], self.radius_arcsec),
        )

    def distance_arcsec(self, ra: ArrayLike, dec: ArrayLike, slack_arcsec: ArrayLike) -> NDArray[np.float64]:
        """Return how far each position lies from the nearest centre, NaN beyond radius plus slack, shape (m,)."""
        positions = np.asarray(ra, dtype=np.float64), np.asarray(dec, dtype=np.float64)
        reach = np.broadcast_to(self.radius_arcsec + np.asarray(slack_arcsec), positions[0].shape)
        index, _ = build_index(self.ra, self.dec)
        return nearest(*positions, np.ascontiguousarray(reach), index).separation_arcsec


def cell_radius_arcsec(order: int) -> float:
    """Return the largest distance from the centre of a cell of this order to its corners.

    The cell is the one beside the edge of the polar cap at which it is largest (Górski et al. 2005, ApJ 622, 759,
    doi:10.1086/427976; ``max_pixrad`` of the reference implementation).
    """
    nside = 1 << order
    z, height = 2.0 / 3.0, 1.0 - (1.0 - 1.0 / nside) ** 2 / 3.0
    phi = math.pi / (4.0 * nside)
    # The haversine of the angle between (z, phi) and (height, 0): the dot product has no digits left at deep orders.
    d_lat = math.asin(height) - math.asin(z)
    cosines = math.sqrt((1.0 - z * z) * (1.0 - height * height))
    haversine = math.sin(d_lat / 2.0) ** 2 + cosines * math.sin(phi / 2.0) ** 2
    return math.degrees(2.0 * math.asin(math.sqrt(haversine))) * 3600.0


def wanted_cells(order: int, healpix_29: ArrayLike) -> NDArray[np.int64]:
    """Return the cells that hold the alerts, ascending, each once; alerts without a position (-1) have none."""
    cells = np.unique(healpix.cell_at(healpix_29, order))
    return cells[cells >= 0]


def discs_of(order: int, cells: NDArray[np.int64], margin_arcsec: float) -> Discs:
    """Return the discs that hold the cells and their margin."""
    ra, dec = healpix.pix2ang(order, cells)
    return Discs(ra, dec, cell_radius_arcsec(order) + margin_arcsec + TOLERANCE_ARCSEC)


def smaller_discs(disc: Discs) -> Discs | None:
    """Return seven discs of half the radius that cover one disc; None where they would be too small to make sense.

    One lies in the middle, six around it at cos 30 deg of the radius: the thinnest cover of a disc by seven equal ones
    (Kershner 1939, Am. J. Math. 61, 665, doi:10.2307/2371320). On the sphere a little more than the half is needed.
    """
    radius = disc.radius_arcsec * _COVER
    if radius < _SMALLEST_DISC_ARCSEC:
        return None
    distance = math.radians(disc.radius_arcsec / 3600.0) * math.cos(math.radians(30.0))
    bearing = np.radians(np.arange(0.0, 360.0, 60.0))
    ra, dec = math.radians(float(disc.ra[0])), math.radians(float(disc.dec[0]))
    # Vectors, not angles: they know no pole.
    centre = np.array([math.cos(dec) * math.cos(ra), math.cos(dec) * math.sin(ra), math.sin(dec)])
    east = np.array([-math.sin(ra), math.cos(ra), 0.0])
    aside = np.outer(np.cos(bearing), east) + np.outer(np.sin(bearing), np.cross(centre, east))
    x, y, z = np.concatenate([centre[None], centre * math.cos(distance) + aside * math.sin(distance)]).T
    return Discs(
        np.remainder(np.degrees(np.arctan2(y, x)), 360.0),
        np.degrees(np.arctan2(z, np.hypot(x, y))),
        radius + TOLERANCE_ARCSEC,
    )
