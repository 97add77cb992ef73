"""Positions to be matched, with what every catalog needs of them computed once: order-29 cells and sky order."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

from pipeline.healpix import MAX_ORDER, ang2pix

_JIT: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy"}

_DIGIT = 11
_TOP = 2 * MAX_ORDER + 4 - 2 * _DIGIT
"""Sky order looks at the 22 highest bits of a cell: order 9, 7 arcmin, which is near enough to share a cache."""


class Positions:
    """Positions of alerts (or of any rows), matched with many catalogs in one order.

    Parameters
    ----------
    ra, dec : array_like, shape (n,)
        ICRS degrees, any right ascension. A row without a position (not finite, ``|dec| > 90``) has no neighbour.
    healpix_29 : array_like, shape (n,), optional
        Their order-29 cells, -1 without a position; computed where not given.

    Attributes
    ----------
    ra, dec, healpix_29 : numpy.ndarray, shape (n,)
        As given.
    turn : numpy.ndarray of int64, shape (n,)
        The rows in sky order: catalog rows are then found in the processor's cache. No result depends on it.
    sorted_ra, sorted_dec, sorted_cells : numpy.ndarray, shape (n,)
        The same in sky order; right ascension in [0, 360).
    """

    __slots__ = ("dec", "healpix_29", "ra", "sorted_cells", "sorted_dec", "sorted_ra", "turn")

    def __init__(self, ra: ArrayLike, dec: ArrayLike, healpix_29: ArrayLike | None = None) -> None:
        self.ra: NDArray[np.float64] = np.ascontiguousarray(ra, dtype=np.float64).reshape(-1)
        self.dec: NDArray[np.float64] = np.ascontiguousarray(dec, dtype=np.float64).reshape(-1)
        given = ang2pix(MAX_ORDER, self.ra, self.dec) if healpix_29 is None else healpix_29
        self.healpix_29: NDArray[np.int64] = np.ascontiguousarray(given, dtype=np.int64).reshape(-1)
        if not len(self.ra) == len(self.dec) == len(self.healpix_29):
            raise ValueError(
                f"{len(self.ra)} right ascensions, {len(self.dec)} declinations, {len(self.healpix_29)} cells"
            )
        self.turn, self.sorted_ra, self.sorted_dec, self.sorted_cells = _sky_order(self.ra, self.dec, self.healpix_29)

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.ra)


@njit(**_JIT)
def _sky_order(ra: NDArray, dec: NDArray, cells: NDArray) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """Order rows by the high bits of their cells (a radix sort in two passes; none where they ascend already)."""
    n = cells.size
    turn = np.arange(n)
    is_sorted = True
    for i in range(1, n):
        if cells[i] < cells[i - 1]:
            is_sorted = False
            break
    if not is_sorted:
        other = np.empty(n, np.int64)
        size = np.int64(1) << _DIGIT
        for shift in (_TOP, _TOP + _DIGIT):
            starts = np.zeros(size + 1, np.int64)
            for i in range(n):
                starts[((cells[i] >> shift) & (size - 1)) + 1] += 1
            for i in range(size):
                starts[i + 1] += starts[i]
            for k in range(n):
                i = turn[k]
                digit = (cells[i] >> shift) & (size - 1)
                other[starts[digit]] = i
                starts[digit] += 1
            turn, other = other, turn
    sorted_ra = np.empty(n, np.float64)
    sorted_dec = np.empty(n, np.float64)
    sorted_cells = np.empty(n, np.int64)
    for k in range(n):
        i = turn[k]
        sorted_ra[k] = ra[i] % 360.0
        sorted_dec[k] = dec[i]
        sorted_cells[k] = cells[i]
    return turn, sorted_ra, sorted_dec, sorted_cells
