"""Sources with a reach of their own: a galaxy's 30 kpc on the sky, how far a star moves in a century.

One radius for all would be that of the nearest galaxy. Sources are therefore put into classes of reach, each less than
twice as wide as it is narrow and each a match index of its own: an alert asks every class at its largest reach.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.xmatch.index import MatchIndex, index_sorted
from pipeline.xmatch.matching import find_pairs
from pipeline.xmatch.pairs import Pairs, sort_pairs
from pipeline.xmatch.positions import Positions

_LEAST_EXPONENT = 0
"""Reaches up to 1 arcsec share a class: below, the cell of an alert costs more than what is looked at within it."""
_WHOLE_SKY_ARCSEC = 648_000.0

_ROW_ARRAYS = ("rows", "healpix_29", "ra", "dec", "reach_arcsec")
_CLASS_ARRAYS = ("starts", "offsets", "offset_starts", "orders", "largest_arcsec")


@dataclass(frozen=True, eq=False)
class SourceClasses:
    """Sources by class of reach, then by cell; plain arrays that may be memory-mapped.

    Attributes
    ----------
    rows : numpy.ndarray of int64, shape (m,)
        Row of the match index of each source.
    healpix_29, ra, dec, reach_arcsec : numpy.ndarray, shape (m,)
        Its order-29 cell, position (degrees) and reach (arcsec, above 0).
    starts : numpy.ndarray of int64, shape (k + 1,)
        Where each class starts among the sources.
    offsets : numpy.ndarray of int64
        The offset tables of all classes, one after the other; rows count from the start of the class.
    offset_starts : numpy.ndarray of int64, shape (k + 1,)
        Where each class starts among the offsets.
    orders : numpy.ndarray of int64, shape (k,)
        Order of the offsets of each class.
    largest_arcsec : numpy.ndarray of float64, shape (k,)
        Largest reach within each class, ascending.
    """

    rows: NDArray[np.int64]
    healpix_29: NDArray[np.int64]
    ra: NDArray[np.float64]
    dec: NDArray[np.float64]
    reach_arcsec: NDArray[np.float64]
    starts: NDArray[np.int64]
    offsets: NDArray[np.int64]
    offset_starts: NDArray[np.int64]
    orders: NDArray[np.int64]
    largest_arcsec: NDArray[np.float64]

    def __len__(self) -> int:
        """Return the number of sources in classes."""
        return len(self.rows)

    @property
    def count(self) -> int:
        """Number of classes."""
        return len(self.orders)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return every array by name; :meth:`from_arrays` takes them back."""
        return {name: getattr(self, name) for name in (*_ROW_ARRAYS, *_CLASS_ARRAYS)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> SourceClasses:
        """Return the classes that arrays make, which are not copied.

        Raises
        ------
        ValueError
            An array is missing, or their sizes or types do not agree.
        """
        missing = [name for name in (*_ROW_ARRAYS, *_CLASS_ARRAYS) if name not in arrays]
        if missing:
            raise ValueError(f"classes of sources lack {', '.join(missing)}")
        made = cls(**{name: arrays[name] for name in (*_ROW_ARRAYS, *_CLASS_ARRAYS)})
        classes = len(made.orders)
        is_whole = (
            {len(arrays[name]) for name in _ROW_ARRAYS} == {len(made.rows)}
            and len(made.starts) == len(made.offset_starts) == classes + 1
            and len(made.largest_arcsec) == classes
            and int(made.starts[-1]) == len(made.rows)
            and int(made.offset_starts[-1]) == len(made.offsets)
            and all(arrays[name].dtype == (np.float64 if name in _FLOATS else np.int64) for name in made.arrays())
        )
        if not is_whole:
            raise ValueError("the arrays of classes of sources do not fit together")
        return made

    def index(self, number: int) -> MatchIndex:
        """Return the match index of one class, without copying."""
        sources = slice(int(self.starts[number]), int(self.starts[number + 1]))
        table = slice(int(self.offset_starts[number]), int(self.offset_starts[number + 1]))
        return MatchIndex(
            self.healpix_29[sources],
            self.ra[sources],
            self.dec[sources],
            self.offsets[table],
            int(self.orders[number]),
        )

    def reach(self, number: int) -> NDArray[np.float64]:
        """Return the reach of each source of one class, arcsec."""
        return self.reach_arcsec[int(self.starts[number]) : int(self.starts[number + 1])]

    def rows_of(self, number: int) -> NDArray[np.int64]:
        """Return the catalog row of each source of one class."""
        return self.rows[int(self.starts[number]) : int(self.starts[number + 1])]


_FLOATS = {"ra", "dec", "reach_arcsec", "largest_arcsec"}


def build_classes(index: MatchIndex, reach_arcsec: ArrayLike) -> SourceClasses:
    """Put the sources of a catalog into classes of reach, each a factor of two wide.

    Parameters
    ----------
    index : MatchIndex
        The catalog.
    reach_arcsec : array_like, shape (rows of the index,)
        Reach of each source; NaN or not above 0: the source is in no class. More than 180 degrees is 180 degrees.
    """
    reach = np.minimum(np.asarray(reach_arcsec, dtype=np.float64).reshape(-1), _WHOLE_SKY_ARCSEC)
    if len(reach) != len(index):
        raise ValueError(f"{len(reach)} reaches for {len(index)} sources")
    kept = np.flatnonzero(reach > 0.0)
    exponent = np.maximum(np.ceil(np.log2(reach[kept])).astype(np.int64), _LEAST_EXPONENT)
    rows = kept[np.argsort(exponent, kind="stable")]  # within a class by row, hence by cell
    _, first = np.unique(np.sort(exponent), return_index=True)
    starts = np.append(first, len(rows)).astype(np.int64)
    cells, ra, dec = index.healpix_29[rows], index.ra[rows], index.dec[rows]
    made = [index_sorted(cells[begin:end], ra[begin:end], dec[begin:end]) for begin, end in itertools.pairwise(starts)]
    sizes = np.array([0, *(len(item.offsets) for item in made)], dtype=np.int64)
    return SourceClasses(
        rows.astype(np.int64),
        cells,
        ra,
        dec,
        reach[rows],
        starts,
        np.concatenate([np.empty(0, np.int64), *(item.offsets for item in made)]),
        np.cumsum(sizes),
        np.array([item.order for item in made], dtype=np.int64),
        np.array([reach[rows[begin:end]].max() for begin, end in itertools.pairwise(starts)]),
    )


def within_reach(positions: Positions, classes: SourceClasses) -> Pairs:
    """Find every source whose own reach covers the position; a separation equal to the reach is covered.

    Returns
    -------
    Pairs
        Rows are those of the catalog.
    """
    return sort_pairs(len(positions), *join_classes(positions, classes, classes.largest_arcsec, with_reach=True))


def join_classes(
    positions: Positions, classes: SourceClasses, radius_arcsec: Any, *, with_reach: bool
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Return alert, catalog row and separation of every pair over all classes, in no order told.

    Parameters
    ----------
    radius_arcsec : sequence
        For each class, the radius or the radius of every position.
    with_reach : bool
        Whether the reach of the source bounds the separation too.
    """
    nothing = np.empty(0, dtype=np.float64)
    found = []
    for number in range(classes.count):
        reach = classes.reach(number) if with_reach else nothing
        alert, row, separation = find_pairs(positions, radius_arcsec[number], classes.index(number), reach)
        found.append((alert, classes.rows_of(number)[row], separation))
    if not found:
        return np.empty(0, np.int64), np.empty(0, np.int64), nothing
    alert, row, separation = (np.concatenate(items) for items in zip(*found, strict=True))
    return alert, row, separation
