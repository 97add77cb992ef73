"""HATS tiles of a catalog: adaptive tiling of its rows, and the rows near each tile that other tiles hold."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from pipeline.healpix import MAX_ORDER, neighbours, order_for_radius, pix2ang

MAX_ROWS = 1_000_000
_DEEPEST = 17  # 1.6 arcsec cells: a million rows closer together than that share one tile
_RING_DEPTH = 8
_RESOLVED = 1e-3  # how exactly the border of a tile is followed, in units of the margin
_FINEST_ARCSEC = 2e-3  # nothing is followed more exactly than some order-29 cells


@dataclass(frozen=True)
class Tile:
    """One tile: a nested cell and the catalog's rows within it, from ``start`` to ``stop``."""

    order: int
    pixel: int
    start: int
    stop: int

    @property
    def path(self) -> str:
        """Its file within a HATS dataset."""
        return f"Norder={self.order}/Dir={self.pixel // 10_000 * 10_000}/Npix={self.pixel}.parquet"


def tile(healpix_29: NDArray[np.int64], max_rows: int = MAX_ROWS) -> list[Tile]:
    """Cut a catalog into the largest cells that hold at most ``max_rows`` rows.

    Parameters
    ----------
    healpix_29 : numpy.ndarray of int64, shape (n,)
        Order-29 cells, ascending.
    max_rows : int
        Rows a tile may hold; more only where they lie within one cell of order 17.

    Returns
    -------
    list of Tile
        The whole sky, ascending; some may be empty.
    """
    tiles = []
    waiting = [(0, pixel) for pixel in range(11, -1, -1)]
    while waiting:
        order, pixel = waiting.pop()
        shift = 2 * (MAX_ORDER - order)
        start, stop = np.searchsorted(healpix_29, np.array([pixel << shift, (pixel + 1) << shift])).tolist()
        if stop - start <= max_rows or order == _DEEPEST:
            tiles.append(Tile(order, pixel, start, stop))
        else:
            waiting += [(order + 1, 4 * pixel + child) for child in (3, 2, 1, 0)]
    return tiles


def margin_rows(
    at: Tile, healpix_29: NDArray[np.int64], ra: NDArray[np.float64], dec: NDArray[np.float64], margin_arcsec: float
) -> NDArray[np.int64]:
    """Return the rows outside a tile that lie within the margin of its border.

    All such rows are returned, and of rows beyond the margin only those that exceed it by less than a hundredth of it.

    Parameters
    ----------
    at : Tile
        The tile.
    healpix_29, ra, dec : numpy.ndarray, shape (n,)
        The whole catalog, cells ascending.
    margin_arcsec : float
        The margin.

    Returns
    -------
    numpy.ndarray of int64
        Rows, ascending.
    """
    intervals = _around(at, margin_arcsec / 3600.0)
    bounds = np.searchsorted(healpix_29, intervals)
    kept = [np.arange(start, stop) for start, stop in bounds[bounds[:, 0] < bounds[:, 1]].tolist()]
    rows = np.concatenate([np.empty(0, dtype=np.int64), *kept])
    rows = rows[(rows < at.start) | (rows >= at.stop)]
    if not len(rows):
        return rows
    reach = np.radians(margin_arcsec / 3600.0)
    return rows[_is_near_border(at, _vectors(ra[rows], dec[rows]), reach)]


def _around(at: Tile, margin_deg: float) -> NDArray[np.int64]:
    """Return order-29 intervals that hold everything within the margin of a tile's border, outside the tile."""
    # Finer cells hold fewer rows that are not near the border, but there are more of them.
    order = min(order_for_radius(margin_deg), at.order + _RING_DEPTH)
    if order < 0:
        return np.array([[0, 12 << (2 * MAX_ORDER)]])
    if order <= at.order:
        border = np.array([at.pixel >> (2 * (at.order - order))])
    else:
        steps = np.arange(1 << (order - at.order), dtype=np.int64)
        last = np.full_like(steps, len(steps) - 1)
        sides = [(steps, 0 * steps), (steps, last), (0 * steps, steps), (last, steps)]
        border = np.unique(np.concatenate([_cells(at.pixel, order - at.order, x, y) for x, y in sides]))
    block = np.unique(np.concatenate([border, neighbours(order, border).ravel()]))
    block = block[block >= 0]
    shift = 2 * (MAX_ORDER - order)
    return np.stack([block << shift, (block + 1) << shift], axis=1)


def _is_near_border(at: Tile, points: NDArray[np.float64], reach: float) -> NDArray[np.bool_]:
    """Tell which points (unit vectors, shape (n, 3)) lie within ``reach`` radians of the border of a tile."""
    tolerance = max(_RESOLVED * reach, np.radians(_FINEST_ARCSEC / 3600.0))
    pieces = 16
    while True:
        corners, bulge = _border(at, pieces)
        if bulge <= tolerance or pieces >= 1 << min(MAX_ORDER - at.order - 1, 14):
            break
        pieces *= 2
    # The nearest corner of the polygon, and the two pieces on either side of it: one of them is the nearest piece.
    tree = cKDTree(corners)
    _, nearest = tree.query(points)
    distance = np.full(len(points), np.inf)
    for step in (-2, -1, 0, 1):
        start = corners[(nearest + step) % len(corners)]
        stop = corners[(nearest + step + 1) % len(corners)]
        distance = np.minimum(distance, _to_piece(points, start, stop))
    return distance <= 2.0 * np.sin(min(reach + bulge, np.pi) / 2.0) + np.radians(_FINEST_ARCSEC / 3600.0)


def _border(at: Tile, pieces: int) -> tuple[NDArray[np.float64], float]:
    """Return a polygon along a tile's border, ``pieces`` to a side, and how far (radians) the border leaves it."""
    depth = MAX_ORDER - at.order
    end = (1 << depth) - 1
    run = np.minimum(np.arange(2 * pieces, dtype=np.int64) * (1 << depth) // (2 * pieces), end)
    low, high = np.zeros_like(run), np.full_like(run, end)
    x = np.concatenate([run, high, end - run, low])
    y = np.concatenate([low, run, high, end - run])
    line = _vectors(*pix2ang(MAX_ORDER, _cells(at.pixel, depth, x, y)))
    corners, middles = line[::2], line[1::2]
    bulge = _to_piece(middles, corners, np.roll(corners, -1, axis=0)).max()
    return corners, 1.2 * float(bulge)  # the middle of a piece is not quite where the border is farthest from it


def _to_piece(
    points: NDArray[np.float64], start: NDArray[np.float64], stop: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the distance in space of points from the straight pieces between unit vectors, all of shape (n, 3)."""
    along = stop - start
    length = np.maximum((along * along).sum(axis=1), 1e-300)
    place = np.clip(((points - start) * along).sum(axis=1) / length, 0.0, 1.0)
    # Back onto the sphere, so that the sagging of a long piece is no distance.
    foot = start + place[:, None] * along
    foot /= np.linalg.norm(foot, axis=1)[:, None]
    return np.asarray(np.linalg.norm(points - foot, axis=1))


def _vectors(ra: NDArray[np.float64], dec: NDArray[np.float64]) -> NDArray[np.float64]:
    ra, dec = np.radians(ra), np.radians(dec)
    return np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=1)


def _cells(pixel: int, depth: int, x: NDArray[np.int64], y: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the cells ``depth`` orders below a pixel at columns ``x`` and rows ``y`` within it."""
    cells = np.full_like(x, pixel << (2 * depth))
    for bit in range(depth):
        cells |= ((x >> bit) & 1) << (2 * bit) | ((y >> bit) & 1) << (2 * bit + 1)
    return cells
