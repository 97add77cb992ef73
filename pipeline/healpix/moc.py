"""Coverage maps (MOC): range sets as FITS, JSON and ASCII, and back.

References
----------
IVOA Recommendation MOC 2.0, Fernique et al. 2022 (space MOCs: the NUNIQ and RANGE forms of FITS, JSON, ASCII).
"""

from __future__ import annotations

import json
import re

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import InputError
from pipeline.healpix.cells import MAX_ORDER, check_order, from_uniq, to_uniq
from pipeline.healpix.fits import FitsError, read_table
from pipeline.healpix.ranges import ALL_SKY, merge_ranges, ranges_of

Ranges = NDArray[np.int64]
Cards = list[tuple[str, str | int | bool]]
_BLOCK = 2880
_LARGEST_TEXT = 1 << 26
_TOKEN = re.compile(r"(?:(\d{1,2})/)?(?:(\d{1,19})(?:-(\d{1,19}))?)?")


# ------------------------------------------------------------------------------------------------ writing
def cells_by_order(ranges: Ranges, max_order: int = MAX_ORDER) -> list[NDArray[np.int64]]:
    """Return the fewest cells that cover a range set, as first and last by order.

    Parameters
    ----------
    ranges : numpy.ndarray of int64, shape (k, 2)
        Range set of order 29.
    max_order : int
        Deepest order; what is finer is covered by whole cells of this order.

    Returns
    -------
    list of numpy.ndarray of int64, shape (m, 2)
        For each order from 0 to ``max_order``: ascending runs of cells, half-open.
    """
    check_order(max_order)
    shift = 2 * (MAX_ORDER - max_order)
    left = np.asarray(ranges, dtype=np.int64).reshape(-1, 2)
    outer = np.stack([left[:, 0] >> shift << shift, ((left[:, 1] - 1) >> shift) + 1 << shift], axis=1)
    left = merge_ranges(outer)
    orders = []
    for order in range(max_order + 1):
        shift = 2 * (MAX_ORDER - order)
        first, last = -(-left[:, 0] >> shift), left[:, 1] >> shift
        whole = last > first
        orders.append(np.stack([first[whole], last[whole]], axis=1))
        before = np.stack([left[whole, 0], first[whole] << shift], axis=1)
        behind = np.stack([last[whole] << shift, left[whole, 1]], axis=1)
        left = merge_ranges(np.concatenate([left[~whole], before, behind]))
    return orders


def moc_fits(ranges: Ranges, max_order: int = MAX_ORDER) -> bytes:
    """Return a range set as a FITS file in the NUNIQ form; see :func:`cells_by_order` for the parameters."""
    runs = cells_by_order(ranges, max_order)
    uniq = [to_uniq(order, np.arange(first, last)) for order, run in enumerate(runs) for first, last in run]
    numbers = np.concatenate([np.empty(0, dtype=np.int64), *uniq])
    primary: Cards = [("SIMPLE", True), ("BITPIX", 8), ("NAXIS", 0), ("EXTEND", True)]
    table: Cards = [("XTENSION", "BINTABLE"), ("BITPIX", 8), ("NAXIS", 2), ("NAXIS1", 8), ("NAXIS2", len(numbers))]
    table += [("PCOUNT", 0), ("GCOUNT", 1), ("TFIELDS", 1), ("TTYPE1", "UNIQ"), ("TFORM1", "1K")]
    table += [("MOCVERS", "2.0"), ("MOCDIM", "SPACE"), ("ORDERING", "NUNIQ"), ("COORDSYS", "C")]
    table += [("MOCORD_S", max_order), ("MOCORDER", max_order), ("PIXTYPE", "HEALPIX")]
    data = numbers.astype(">i8").tobytes()
    return _header(primary) + _header(table) + data + bytes(-len(data) % _BLOCK)


def moc_json(ranges: Ranges, max_order: int = MAX_ORDER) -> str:
    """Return a range set as JSON, cells by order; see :func:`cells_by_order` for the parameters."""
    cells = {
        str(order): [cell for first, last in run.tolist() for cell in range(first, last)]
        for order, run in enumerate(cells_by_order(ranges, max_order))
        if len(run) or order == max_order
    }
    return json.dumps(cells)


def moc_ascii(ranges: Ranges, max_order: int = MAX_ORDER) -> str:
    """Return a range set as ASCII, ``order/cell cell-cell``; see :func:`cells_by_order` for the parameters."""
    words = []
    for order, run in enumerate(cells_by_order(ranges, max_order)):
        if len(run) or order == max_order:
            cells = [f"{first}" if last == first + 1 else f"{first}-{last - 1}" for first, last in run.tolist()]
            words.append(f"{order}/" + " ".join(cells))
    return " ".join(words)


