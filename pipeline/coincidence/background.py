"""Where and when unrelated new transients turn up: at the visits of the survey, at a rate measured from them.

The sky is cut into cells of one order, time into quarters of an hour. A *visit* is a cell and a quarter of an hour in
which the survey looked there; a new transient is first seen at a visit, nowhere else. The rate per visit and square
degree is a product of one factor for each of several labels (part of the sky, night, time since the last visit and
others), fitted to the archive's own candidates by iterative proportional fitting (Deming & Stephan 1940, Ann. Math.
Stat. 11, 427, doi:10.1214/aoms/1177731829), which gives the maximum of the Poisson likelihood; a gamma prior around 1
holds factors of few counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline import healpix
from pipeline.errors import InputError

Float = NDArray[np.float64]
Int = NDArray[np.int64]

BINS_PER_DAY = 96
"""Time bins a day: exposures of one cell within a quarter of an hour are one visit."""

CANDIDATE_RATE_ZTF = 31.0
"""New candidates per square degree and night where nothing was measured: all ZTF alerts that pass loose cuts, as the
fink-mm pipeline states it (141,994 a night over 4,600 deg2). An upper end: cleaned first detections are far fewer."""

PRIOR_COUNTS = 4.0
"""Weight of the prior that a factor is 1, in counts."""

GAP_EDGES_DAY = (0.25, 1.5, 2.5, 3.5, 5.5, 10.5, 30.5)
"""Limits of the classes of time since the last visit: same night, one night, two, three, up to five, ten, a month."""

REGION_ORDER = 3
"""Order of the parts of the sky that have a factor each: 53 square degrees, about a field of ZTF."""

DEPTH_STEP_MAG = 0.25
"""Width of the classes of depth."""

SHARE_CLASSES = 6
"""Number of classes of the part of a cell that a field covers."""

_ROUNDING_DAY = 1.0 / 1440.0
_BIN_BITS = 24
_SWEEPS = 30
_TOLERANCE = 1e-6


@dataclass(frozen=True, eq=False)
class Visits:
    """The visits of a survey, ascending by cell and time.

    Attributes
    ----------
    order : int
        HEALPix order of the cells, at most 12.
    key : numpy.ndarray of int64, shape (m,)
        Cell and time bin in one number, ascending and unique.
    mjd : numpy.ndarray of float64, shape (m,)
        Time of the last exposure of the visit, TAI.
    rate_per_deg2 : numpy.ndarray of float64, shape (m,)
        Expected number of unrelated new candidates per square degree that are first seen at the visit.
    """

    order: int
    key: Int
    mjd: Float
    rate_per_deg2: Float

    @property
    def cell(self) -> Int:
        """Nested cell of each visit, shape (m,)."""
        return self.key >> _BIN_BITS

    def rows(self, cell: ArrayLike, mjd: ArrayLike) -> Int:
        """Return the visit at which something at these cells and times was seen, shape (n,); -1 where none.

        A time within a minute of a visit's bin counts as in it: alerts and exposures round their times differently.
        """
        cells, times = np.asarray(cell, dtype=np.int64), np.asarray(mjd, dtype=np.float64)
        out = np.full(np.broadcast(cells, times).shape, -1, dtype=np.int64)
        for shift in (_ROUNDING_DAY, -_ROUNDING_DAY, 0.0) if len(self.key) else ():
            wanted = _keys(cells, visit_bins(times + shift))
            row = np.minimum(np.searchsorted(self.key, wanted), len(self.key) - 1)
            out = np.where((wanted >= 0) & (self.key[row] == wanted), row, out)
        return out

    def window(self, cells: Int, start_mjd: float, stop_mjd: float) -> tuple[Int, Int]:
        """Return rows and offsets (k+1,) of the visits of k cells with ``start_mjd < mjd <= stop_mjd``."""
        bins = visit_bins(np.array([start_mjd, stop_mjd]))
        low = np.searchsorted(self.key, _keys(cells, bins[0]))
        high = np.searchsorted(self.key, _keys(cells, bins[1]), side="right")
        rows, owner = spread(low, high)
        kept = (self.mjd[rows] > start_mjd) & (self.mjd[rows] <= stop_mjd)
        return rows[kept], np.searchsorted(owner[kept], np.arange(len(cells) + 1))


def visit_bins(mjd: ArrayLike) -> Int:
    """Return the time bin of each time, shape (n,); -1 for NaN and for times that are none."""
    bins = np.floor(np.asarray(mjd, dtype=np.float64) * BINS_PER_DAY)
    return np.where((bins >= 0) & (bins < 1 << _BIN_BITS), bins, -1.0).astype(np.int64)


def _keys(cell: Int, time_bin: ArrayLike) -> Int:
    bins = np.asarray(time_bin, dtype=np.int64)
    return np.where((cell < 0) | (bins < 0), -1, (cell << _BIN_BITS) | bins)


def spread(low: Int, high: Int) -> tuple[Int, Int]:
    """Return all numbers of the intervals ``[low, high)`` in order, and the interval that each belongs to."""
    length = np.maximum(high - low, 0)
    owner = np.repeat(np.arange(len(low)), length)
    begins = np.cumsum(length) - length
    return np.arange(len(owner)) - begins[owner] + low[owner], owner


def make_visits(order: int, cell: ArrayLike, mjd: ArrayLike) -> tuple[Visits, Int]:
    """Return the visits that exposures make, with a rate of 1, and the visit of every exposure.

    Parameters
    ----------
    order : int
        Order of the cells.
    cell : array_like of int64, shape (n,)
        Nested cell of each exposure and cell it touched; -1 is skipped.
    mjd : array_like of float64, shape (n,)
        Time of the exposure, TAI; NaN is skipped.

    Returns
    -------
    visits : Visits
        With ``rate_per_deg2`` 1; see :func:`fit_rates`.
    row : numpy.ndarray of int64, shape (n,)
        Visit of each exposure, -1 where it was skipped.

    Raises
    ------
    InputError
        The order is none that a visit can have.
    """
    if not 0 <= order <= 12:
        raise InputError(f"order {order} of the background's cells is not from 0 to 12")
    cells, times = np.asarray(cell, dtype=np.int64), np.asarray(mjd, dtype=np.float64)
    keys = _keys(cells, visit_bins(times))
    unique, inverse = np.unique(keys, return_inverse=True)
    last = np.full(len(unique), -np.inf)
    np.maximum.at(last, inverse, np.where(np.isnan(times), -np.inf, times))
    skipped = int(len(unique) > 0 and unique[0] < 0)
    row = inverse.astype(np.int64) - skipped
    return Visits(order, unique[skipped:], last[skipped:], np.ones(len(unique) - skipped)), row


def uniform_visits(order: int, cells: ArrayLike, start_mjd: float, stop_mjd: float, rate_per_deg2_day: float) -> Visits:
    """Return the visits of a survey that looks at all these cells in every time bin, at one rate.

    What is assumed where no coverage is known: every quarter of an hour from ``start_mjd`` to ``stop_mjd``.
    """
    bins = np.arange(int(visit_bins(start_mjd)), int(visit_bins(stop_mjd)) + 1)
    number = np.asarray(cells, dtype=np.int64)
    cell, mjd = np.repeat(number, len(bins)), np.tile((bins + 0.5) / BINS_PER_DAY, len(number))
    visits, _ = make_visits(order, cell, mjd)
    return Visits(order, visits.key, visits.mjd, np.full(len(visits.key), rate_per_deg2_day / BINS_PER_DAY))


def visit_labels(visits: Visits, row: ArrayLike, field: ArrayLike, share: ArrayLike, limit_mag: ArrayLike) -> list[Int]:
    """Return the labels that rates are fitted by: part of the sky, night, time since the last visit, share, depth.

    A field that covers a cell only in part, or one that comes minutes after its neighbour, must not count as a second
    look at the whole cell: time and share are those of the field that covers most of the cell.

    Parameters
    ----------
    visits : Visits
        All visits.
    row : array_like of int64, shape (n,)
        Visit of each exposure and cell it touched, of :func:`make_visits`; -1 is skipped.
    field : array_like of int64, shape (n,)
        Field of the exposure; the same number for all where the survey has none.
    share : array_like of float64, shape (n,)
        Part of the cell that the field covers, 0 to 1.
    limit_mag : array_like of float64, shape (n,)
        Depth of the exposure; NaN where not known.

    Returns
    -------
    list of numpy.ndarray of int64, shape (m,)
        For :func:`fit_rates`.
    """
    rows, limit = np.asarray(row, dtype=np.int64), np.asarray(limit_mag, dtype=np.float64)
    fields, number = np.unique(np.asarray(field, dtype=np.int64), return_inverse=True)
    kept = rows >= 0
    pair, of_pair = np.unique(rows[kept] * len(fields) + number[kept], return_inverse=True)
    most = np.zeros(len(pair))
    np.maximum.at(most, of_pair, np.asarray(share, dtype=np.float64)[kept])
    pair_row, pair_field = pair // max(len(fields), 1), pair % max(len(fields), 1)
    gap = _gap_classes(visits, pair_row, pair_field)
    by = np.lexsort((most, pair_row))  # the last of each visit is the field that covers most
    last = by[np.searchsorted(pair_row[by], np.arange(len(visits.key)), side="right") - 1]
    depth = np.full(len(visits.key), -1.0)
    known = kept & np.isfinite(limit)
    np.maximum.at(depth, rows[known], limit[known])
    return [
        visits.cell >> max(2 * (visits.order - REGION_ORDER), 0),
        np.floor(visits.mjd).astype(np.int64),
        gap[last],
        np.ceil(most[last] * SHARE_CLASSES).astype(np.int64),
        np.floor(depth / DEPTH_STEP_MAG).astype(np.int64),
    ]


def _gap_classes(visits: Visits, row: Int, field: Int) -> Int:
    """Return the class of the time since the same field last visited the same cell; -1 for its first visit."""
    cell = visits.cell[row]
    by = np.lexsort((row, field, cell))
    gap = np.diff(visits.mjd[row[by]], prepend=np.nan)
    is_first = np.ones(len(by), dtype=bool)
    is_first[1:] = (cell[by][1:] != cell[by][:-1]) | (field[by][1:] != field[by][:-1])
    out = np.empty(len(by), dtype=np.int64)
    out[by] = np.where(is_first, -1, np.searchsorted(GAP_EDGES_DAY, gap))
    return out


def fit_rates(
    visits: Visits, candidate_row: ArrayLike, labels: Sequence[ArrayLike], *, prior_counts: float = PRIOR_COUNTS
) -> Visits:
    """Return the visits with the rate of unrelated new candidates that fits the archive's own.

    Parameters
    ----------
    visits : Visits
        All visits, also those without candidates.
    candidate_row : array_like of int64, shape (k,)
        Visit at which each candidate was first seen; -1 is skipped.
    labels : sequence of array_like of int64, shape (m,)
        Labels of every visit; the rate is the overall rate times one factor for each.
    prior_counts : float
        Weight of the prior that a factor is 1.

    Returns
    -------
    Visits
        The same visits; ``rate_per_deg2`` sums to the number of candidates where the prior leaves it.

    Raises
    ------
    InputError
        There are no visits, or no candidate at any: no rate can be measured.
    """
    rows = np.asarray(candidate_row, dtype=np.int64)
    rows = rows[rows >= 0]
    if not len(visits.key) or not len(rows):
        raise InputError(
            f"no rate can be measured from {len(visits.key)} visits and {len(rows)} candidates", mend="state a rate"
        )
    counts = np.bincount(rows, minlength=len(visits.key)).astype(np.float64)
    area = healpix.cell_area_deg2(visits.order)
    mean = np.full(len(counts), counts.mean())
    classes = [np.unique(np.asarray(label), return_inverse=True)[1] for label in labels]
    observed = [np.bincount(item, weights=counts) for item in classes]
    factors = [np.ones(len(item)) for item in observed]
    for _ in range(_SWEEPS):
        change = 0.0
        for item, seen, factor in zip(classes, observed, factors, strict=True):
            bare = np.bincount(item, weights=mean) / factor
            better = (seen + prior_counts) / (bare + prior_counts)
            ratio = better / factor
            mean *= ratio[item]
            factor *= ratio
            change = max(change, float(np.abs(ratio - 1.0).max()))
        if change < _TOLERANCE:
            break
    mean *= counts.sum() / mean.sum()
    return Visits(visits.order, visits.key, visits.mjd, mean / area)
