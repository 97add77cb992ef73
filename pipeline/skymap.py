"""Probability maps of the sky: multi-order and flat HEALPix, with or without distance.

A map is held as intervals of order-29 cells with one probability density each, sorted by cell; a flat map's
neighbouring pixels of one density are one interval, so that both forms of a map become the same thing. A place's
*credible level* is the total probability of all places at least as dense: places of equal density share the end of
their group, and density 0 has level 1. Formats: Singer et al. 2016, ApJL 829, L15,
doi:10.3847/2041-8205/829/1/L15, and the public alerts user guide of LIGO, Virgo and KAGRA (multi-order maps).
"""

from __future__ import annotations

import gzip
import hashlib
import math
import re
import zlib
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline import healpix
from pipeline.errors import CatalogError
from pipeline.night import utc_to_tai

_DEG2_PER_SR = (180.0 / math.pi) ** 2
_CELL_DEG2 = healpix.cell_area_deg2(healpix.MAX_ORDER)
_DISTANCE = {"DISTMU": "distance_mu_mpc", "DISTSIGMA": "distance_sigma_mpc", "DISTNORM": "distance_norm"}
_PROBABILITY = ("PROB", "PROBABILITY")
_MASS_TOLERANCE = 0.01
_UNIX_EPOCH_MJD = 40587.0


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
        return np.asarray((self.stop - self.start) * _CELL_DEG2, dtype=np.float64)

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


# ------------------------------------------------------------------------------------------------ reading a map
def parse_skymap(data: bytes, event: str | None = None, source: str = "sky map") -> SkyMap:
    """Read a HEALPix map from FITS bytes.

    Parameters
    ----------
    data : bytes
        FITS, gzip-compressed or not: multi-order (UNIQ, PROBDENSITY per steradian) or flat (PROB per pixel; nested or
        ring), each with DISTMU, DISTSIGMA, DISTNORM or without.
    event : str, optional
        Name of the event; default the header's OBJECT.
    source : str
        Named in errors.

    Raises
    ------
    CatalogError
        The bytes are no such map, its probability does not sum to 1 within 1 %, or the event has no name.
    """
    header, columns = _fits_table(data, source)
    name = event_name(event if event is not None else str(header.get("OBJECT") or ""))
    if not name:
        raise CatalogError("sky map names no event", source=source, mend="name it: EVENT=FILE")
    if str(header.get("COORDSYS") or "C").strip()[:1] not in ("C", "E") and "COORDSYS" in header:
        raise CatalogError(f"sky map is in coordinates {header['COORDSYS']}, not equatorial", source=source)
    try:
        start, stop, values = (_multi_order if "UNIQ" in columns else _flat)(header, columns)
    except (KeyError, ValueError, IndexError) as error:
        raise CatalogError(f"sky map is not understood: {error}", source=source) from error
    density = values.pop("density_per_deg2")
    return make_skymap(name, _event_mjd(header), start, stop, density, values, source=source)


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
    mass = float((density * ((stop - start) * _CELL_DEG2)).sum())
    if not abs(mass - 1.0) <= _MASS_TOLERANCE:
        raise CatalogError(f"probability of the sky map sums to {mass:.6g}, not to 1", source=source)
    begins = np.ones(len(start), dtype=bool)
    begins[1:] = start[1:] != stop[:-1]
    for item in values.values():
        _mark_changes(begins, item)
    first = np.flatnonzero(begins)
    last = np.concatenate([first[1:], [len(start)]]) - 1
    start, stop = start[first], stop[last]
    values = {name: item[first] for name, item in values.items()}
    density = values.pop("density_per_deg2")
    level = credible_levels(density, density * ((stop - start) * _CELL_DEG2))
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


def _mark_changes(begins: NDArray[np.bool_], values: NDArray[np.float64]) -> None:
    """Set ``begins`` where a value differs from the one before it; NaN equals NaN."""
    bits = np.ascontiguousarray(values).view(np.int64)
    begins[1:] |= bits[1:] != bits[:-1]