def _header(cards: Cards) -> bytes:
    lines = []
    for name, value in cards:
        if isinstance(value, bool):
            text = f"{'T' if value else 'F':>20}"
        else:
            text = f"'{value:<8}'" if isinstance(value, str) else f"{value:>20}"
        lines.append(f"{name:<8}= {text}".ljust(80))
    joined = "".join([*lines, "END".ljust(80)])
    return joined.ljust(-(-len(joined) // _BLOCK) * _BLOCK).encode("ascii")


# ------------------------------------------------------------------------------------------------ reading
def parse_moc(data: bytes, source: str = "coverage map") -> Ranges:
    """Read a space MOC.

    Parameters
    ----------
    data : bytes
        FITS (NUNIQ or RANGE, gzip-compressed or not), JSON or ASCII: told by how it begins.
    source : str
        Named in errors.

    Returns
    -------
    numpy.ndarray of int64, shape (k, 2)
        Range set of order 29.

    Raises
    ------
    InputError
        The bytes are no such map, or it is not in equatorial coordinates.
    """
    try:
        if data[:6] == b"SIMPLE" or data[:2] == b"\x1f\x8b":
            return _from_fits(data)
        if len(data) > _LARGEST_TEXT:
            raise ValueError(f"it has more than {_LARGEST_TEXT >> 20} MiB")
        text = data.decode("ascii").strip()
        return _from_json(text) if text.startswith("{") else _from_ascii(text)
    except (ValueError, RecursionError) as error:  # a FitsError, UnicodeDecodeError or JSONDecodeError is a ValueError
        raise InputError(f"coverage map cannot be read: {error}", source=source) from error


def _from_fits(data: bytes) -> Ranges:
    table = read_table(data)
    dimension, system = (
        str(table.header.get(name, item)).strip() for name, item in (("MOCDIM", "SPACE"), ("COORDSYS", "C"))
    )
    if dimension != "SPACE" or system not in ("C", "ICRS"):
        raise FitsError(f"it is of {dimension[:20]} in coordinates {system[:20]}, not of space in C")
    if not table.fields:
        raise FitsError("its table has no column")
    numbers = table.integers(next(iter(table.fields)))
    ordering = str(table.header.get("ORDERING", "")).strip()
    if ordering == "NUNIQ":
        orders, cells = from_uniq(numbers)
        return ranges_of(orders, cells)
    if ordering != "RANGE" or len(numbers) % 2:
        raise FitsError(f"ORDERING {ordering[:20]} is neither NUNIQ nor RANGE")
    return _checked(numbers.reshape(-1, 2))


def _from_json(text: str) -> Ranges:
    found = json.loads(text)
    parts = []
    for name, cells in found.items():
        if not re.fullmatch(r"\d{1,2}", name) or not isinstance(cells, list):
            raise ValueError(f"{name[:20]!r} is no order with a list of cells")
        if not all(type(cell) is int and 0 <= cell < 1 << 62 for cell in cells):
            raise ValueError(f"a cell of order {name} is no number")
        first = np.array(cells, dtype=np.int64)
        parts.append(_run(int(name), first, first))
    return merge_ranges(np.concatenate([np.empty((0, 2), dtype=np.int64), *parts]))


def _from_ascii(text: str) -> Ranges:
    order = None
    found: dict[int, list[tuple[int, int]]] = {}
    for word in re.split(r"[\s,]+", text):
        token = _TOKEN.fullmatch(word)
        if token is None:
            raise ValueError(f"{word[:20]!r} is none of order/cell, cell, cell-cell")
        if token[1] is not None:
            order = int(token[1])
        if token[2] is None:
            continue
        if order is None:
            raise ValueError("it names a cell before an order")
        first, last = int(token[2]), int(token[3] or token[2])
        found.setdefault(order, []).append((min(first, 1 << 62), min(last, 1 << 62)))
    parts = [_run(order, *np.array(cells, dtype=np.int64).T) for order, cells in found.items()]
    return merge_ranges(np.concatenate([np.empty((0, 2), dtype=np.int64), *parts]))


def _run(order: int, first: NDArray[np.int64], last: NDArray[np.int64]) -> Ranges:
    check_order(order)
    if ((first > last) | (first < 0) | (last >= 12 << (2 * order))).any():
        raise ValueError(f"a cell is none of order {order}")
    shift = 2 * (MAX_ORDER - order)
    return np.stack([first << shift, (last + 1) << shift], axis=1)


def _checked(ranges: Ranges) -> Ranges:
    if ((ranges[:, 0] > ranges[:, 1]) | (ranges[:, 0] < 0) | (ranges[:, 1] > ALL_SKY[0, 1])).any():
        raise ValueError("a range lies outside the sky")
    return merge_ranges(ranges)
