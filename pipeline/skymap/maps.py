"""A probability map of the sky, and how it is made of intervals of cells."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pipeline import healpix
from pipeline.errors import CatalogError

CELL_DEG2 = healpix.cell_area_deg2(healpix.MAX_ORDER)
MASS_TOLERANCE = 0.01
"""By how much the probability of a whole map may differ from 1."""


@dataclass(frozen=True, eq=False)
class SkyMap:
    """The probability that an event lies where.

    Attributes
    ----------
    event : str
        Name of the event in columns: lower case, digits and underscores.
    event_mjd : float or None
        Time of the event, TAI.
    start, stop : numpy.ndarray of int64, shape (n,)
        Intervals of order-29 cells, ascending and disjoint.
    density_per_deg2 : numpy.ndarray of float64, shape (n,)
        Probability per square degree.
    credible_level : numpy.ndarray of float64, shape (n,)
        Probability of all places at least as dense.
    distance_mu_mpc, distance_sigma_mpc, distance_norm : numpy.ndarray of float64, shape (n,), or None
        DISTMU, DISTSIGMA (Mpc) and DISTNORM (Mpc^-2) of a map with distance: parameters of r^2 N(mu, sigma), no
        distances; NaN or infinite where there is none.
    """

    event: str
    event_mjd: float | None
    start: NDArray[np.int64]
    stop: NDArray[np.int64]
    density_per_deg2: NDArray[np.float64]
    credible_level: NDArray[np.float64]
    distance_mu_mpc: NDArray[np.float64] | None = None
    distance_sigma_mpc: NDArray[np.float64] | None = None
    distance_norm: NDArray[np.float64] | None = None

    @property
    def has_distance(self) -> bool:
        """Whether the map is three-dimensional."""
        return self.distance_mu_mpc is not None

    @property
    def area_deg2(self) -> NDArray[np.float64]:
        """Area of each interval, square degrees, shape (n,)."""
        return np.asarray((self.stop - self.start) * CELL_DEG2, dtype=np.float64)

    @cached_property
    def digest(self) -> str:
        """The sha256 of what the map says: event, time, cells, densities and distances."""
        digest = hashlib.sha256(f"{self.event} {self.event_mjd!r}".encode())
        arrays = (self.start, self.stop, self.density_per_deg2)
        distances = (self.distance_mu_mpc, self.distance_sigma_mpc, self.distance_norm)
        for array in (*arrays, *(item for item in distances if item is not None)):
            digest.update(np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<")).tobytes())
        return digest.hexdigest()


def event_name(name: str) -> str:
    """Return an event's name as it stands in column names: lower case, digits and underscores."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def make_skymap(
    event: str,
    event_mjd: float | None,
    start: NDArray[np.int64],
    stop: NDArray[np.int64],
    density_per_deg2: NDArray[np.float64],
    distances: dict[str, NDArray[np.float64]] | None = None,
    *,
    source: str = "sky map",
) -> SkyMap:
    """Return the map of ascending, disjoint intervals of order-29 cells; see :class:`SkyMap` for the parameters."""
    values = {"density_per_deg2": np.asarray(density_per_deg2, dtype=np.float64), **(distances or {})}
    density = values["density_per_deg2"]
    if not (np.isfinite(density).all() and (density >= 0).all()):
        raise CatalogError("sky map has a probability that is negative or not a number", source=source)
    if (start[1:] < stop[:-1]).any() or (stop <= start).any():
        raise CatalogError("pixels of the sky map overlap", source=source)
    mass = float((density * ((stop - start) * CELL_DEG2)).sum())
    if not abs(mass - 1.0) <= MASS_TOLERANCE:
        raise CatalogError(f"probability of the sky map sums to {mass:.6g}, not to 1", source=source)
    begins = np.ones(len(start), dtype=bool)
    begins[1:] = start[1:] != stop[:-1]
    for item in values.values():
        mark_changes(begins, item)
    first = np.flatnonzero(begins)
    last = np.concatenate([first[1:], [len(start)]]) - 1
    start, stop = start[first], stop[last]
    values = {name: item[first] for name, item in values.items()}
    density = values.pop("density_per_deg2")
    level = credible_levels(density, density * ((stop - start) * CELL_DEG2))
    return SkyMap(event, event_mjd, start, stop, density, level, **values)


def credible_levels(density: NDArray[np.float64], mass: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the total mass of all pixels at least as dense as each, shape (n,); 1 where the density is 0."""
    by = np.argsort(-density, kind="stable")
    total = np.cumsum(mass[by])
    descending = density[by]
    group_end = np.searchsorted(-descending, -descending, side="right") - 1
    level = np.empty_like(total)
    level[by] = np.minimum(total[group_end], 1.0)
    level[density == 0] = 1.0
    return level


def mark_changes(begins: NDArray[np.bool_], values: NDArray[np.float64]) -> None:
    """Set ``begins`` where a value differs from the one before it; NaN equals NaN."""
    bits = np.ascontiguousarray(values).view(np.int64)
    begins[1:] |= bits[1:] != bits[:-1]
