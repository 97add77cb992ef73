"""What is read of the archive: parts that a contour touches, the cells of their alerts, rows that are left."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline import healpix, lightcurve
from pipeline.archive.pruning import LEDGER_ORDER, Part
from pipeline.archive.rows import file_of, read_rows
from pipeline.errors import PartError
from pipeline.followup.columns import Forced, Pairs, join_pairs
from pipeline.skymap import SkyMap, levels, region, sweep
from pipeline.stages.skymap import FORCED_SIGMA

N_CELLS = 12 << (2 * LEDGER_ORDER)
_FORCED = ("light_curve.mjd", "light_curve.flux_njy", "light_curve.flux_err_njy", "light_curve.is_forced")


@dataclass(frozen=True)
class Contour:
    """The region of one map that is searched, and when.

    Attributes
    ----------
    skymap : SkyMap
        The map.
    ranges : numpy.ndarray of int64, shape (k, 2)
        Range set of the smallest region that holds the credible level, its tie group whole.
    mjd : tuple of float
        First and last time of an alert, TAI, both included.
    """

    skymap: SkyMap
    ranges: NDArray[np.int64]
    mjd: tuple[float, float]


def contour(skymap: SkyMap, credible_level: float, window_day: tuple[float, float] | None) -> Contour:
    """Return the contour of a map; a window (days before and after) needs a map that tells its event's time."""
    mjd = (-np.inf, np.inf)
    if window_day is not None and skymap.event_mjd is not None:
        mjd = (skymap.event_mjd - window_day[0], skymap.event_mjd + window_day[1])
    return Contour(skymap, region(skymap, credible_level), mjd)


class Touch:
    """Which contours a part can hold alerts of, by the cells and times that its ledger lists."""

    def __init__(self, contours: Sequence[Contour]) -> None:
        self._cells = np.zeros((len(contours), N_CELLS), dtype=bool)
        for number, item in enumerate(contours):
            self._cells[number, healpix.cells_of_ranges(item.ranges, LEDGER_ORDER)] = True
        self._first = np.array([item.mjd[0] for item in contours])
        self._last = np.array([item.mjd[1] for item in contours])

    def __call__(self, part: Part) -> NDArray[np.int64]:
        """Return the numbers of the contours, shape (j,)."""
        if part.rows == 0:
            return np.zeros(0, dtype=np.int64)
        cells = slice(None) if part.cells is None else list(part.cells)
        touched = np.asarray(self._cells[:, cells].any(axis=1))
        if part.mjd_min is not None and part.mjd_max is not None:
            touched &= (part.mjd_max >= self._first) & (part.mjd_min <= self._last)
        return np.flatnonzero(touched)


def pairs_of(part: Part, contours: Sequence[Contour], numbers: NDArray[np.int64]) -> Pairs:
    """Return the alerts of a part within some of the contours; ``row`` is the row of the part.

    Only the cells are read, and the times where a contour has a window; the cells are sorted once for all contours.
    """
    is_timed = any(np.isfinite(contours[number].mjd).any() for number in numbers)
    with opened(part, "science") as file:
        table = file.read(columns=["healpix_29", *(["mjd"] if is_timed else [])], use_threads=False)
    cells = table.column("healpix_29").to_numpy()
    mjd = table.column("mjd").to_numpy() if is_timed else None
    order = np.argsort(cells, kind="stable")
    ordered = cells[order]
    found = []
    for number in numbers.tolist():
        item = contours[number]
        rows = np.sort(order[_inside(item.ranges, ordered)])
        if mjd is not None:
            rows = rows[(mjd[rows] >= item.mjd[0]) & (mjd[rows] <= item.mjd[1])]
        if len(rows):
            level, density = levels(item.skymap, cells[rows])
            found.append(Pairs(np.full(len(rows), number, dtype=np.int64), rows, level, density))
    return join_pairs(found)


def _inside(ranges: NDArray[np.int64], ordered: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the places of ascending cells that lie in a range set."""
    bounds = sweep.slices(ranges, ordered)
    length = bounds[:, 1] - bounds[:, 0]
    skipped = np.cumsum(length) - length
    return np.arange(length.sum()) + np.repeat(bounds[:, 0] - skipped, length)


def science_rows(part: Part, rows: NDArray[np.int64], schema: pa.Schema) -> pa.Table:
    """Return rows of a part with the schema of the release: a column that the part does not have yet is null."""
    with opened(part, "science") as file:
        present = set(file.schema_arrow.names)
    table = read_rows(file_of(part, "science"), rows, [name for name in schema.names if name in present])
    columns = [
        table.column(field.name).cast(field.type) if field.name in present else pa.nulls(len(rows), field.type)
        for field in schema
    ]
    return pa.table(columns, schema=pa.schema([field.with_nullable(True) for field in schema]))


def forced_of(part: Part, rows: NDArray[np.int64], alert_id: pa.ChunkedArray) -> Forced:
    """Return when forced photometry first measured anything, and something significant, in some rows' light curves.

    What counts is as of :func:`pipeline.stages.skymap.has_prior_forced`, for any number of events at once.

    Raises
    ------
    PartError
        The alerts dataset does not hold the same alerts.
    """
    table = read_rows(file_of(part, "alerts"), rows, ["alert_id", *_FORCED])
    if not table.column("alert_id").equals(alert_id):
        raise PartError("alerts and science do not hold the same alerts", part=part.name, mend="run `alertmill verify`")
    curves = table.column("light_curve").combine_chunks()
    ends = lightcurve.offsets(curves)
    mjd, flux, error = (
        lightcurve.floats(lightcurve.elements(curves, name)) for name in ("mjd", "flux_njy", "flux_err_njy")
    )
    with np.errstate(invalid="ignore"):
        is_measured = lightcurve.booleans(lightcurve.elements(curves, "is_forced")) & np.isfinite(flux) & (error > 0)
        is_significant = is_measured & (np.abs(flux) >= FORCED_SIGMA * error)
    first = [lightcurve.minimum(ends, np.where(counts, mjd, np.nan)) for counts in (is_measured, is_significant)]
    return Forced(*(np.where(np.isnan(item), np.inf, item) for item in first))


@contextmanager
def opened(part: Part, dataset: str) -> Iterator[pq.ParquetFile]:
    """Open one file of a part; a file that cannot be read is told with what to do."""
    path = file_of(part, dataset)
    try:
        with pq.ParquetFile(path) as file:
            yield file
    except (OSError, pa.ArrowException) as error:
        raise PartError(
            f"a file that the ledger lists cannot be read: {error}",
            part=part.name,
            mend="run the search again if the night was just rerun, else run `alertmill verify`",
        ) from error
