"""Pairs of alerts and sources, in one order whatever the order they were found in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

_JIT: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy"}

_GAPS = np.array([1, 4, 10, 23, 57, 132, 301, 701, 1750, 4376, 10941, 27353, 68383, 170958, 427396], dtype=np.int64)
"""Ciura (2001, doi:10.1007/3-540-44669-9_12), continued by factors of 2.5."""


@dataclass(frozen=True, eq=False)
class Nearest:
    """The nearest source of each of ``n`` alerts.

    Attributes
    ----------
    row : numpy.ndarray of int64, shape (n,)
        Catalog row, -1 where no source lies within the radius.
    separation_arcsec : numpy.ndarray of float64, shape (n,)
        Separation, NaN where there is none.
    n_neighbours : numpy.ndarray of int32, shape (n,)
        Sources within the radius.
    """

    row: NDArray[np.int64]
    separation_arcsec: NDArray[np.float64]
    n_neighbours: NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Pairs:
    """Every (alert, source) pair within the radius, sorted by alert, then separation, then catalog row; shape (m,)."""

    alert: NDArray[np.int64]
    row: NDArray[np.int64]
    separation_arcsec: NDArray[np.float64]

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self.row)

    def nearest(self, alerts: int) -> Nearest:
        """Return the nearest source of each of ``alerts`` alerts: its first pair."""
        row = np.full(alerts, -1, dtype=np.int64)
        separation = np.full(alerts, np.nan)
        first = np.flatnonzero(np.diff(self.alert, prepend=-1))
        row[self.alert[first]] = self.row[first]
        separation[self.alert[first]] = self.separation_arcsec[first]
        return Nearest(row, separation, np.bincount(self.alert, minlength=alerts).astype(np.int32))


def sort_pairs(
    alerts: int, alert: NDArray[np.int64], row: NDArray[np.int64], separation_arcsec: NDArray[np.float64]
) -> Pairs:
    """Return pairs by alert, then separation, then catalog row.

    Parameters
    ----------
    alerts : int
        How many alerts there are.
    alert, row, separation_arcsec : numpy.ndarray, shape (m,)
        Pairs in any order; alerts are 0 to ``alerts - 1``, separations are not NaN.
    """
    out = Pairs(np.empty_like(alert), np.empty_like(row), np.empty_like(separation_arcsec))
    _sort(alerts, alert, row, separation_arcsec, out.alert, out.row, out.separation_arcsec)
    return out


@njit(**_JIT)
def _sort(
    alerts: int,
    alert: NDArray,
    row: NDArray,
    separation: NDArray,
    out_alert: NDArray,
    out_row: NDArray,
    out_separation: NDArray,
) -> None:
    """Count the pairs of each alert, put them into its place, then sort each place (shell sort: mostly one or two)."""
    ends = np.zeros(alerts + 1, np.int64)
    for k in range(alert.size):
        ends[alert[k] + 1] += 1
    for i in range(alerts):
        ends[i + 1] += ends[i]
    for k in range(alert.size):
        at = ends[alert[k]]
        out_alert[at] = alert[k]
        out_row[at] = row[k]
        out_separation[at] = separation[k]
        ends[alert[k]] = at + 1
    low = np.int64(0)
    for i in range(alerts):
        high = ends[i]
        for gap in _GAPS[::-1]:
            for k in range(low + gap, high):
                this_row = out_row[k]
                this_separation = out_separation[k]
                at = k
                while at - gap >= low and (
                    out_separation[at - gap] > this_separation
                    or (out_separation[at - gap] == this_separation and out_row[at - gap] > this_row)
                ):
                    out_row[at] = out_row[at - gap]
                    out_separation[at] = out_separation[at - gap]
                    at -= gap
                out_row[at] = this_row
                out_separation[at] = this_separation
        low = high
