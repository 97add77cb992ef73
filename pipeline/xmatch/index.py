"""A catalog's positions sorted by order-29 cell, with the row at which each coarser cell starts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.healpix import MAX_ORDER, ang2pix

_ROWS_PER_CELL = 16
_DEEPEST_OFFSETS = 12  # 1.6 GB of offsets; a billion rows are then five a cell


@dataclass(frozen=True, eq=False)
class MatchIndex:
    """A catalog's positions, ready to be matched; the arrays may be memory-mapped.

    Attributes
    ----------
    healpix_29, ra, dec : numpy.ndarray, shape (n,)
        Order-29 cells ascending (int64) and ICRS degrees (float64), all rows with a position.
    offsets : numpy.ndarray of int64, shape (12 * 4**order + 1,)
        Row at which each cell of ``order`` starts.
    order : int
        Order of the offsets.
    """

    healpix_29: NDArray[np.int64]
    ra: NDArray[np.float64]
    dec: NDArray[np.float64]
    offsets: NDArray[np.int64]
    order: int

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.healpix_29)


def build_index(ra: ArrayLike, dec: ArrayLike) -> tuple[MatchIndex, NDArray[np.int64]]:
    """Sort positions into a match index.

    Parameters
    ----------
    ra, dec : array_like, shape (n,)
        ICRS degrees in any order. Rows without a position (not finite, ``|dec| > 90``) are left out.

    Returns
    -------
    MatchIndex
        Rows by cell; rows of one cell stay in the order given.
    numpy.ndarray of int64
        The row given of each row of the index.
    """
    ra, dec = np.asarray(ra, dtype=np.float64), np.asarray(dec, dtype=np.float64)
    cells = ang2pix(MAX_ORDER, ra, dec)
    rows = np.argsort(cells, kind="stable")
    rows = rows[np.searchsorted(cells[rows], 0) :]
    return index_sorted(cells[rows], np.remainder(ra[rows], 360.0), dec[rows]), rows


def index_sorted(cells: NDArray[np.int64], ra: NDArray[np.float64], dec: NDArray[np.float64]) -> MatchIndex:
    """Return the match index of rows that are sorted by order-29 cell already, each with a position."""
    order = offsets_order(len(cells))
    edges = np.arange((12 << (2 * order)) + 1, dtype=np.int64) << (2 * (MAX_ORDER - order))
    return MatchIndex(cells, ra, dec, np.searchsorted(cells, edges).astype(np.int64), order)


def offsets_order(rows: int) -> int:
    """Return the order whose cells would hold about 16 rows, were the sources spread over the whole sky."""
    order = 0
    while order < _DEEPEST_OFFSETS and rows / (12 << (2 * order)) > _ROWS_PER_CELL:
        order += 1
    return order