def _fits_table(data: bytes, source: str) -> tuple[Any, dict[str, NDArray]]:
    from astropy.io import fits

    try:
        plain = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
        with fits.HDUList.fromstring(plain, uint=True) as opened:  # in place: a flat map takes 400 MB
            table = next((item for item in opened if isinstance(item, fits.BinTableHDU)), None)
            if table is None:
                raise CatalogError("sky map has no table", source=source)
            return table.header, {name: np.asarray(table.data[name]) for name in table.columns.names}
    except (OSError, EOFError, zlib.error, ValueError, TypeError, KeyError, AttributeError) as error:
        # AttributeError is what astropy raises from a buffer in which it finds no header at all.
        raise CatalogError(f"sky map cannot be read as FITS: {error}", source=source) from error


def _multi_order(header: Any, columns: dict[str, NDArray]) -> tuple[NDArray, NDArray, dict[str, NDArray]]:
    orders, cells = healpix.from_uniq(columns["UNIQ"])
    shift = 2 * (healpix.MAX_ORDER - orders)
    start = cells << shift
    by = np.argsort(start, kind="stable")
    values = {name: _numbers(columns[theirs])[by] for theirs, name in _distances(columns).items()}
    values["density_per_deg2"] = _numbers(columns["PROBDENSITY"])[by] / _DEG2_PER_SR
    return start[by], ((cells + 1) << shift)[by], values


def _flat(header: Any, columns: dict[str, NDArray]) -> tuple[NDArray, NDArray, dict[str, NDArray]]:
    name = next((item for item in _PROBABILITY if item in columns), None)
    if name is None:
        raise KeyError(f"no column UNIQ or PROB among {', '.join(columns)}")
    n_pixels = columns[name].size
    order = math.isqrt(n_pixels // 12).bit_length() - 1
    if not n_pixels or 12 << (2 * order) != n_pixels:
        raise ValueError(f"{n_pixels} pixels are no HEALPix map")
    ordering = str(header.get("ORDERING", "RING")).strip().upper()
    if ordering not in ("NESTED", "NEST", "RING"):
        raise ValueError(f"ORDERING {ordering} is neither NESTED nor RING")
    place = healpix.ring_of(order, np.arange(n_pixels)) if ordering == "RING" else slice(None)
    # A flat map of 12 million pixels is mostly runs of equal ones: they are joined before anything else is made.
    wanted = {name: "density_per_deg2", **_distances(columns)}
    begins = np.zeros(n_pixels, dtype=bool)
    begins[0] = True
    for theirs in wanted:
        _mark_changes(begins, _numbers(columns[theirs])[place])
    first = np.flatnonzero(begins)
    values = {ours: _numbers(columns[theirs])[place][first] for theirs, ours in wanted.items()}
    values["density_per_deg2"] /= healpix.cell_area_deg2(order)
    shift = 2 * (healpix.MAX_ORDER - order)
    return first << shift, np.append(first[1:], n_pixels) << shift, values


def _distances(columns: dict[str, NDArray]) -> dict[str, str]:
    return _DISTANCE if set(_DISTANCE) <= set(columns) else {}


def _numbers(column: NDArray) -> NDArray[np.float64]:
    return np.asarray(column, dtype=np.float64).reshape(-1)  # rows may hold 1024 pixels each


def _event_mjd(header: Any) -> float | None:
    """Return the event's time, TAI, from DATE-OBS (UTC) or else MJD-OBS (UTC)."""
    try:
        moment = datetime.fromisoformat(str(header["DATE-OBS"]).strip()).replace(tzinfo=UTC)
        utc = moment.timestamp() / 86400.0 + _UNIX_EPOCH_MJD
    except (KeyError, ValueError):
        try:
            utc = float(header["MJD-OBS"])
        except (KeyError, ValueError, TypeError):
            return None
    tai = float(utc_to_tai(utc))
    return tai if math.isfinite(tai) else None


# ------------------------------------------------------------------------------------------------ asking a map
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
