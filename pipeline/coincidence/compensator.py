"""How many unrelated transients rank at least as high: summed over every place of a map and every visit of the survey.

An *element* is a piece of the map's region (one density, one cell of the survey) at one visit. It expects
``area x rate`` unrelated candidates and holds the share ``area x density x g`` of the event's counterpart, ``g`` being
the probability that the counterpart is first seen at that visit. Their ratio is the rank: the likelihood ratio of a
common and an unrelated origin, which for a point on a map is the Bayes factor of Ashton et al. (2018,
doi:10.3847/1538-4357/aabfd2); cutting on it keeps most counterparts for the fewest unrelated candidates
(Neyman & Pearson 1933, doi:10.1098/rsta.1933.0009).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline import healpix
from pipeline.coincidence.background import Visits, spread

Float = NDArray[np.float64]
Int = NDArray[np.int64]


@dataclass(frozen=True)
class Counterpart:
    """What is assumed of the counterparts of one kind of event.

    Attributes
    ----------
    window_day : float
        First detections later than this after the event are not candidates.
    half_life_day : float
        Time in which the probability to be seen at a visit falls by half.
    onset_day : float
        It comes up at any time within so many days of the event, all equally likely; 0: at once.
    efficiency : float
        Probability that a visit right after the event sees it once it is up.
    """

    window_day: float
    half_life_day: float
    onset_day: float = 0.0
    efficiency: float = 0.8


@dataclass(frozen=True, eq=False)
class Compensator:
    """Expected unrelated candidates of one event, by rank.

    Attributes
    ----------
    rank : numpy.ndarray of float64, shape (m,)
        Rank of every element: counterparts per unrelated candidate.
    expected : numpy.ndarray of float64, shape (m,)
        Expected number of unrelated candidates in it.
    visit_odds : numpy.ndarray of float64, shape (v,)
        ``g`` over rate of the visits in the window; a candidate's rank is the map's density times this.
    visit_row : numpy.ndarray of int64, shape (v,)
        Rows of those visits, ascending.
    """

    rank: Float
    expected: Float
    visit_odds: Float
    visit_row: Int

    @cached_property
    def _by_rank(self) -> tuple[Float, Float, Float]:
        """Ranks ascending; expected candidates and counterpart's share at this rank and above."""
        by = np.argsort(self.rank, kind="stable")
        rank, expected = self.rank[by], self.expected[by]
        total = np.cumsum(expected[::-1])[::-1]
        share = np.cumsum((rank * expected)[::-1])[::-1]
        return rank, np.append(total, 0.0), np.append(share, 0.0)

    @cached_property
    def total(self) -> float:
        """Expected number of unrelated candidates in the whole region and window."""
        return float(self.expected.sum())

    @cached_property
    def seen(self) -> float:
        """Probability that the counterpart lies in the region and is first seen in the window, by the model."""
        return float((self.rank * self.expected).sum())

    def rank_of(self, density_per_deg2: ArrayLike, visit_row: ArrayLike) -> Float:
        """Return the rank of candidates, shape (n,), from the map's density at each and the visit that first saw it.

        NaN where the visit is -1 or not in the window.
        """
        wanted = np.asarray(visit_row, dtype=np.int64)
        if not len(self.visit_row):
            return np.full(wanted.shape, np.nan)
        at = np.minimum(np.searchsorted(self.visit_row, wanted), len(self.visit_row) - 1)
        is_here = self.visit_row[at] == wanted
        return np.where(is_here, np.asarray(density_per_deg2) * self.visit_odds[at], np.nan)

    def expected_at(self, rank: ArrayLike) -> Float:
        """Return the expected number of unrelated candidates that rank at least as high, shape (n,); NaN for NaN."""
        wanted = np.asarray(rank, dtype=np.float64)
        ranks, total, _ = self._by_rank
        return np.where(np.isnan(wanted), np.nan, total[np.searchsorted(ranks, wanted, side="left")])

    def expected_marked(self, rank: ArrayLike, background_marks: ArrayLike) -> Float:
        """Return the same for ranks that were multiplied by a mark of the candidate.

        A mark is a further likelihood ratio (of a host's distance, of a class), drawn for unrelated candidates from
        ``background_marks`` independently of place and time: that is its null, and it is to be checked.

        Parameters
        ----------
        rank : array_like of float64, shape (n,)
            Rank of each candidate, its mark multiplied in.
        background_marks : array_like of float64, shape (k,)
            Marks of unrelated candidates, positive.

        Returns
        -------
        numpy.ndarray of float64, shape (n,)
            Expected number; NaN for NaN.
        """
        marks = np.sort(np.asarray(background_marks, dtype=np.float64))
        out = np.full(np.shape(rank), np.nan)
        for i, wanted in enumerate(np.asarray(rank, dtype=np.float64)):
            if not np.isnan(wanted):
                below = np.searchsorted(marks, wanted / self.rank, side="left")
                out[i] = (self.expected * (1.0 - below / len(marks))).sum()
        return out

    def expected_for_recovery(self, recovery: float) -> float:
        """Return the expected number at the rank above which this share of the seen counterparts lies."""
        _, total, share = self._by_rank
        if len(total) == 1:
            return 0.0
        # Shares descend; the last element that is still needed is the last whose own sum reaches the wanted share.
        row = np.searchsorted(-share, -recovery * share[0], side="right") - 1
        return float(total[max(row, 0)])


