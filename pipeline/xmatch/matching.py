"""Positions against a catalog: the nearest source of each, or every source within the radius.

What a position gets depends on itself, its radius and the catalog: never on the other positions or their order.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.xmatch.index import MatchIndex
from pipeline.xmatch.kernel import nearest_rows, rows_within
from pipeline.xmatch.pairs import Nearest, Pairs, sort_pairs
from pipeline.xmatch.positions import Positions

_NO_REACH = np.empty(0, dtype=np.float64)
_LEAST_ROOM = 1024


def nearest(
    ra: ArrayLike,
    dec: ArrayLike,
    radius_arcsec: ArrayLike,
    index: MatchIndex,
    healpix_29: ArrayLike | None = None,
) -> Nearest:
    """Find the nearest source of every alert.

    Of equal separations the smaller catalog row wins. A separation equal to the radius is within it.

    Parameters
    ----------
    ra, dec : array_like, shape (n,)
        ICRS degrees; an alert without a position has no neighbour.
    radius_arcsec : float or array_like, shape (n,)
        One radius, or one for each alert; NaN or negative: no neighbour.
    index : MatchIndex
        The catalog.
    healpix_29 : array_like, shape (n,), optional
        Order-29 cells of the alerts, computed where not given.
    """
    return nearest_at(Positions(ra, dec, healpix_29), radius_arcsec, index)


def within(
    ra: ArrayLike,
    dec: ArrayLike,
    radius_arcsec: ArrayLike,
    index: MatchIndex,
    healpix_29: ArrayLike | None = None,
) -> Pairs:
    """Find every source within the radius of every alert; parameters as in :func:`nearest`."""
    return within_at(Positions(ra, dec, healpix_29), radius_arcsec, index)


def nearest_at(positions: Positions, radius_arcsec: ArrayLike, index: MatchIndex) -> Nearest:
    """Find the nearest source of every position, as :func:`nearest` does; positions serve any number of catalogs."""
    count = len(positions)
    row = np.full(count, -1, dtype=np.int64)
    separation = np.full(count, np.nan)
    neighbours = np.zeros(count, dtype=np.int32)
    radius = radii(radius_arcsec, count)
    nearest_rows(*queries(positions), radius, *catalog(index), row, separation, neighbours)
    return Nearest(row, separation, neighbours)


def within_at(positions: Positions, radius_arcsec: ArrayLike, index: MatchIndex) -> Pairs:
    """Find every source within the radius of every position, as :func:`within` does."""
    return sort_pairs(len(positions), *find_pairs(positions, radius_arcsec, index, _NO_REACH))


def find_pairs(
    positions: Positions, radius_arcsec: ArrayLike, index: MatchIndex, reach_arcsec: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Return alert, row and separation of every pair within the radius (and each source's reach), in no order told.

    Parameters
    ----------
    reach_arcsec : numpy.ndarray of float64, shape (rows of the index,) or (0,)
        Largest separation of each source.
    """
    count = len(positions)
    radius = radii(radius_arcsec, count)
    room = max(count, _LEAST_ROOM)
    pieces: list[tuple[NDArray[Any], ...]] = []
    done = 0
    while done < count or not pieces:
        arrays = np.empty(room, np.int64), np.empty(room, np.int64), np.empty(room, np.float64)
        done, written, _ = rows_within(done, *queries(positions), radius, *catalog(index), reach_arcsec, *arrays)
        pieces.append(tuple(array[:written] for array in arrays))
        room *= 2  # so a position with more pairs than fit is met with room enough in the end
    alert, row, separation = (
        np.concatenate(items) if len(pieces) > 1 else items[0] for items in zip(*pieces, strict=True)
    )
    return alert, row, separation


def radii(radius_arcsec: ArrayLike, count: int) -> NDArray[np.float64]:
    """Return one radius, shape (1,), or one for each position, shape (n,)."""
    radius = np.ascontiguousarray(radius_arcsec, dtype=np.float64).reshape(-1)
    if radius.size not in (1, count):
        raise ValueError(f"{radius.size} radii for {count} positions")
    return radius


def queries(positions: Positions) -> tuple[NDArray[Any], ...]:
    """Return what kernels take of positions."""
    return positions.turn, positions.sorted_cells, positions.sorted_ra, positions.sorted_dec


def catalog(index: MatchIndex) -> tuple[Any, ...]:
    """Return what kernels take of a match index."""
    return index.healpix_29, index.ra, index.dec, index.offsets, index.order
