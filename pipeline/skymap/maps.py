"""A probability map of the sky, and how it is made of intervals of cells."""

from __future__ import annotations

import hashlib
import math
import re
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline import healpix
from pipeline.errors import CatalogError
from pipeline.skymap.voxels import VolumeTable, tabulate

CELL_DEG2 = healpix.cell_area_deg2(healpix.MAX_ORDER)
DEG2_PER_SR = (180.0 / math.pi) ** 2
SKY_DEG2 = 12 * healpix.cell_area_deg2(0)
"""Area of the whole sky."""
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
    distance_mean_mpc, distance_std_mpc : float or None
        Mean and standard deviation of the distance wherever the event lies (DISTMEAN, DISTSTD), where the map says.

    Notes
    -----
    What is derived (searched areas, the table of volumes, the digest) is made at its first use and kept, and is not
    pickled.
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
    distance_mean_mpc: float | None = None
    distance_std_mpc: float | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Pickle what the map says, not what was derived from it."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @property
    def has_distance(self) -> bool:
        """Whether the map is three-dimensional."""
        return self.distance_mu_mpc is not None

    @property
    def area_deg2(self) -> NDArray[np.float64]:
        """Area of each interval, square degrees, shape (n,)."""
        return np.asarray((self.stop - self.start) * CELL_DEG2, dtype=np.float64)

    @cached_property
    def searched_area_deg2(self) -> NDArray[np.float64]:
        """Area of all places at least as dense as each interval, square degrees, shape (n,); the sky at density 0."""
        area = totals_at_least(self.density_per_deg2, self.area_deg2)
        area[self.density_per_deg2 == 0] = SKY_DEG2
        return area

    @cached_property
    def volume(self) -> VolumeTable:
        """The credible level in volume by density; only of a map with distance."""
        mu, sigma, norm = self.distance_mu_mpc, self.distance_sigma_mpc, self.distance_norm
        if mu is None or sigma is None or norm is None:
            raise CatalogError("sky map has no distance", source=self.event)
        return tabulate(self.density_per_deg2, self.density_per_deg2 * self.area_deg2, mu, sigma, norm)

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
    **moments: float | None,
) -> SkyMap:
    """Return the map of ascending, disjoint intervals of order-29 cells.

    Parameters
    ----------
    event, event_mjd, start, stop, density_per_deg2
        See :class:`SkyMap`.
    distances : dict of numpy.ndarray, optional
        ``distance_mu_mpc``, ``distance_sigma_mpc``, ``distance_norm``: all three or none.
    source : str
        Named in errors.
    **moments : float or None
        ``distance_mean_mpc``, ``distance_std_mpc``.

    Raises
    ------
    CatalogError
        Intervals overlap, a probability is negative or not a number, or all do not sum to 1 within 1 %.
    """
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
    rest: dict[str, Any] = {**values, **moments}
    return SkyMap(event, event_mjd, start, stop, density, level, **rest)


def credible_levels(density: NDArray[np.float64], mass: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the total mass of all pixels at least as dense as each, shape (n,); 1 where the density is 0."""
    level = np.minimum(totals_at_least(density, mass), 1.0)
    level[density == 0] = 1.0
    return level


def totals_at_least(density: NDArray[np.float64], amount: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the sum of an amount over all pixels at least as dense as each, shape (n,)."""
    by = np.argsort(-density, kind="stable")
    total = np.cumsum(amount[by])
    descending = density[by]
    # Pixels of one density share the sum at the end of their group.
    last = np.flatnonzero(np.append(descending[1:] != descending[:-1], True)[: len(by)])
    out = np.empty_like(total)
    out[by] = np.repeat(total[last], np.diff(last, prepend=-1))
    return out


def mark_changes(begins: NDArray[np.bool_], values: NDArray[np.float64]) -> None:
    """Set ``begins`` where a value differs from the one before it; NaN equals NaN."""
    bits = np.ascontiguousarray(values).view(np.int64)
    begins[1:] |= bits[1:] != bits[:-1]
