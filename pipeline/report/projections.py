"""Two maps of the sky for figures: the whole of it, or the part around a place. East is to the left in both."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_HALF_WIDTH, _HALF_HEIGHT = 2.0 * math.sqrt(2.0), math.sqrt(2.0)


class Projection(Protocol):
    """Positions in degrees (ICRS) to coordinates on paper and back; ``half`` is half its width and height."""

    @property
    def half(self) -> tuple[float, float]:
        """Half of width and height on paper."""

    def forward(self, ra: Floats, dec: Floats) -> tuple[Floats, Floats]:
        """Return x and y, shape (n,) each; NaN where the map does not show a position."""

    def inverse(self, x: Floats, y: Floats) -> tuple[Floats, Floats]:
        """Return right ascension and declination; NaN off the map."""


@dataclass(frozen=True)
class Mollweide:
    """The whole sky, equal areas, right ascension 0 in the middle.

    Snyder (1987), Map projections: a working manual, USGS Professional Paper 1395, doi:10.3133/pp1395, p. 251.
    """

    @property
    def half(self) -> tuple[float, float]:
        """Half of width and height on paper."""
        return _HALF_WIDTH, _HALF_HEIGHT

    def forward(self, ra: Floats, dec: Floats) -> tuple[Floats, Floats]:
        """Return x and y; x grows to the left in right ascension."""
        lon = np.radians((np.asarray(ra, dtype=np.float64) + 180.0) % 360.0 - 180.0)
        lat = np.radians(np.asarray(dec, dtype=np.float64))
        theta = 2.0 * np.arcsin(np.clip(2.0 * lat / math.pi, -1, 1))  # a start that is exact at equator and poles
        wanted = math.pi * np.sin(lat)
        for _ in range(60):
            slope = 1.0 + np.cos(theta)
            step = np.where(slope > 1e-12, (theta + np.sin(theta) - wanted) / np.maximum(slope, 1e-12), 0.0)
            theta = np.clip(theta - step, -math.pi, math.pi)
            if not np.any(np.abs(step) > 1e-10):
                break
        return -_HALF_WIDTH / math.pi * lon * np.cos(theta / 2), _HALF_HEIGHT * np.sin(theta / 2)

    def inverse(self, x: Floats, y: Floats) -> tuple[Floats, Floats]:
        """Return right ascension and declination; NaN outside the ellipse."""
        with np.errstate(invalid="ignore", divide="ignore"):
            theta = np.arcsin(y / _HALF_HEIGHT)
            lon = -math.pi * x / (_HALF_WIDTH * np.cos(theta))
            lat = np.degrees(np.arcsin((2 * theta + np.sin(2 * theta)) / math.pi))
        inside = (x / _HALF_WIDTH) ** 2 + (y / _HALF_HEIGHT) ** 2 < 1
        return np.where(inside, np.degrees(lon) % 360.0, np.nan), np.where(inside, lat, np.nan)


@dataclass(frozen=True)
class Gnomonic:
    """The part of the sky around a place, degrees on paper; great circles are straight. Snyder (1987), p. 164.

    Parameters
    ----------
    ra, dec, radius : float
        Centre and half of the width, degrees; below 60.
    """

    ra: float
    dec: float
    radius: float

    @property
    def half(self) -> tuple[float, float]:
        """Half of width and height on paper."""
        reach = math.degrees(math.tan(math.radians(self.radius)))
        return reach, reach

    def forward(self, ra: Floats, dec: Floats) -> tuple[Floats, Floats]:
        """Return x (to the left in right ascension) and y; NaN on the other half of the sky."""
        lon = np.radians(np.asarray(ra, dtype=np.float64) - self.ra)
        lat, lat0 = np.radians(np.asarray(dec, dtype=np.float64)), math.radians(self.dec)
        depth = math.sin(lat0) * np.sin(lat) + math.cos(lat0) * np.cos(lat) * np.cos(lon)
        depth = np.where(depth > 1e-6, depth, np.nan)
        x = -np.cos(lat) * np.sin(lon) / depth
        y = (math.cos(lat0) * np.sin(lat) - math.sin(lat0) * np.cos(lat) * np.cos(lon)) / depth
        return np.degrees(x), np.degrees(y)

    def inverse(self, x: Floats, y: Floats) -> tuple[Floats, Floats]:
        """Return right ascension and declination."""
        east, north, lat0 = -np.radians(x), np.radians(y), math.radians(self.dec)
        depth = 1.0 / np.sqrt(1.0 + east**2 + north**2)
        height = math.sin(lat0) + north * math.cos(lat0)
        lon = np.arctan2(east, math.cos(lat0) - north * math.sin(lat0))
        return (self.ra + np.degrees(lon)) % 360.0, np.degrees(np.arcsin(np.clip(height * depth, -1, 1)))