def first_seen(visits: Visits, rows: Int, ends: Int, event_mjd: float, counterpart: Counterpart) -> Float:
    """Return the probability that the counterpart is first seen at each visit, shape (v,).

    Parameters
    ----------
    visits : Visits
        All visits.
    rows, ends : numpy.ndarray of int64, shapes (v,), (k+1,)
        Those of k cells in the window, of :meth:`Visits.window`.
    event_mjd : float
        Time of the event, TAI.
    counterpart : Counterpart
        It comes up at a random time after the event; a visit sees what is up and was not seen before.
    """
    delay = visits.mjd[rows] - event_mjd
    sees = counterpart.efficiency * np.exp2(-delay / counterpart.half_life_day)
    down = np.maximum(1.0 - delay / counterpart.onset_day, 0.0) if counterpart.onset_day > 0 else np.zeros(len(rows))
    begin, length = ends[:-1], np.diff(ends)
    unseen, still_down = np.zeros(len(length)), np.ones(len(length))
    out = np.empty(len(rows))
    for turn in range(int(length.max(initial=0))):  # the first visit of every cell, then the second of those with two
        cell = np.flatnonzero(length > turn)
        at = begin[cell] + turn
        up = unseen[cell] + still_down[cell] - down[at]
        out[at] = up * sees[at]
        unseen[cell], still_down[cell] = up - out[at], down[at]
    return out


def pieces_of(start: Int, stop: Int, order: int) -> tuple[Int, Int, Float]:
    """Cut intervals of order-29 cells at the borders of larger cells.

    Parameters
    ----------
    start, stop : numpy.ndarray of int64, shape (n,)
        Half-open intervals of order-29 cells.
    order : int
        Order of the cells at whose borders they are cut.

    Returns
    -------
    interval, cell : numpy.ndarray of int64, shape (m,)
        Interval each piece comes from, and the cell it lies in.
    area_deg2 : numpy.ndarray of float64, shape (m,)
        Area of each piece.
    """
    shift = 2 * (healpix.MAX_ORDER - order)
    cell, interval = spread(start >> shift, ((stop - 1) >> shift) + 1)
    begin = np.maximum(start[interval], cell << shift)
    end = np.minimum(stop[interval], (cell + 1) << shift)
    return interval, cell, (end - begin) * healpix.cell_area_deg2(healpix.MAX_ORDER)


def compensate(
    visits: Visits,
    cell: Int,
    area_deg2: Float,
    density_per_deg2: Float,
    event_mjd: float,
    counterpart: Counterpart,
) -> Compensator:
    """Return the expected unrelated candidates of an event by rank.

    Parameters
    ----------
    visits : Visits
        The survey, with rates.
    cell : numpy.ndarray of int64, shape (n,)
        Cell of the survey, of ``visits.order``, that each piece of the map's region lies in.
    area_deg2, density_per_deg2 : numpy.ndarray of float64, shape (n,)
        Area of each piece, and the map's probability density there.
    event_mjd : float
        Time of the event, TAI.
    counterpart : Counterpart
        What the event's counterparts are like.
    """
    cells, of_cell = np.unique(cell, return_inverse=True)
    rows, ends = visits.window(cells, event_mjd, event_mjd + counterpart.window_day)
    odds = first_seen(visits, rows, ends, event_mjd, counterpart) / visits.rate_per_deg2[rows]
    at, piece = spread(ends[of_cell], ends[of_cell + 1])
    rank = density_per_deg2[piece] * odds[at]
    expected = area_deg2[piece] * visits.rate_per_deg2[rows[at]]
    return Compensator(rank, expected, odds, rows)
