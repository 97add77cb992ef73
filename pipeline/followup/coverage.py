"""How much of a map the archive's exposures covered: a lower bound, by band and depth.

An exposure is known by its alerts alone: its footprint is the order-10 cells that they touch. Exposures without alerts,
and the parts of a footprint without any, are not known, so the true coverage is at least what is told here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline import healpix
from pipeline.archive import Archive
from pipeline.paths import parse_night
from pipeline.skymap import SkyMap, mass_in

CELL_ORDER = 10
"""Order of the cells of an exposure."""
_STEP_MAG = 0.5


@dataclass(frozen=True)
class Depth:
    """What exposures of one band, at least so deep, covered.

    Attributes
    ----------
    band : str or None
        The band; None is any.
    limit_mag : float or None
        Least 5 sigma limit (AB); None is any, unknown ones too.
    exposures : int
        Exposures of a detector with a cell where the map is not zero.
    area_deg2, probability : float
        Area of the cells on the map, and its probability within them.
    """

    band: str | None
    limit_mag: float | None
    exposures: int
    area_deg2: float
    probability: float


@dataclass(frozen=True)
class Coverage:
    """What the exposures of a range of nights covered of a map.

    Attributes
    ----------
    event : str
        Event of the map.
    since_event : bool
        Whether only exposures at or after the event count.
    first_mjd, last_mjd : float or None
        Of the exposures that count, TAI.
    depths : list of Depth
        Any band and depth first; then by band, from shallow to deep.
    ranges : numpy.ndarray of int64, shape (k, 2)
        Range set of all cells that count.
    """

    event: str
    since_event: bool
    first_mjd: float | None
    last_mjd: float | None
    depths: list[Depth]
    ranges: NDArray[np.int64]

    def as_dict(self) -> dict[str, Any]:
        """Return what is told of it as JSON values."""
        return {
            "event": self.event,
            "since_event": self.since_event,
            "first_mjd": self.first_mjd,
            "last_mjd": self.last_mjd,
            "is_lower_bound": True,
            "depths": [vars(item) for item in self.depths],
        }


@dataclass(frozen=True)
class Exposures:
    """Exposures of some nights: one entry for each (exposure, cell).

    Attributes
    ----------
    band : list of str
        Bands.
    mjd, limit_mag : numpy.ndarray, shape (n,)
        TAI; AB magnitude, NaN where not known.
    band_number : numpy.ndarray of int64, shape (n,)
        Place in ``band``.
    exposure, cell : numpy.ndarray of int64, shape (m,)
        Number of the exposure, and a cell of order :data:`CELL_ORDER` that it touches.
    """

    band: list[str]
    mjd: NDArray[np.float64]
    limit_mag: NDArray[np.float64]
    band_number: NDArray[np.int64]
    exposure: NDArray[np.int64]
    cell: NDArray[np.int64]


def coverage(
    archive: Archive,
    skymap: SkyMap,
    start: int | str,
    stop: int | str,
    *,
    window_day: tuple[float, float] | None = None,
    since_event: bool = False,
    survey: str | None = None,
) -> Coverage:
    """Return what the exposures of some nights covered of a map; see the module for why it is a lower bound.

    Parameters
    ----------
    archive : Archive
        The archive.
    skymap : SkyMap
        The map.
    start, stop : int or str
        First and last night, both included.
    window_day : tuple of float, optional
        Days before and after the event within which an exposure counts.
    since_event : bool
        Count only exposures at or after the event.
    survey : str, optional
        Needed if the archive holds several.
    """
    exposures = read_exposures(archive, start, stop, survey=survey)
    return coverage_of(exposures, skymap, window_day=window_day, since_event=since_event)


def read_exposures(archive: Archive, start: int | str, stop: int | str, *, survey: str | None = None) -> Exposures:
    """Read the exposures of a range of nights."""
    return exposures_of(archive.exposures(f"{parse_night(start)}:{parse_night(stop)}", survey=survey).to_arrow())


def exposures_of(table: pa.Table) -> Exposures:
    """Return the exposures of a table of :data:`pipeline.tables.EXPOSURES`."""
    encoded = table.column("band").combine_chunks().dictionary_encode()
    lists = table.column("cells").combine_chunks()
    lengths = np.diff(lists.offsets.to_numpy())
    return Exposures(
        band=encoded.dictionary.to_pylist(),
        mjd=table.column("mjd").to_numpy(),
        limit_mag=table.column("limit_mag").to_numpy(),
        band_number=encoded.indices.to_numpy().astype(np.int64),
        exposure=np.repeat(np.arange(table.num_rows, dtype=np.int64), lengths),
        cell=lists.flatten().to_numpy(),
    )


def coverage_of(
    exposures: Exposures,
    skymap: SkyMap,
    *,
    window_day: tuple[float, float] | None = None,
    since_event: bool = False,
) -> Coverage:
    """Return what some exposures covered of a map; parameters as of :func:`coverage`."""
    counts = np.ones(len(exposures.mjd), dtype=bool)
    if skymap.event_mjd is not None:
        before, after = (np.inf, np.inf) if window_day is None else window_day
        counts = (exposures.mjd >= skymap.event_mjd - before) & (exposures.mjd <= skymap.event_mjd + after)
        if since_event:
            counts &= exposures.mjd >= skymap.event_mjd
    on_map = np.stack([skymap.start, skymap.stop], axis=1)[skymap.density_per_deg2 > 0]
    cells = np.unique(exposures.cell)
    seen = _touches(healpix.merge_ranges(on_map), cells)[np.searchsorted(cells, exposures.cell)]
    seen &= counts[exposures.exposure]
    exposure, cell = exposures.exposure[seen], exposures.cell[seen]
    present = np.unique(exposure)
    depths = [_depth(skymap, None, None, exposure, cell)]
    for number, band in sorted(enumerate(exposures.band), key=lambda item: item[1]):
        chosen = exposures.band_number[exposure] == number
        if chosen.any():
            depths += _depths(skymap, band, exposures.limit_mag, exposure[chosen], cell[chosen])
    times = exposures.mjd[present]
    return Coverage(
        event=skymap.event,
        since_event=since_event and skymap.event_mjd is not None,
        first_mjd=float(times.min()) if len(times) else None,
        last_mjd=float(times.max()) if len(times) else None,
        depths=depths,
        ranges=healpix.ranges_of(CELL_ORDER, np.unique(cell)),
    )


def _touches(ranges: NDArray[np.int64], cells: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return whether each cell of order :data:`CELL_ORDER` shares sky with the range set, shape (n,)."""
    shift = 2 * (healpix.MAX_ORDER - CELL_ORDER)
    return np.searchsorted(ranges[:, 0], (cells + 1) << shift) > np.searchsorted(
        ranges[:, 1], cells << shift, side="right"
    )


def _depths(
    skymap: SkyMap, band: str, limit_mag: NDArray[np.float64], exposure: NDArray[np.int64], cell: NDArray[np.int64]
) -> list[Depth]:
    """Return one band's coverage: any depth, then at least each step of half a magnitude."""
    found = [_depth(skymap, band, None, exposure, cell)]
    step = np.floor(limit_mag[exposure] / _STEP_MAG)
    for value in np.unique(step[np.isfinite(step)]):
        deep = step >= value  # NaN is not
        found.append(_depth(skymap, band, float(value * _STEP_MAG), exposure[deep], cell[deep]))
    return found


def _depth(
    skymap: SkyMap, band: str | None, limit_mag: float | None, exposure: NDArray[np.int64], cell: NDArray[np.int64]
) -> Depth:
    ranges = healpix.ranges_of(CELL_ORDER, np.unique(cell))
    return Depth(
        band, limit_mag, len(np.unique(exposure)), healpix.ranges_area_deg2(ranges), float(mass_in(skymap, ranges))
    )


def any_depth(found: Coverage) -> Sequence[Depth]:
    """Return the coverage of every band at any depth, all bands together first."""
    return [item for item in found.depths if item.limit_mag is None]
