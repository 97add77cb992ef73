"""The first alert of an object in the whole archive: what "an earlier alert" is decided by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline import healpix
from pipeline.archive.pruning import LEDGER_ORDER, Part
from pipeline.followup.progress import Progress
from pipeline.followup.reading import N_CELLS, opened

STAGE = "earlier alerts"
_REACH_DEG = 60.0 / 3600.0
"""No two alerts of one object that stands still are farther apart: surveys associate within a few arcsec."""
_MOVING = "ss:"
"""How the keys of Solar System objects begin: their alerts may be anywhere."""


@dataclass(frozen=True)
class Objects:
    """Objects whose history is asked for.

    Attributes
    ----------
    keys : pyarrow.StringArray, shape (n,)
        Object keys, none twice.
    cells : list of numpy.ndarray or None
        Cells of the ledger's order within reach of each one's alerts; None where it moves and may be anywhere.
    first_event_mjd, last_event_mjd : numpy.ndarray, shape (n,)
        First and last of the events that each one is asked for: an alert before the first settles all of them, one
        after the last none. Infinite (first) and minus infinite (last) where no event has a time.
    """

    keys: pa.Array
    cells: list[NDArray[np.int64] | None]
    first_event_mjd: NDArray[np.float64]
    last_event_mjd: NDArray[np.float64]


def objects_of(
    object_key: pa.ChunkedArray,
    healpix_29: NDArray[np.int64],
    first_event_mjd: NDArray[np.float64],
    last_event_mjd: NDArray[np.float64],
) -> tuple[Objects, NDArray[np.int64]]:
    """Return the objects of some alerts, and the number of the object of each alert, shape (m,).

    Parameters
    ----------
    object_key : pyarrow.ChunkedArray, shape (m,)
        Key of each alert's object.
    healpix_29 : numpy.ndarray of int64, shape (m,)
        Cell of each alert; -1 for none.
    first_event_mjd, last_event_mjd : numpy.ndarray, shape (m,)
        First and last event of each alert, as of :class:`Objects`.
    """
    encoded = pc.dictionary_encode(object_key).combine_chunks()
    keys, number = encoded.dictionary, encoded.indices.to_numpy().astype(np.int64)
    first, last = np.full(len(keys), np.inf), np.full(len(keys), -np.inf)
    np.minimum.at(first, number, first_event_mjd)
    np.maximum.at(last, number, last_event_mjd)
    order = healpix.order_for_radius(_REACH_DEG)
    near = healpix.cell_at(healpix_29, order)
    around = np.column_stack([near, healpix.neighbours(order, near)])
    coarse = np.where(around < 0, -1, around >> (2 * (order - LEDGER_ORDER)))
    pair = np.unique(np.column_stack([np.repeat(number, around.shape[1]), coarse.ravel()]), axis=0)
    pair = pair[pair[:, 1] >= 0]
    ends = np.searchsorted(pair[:, 0], np.arange(len(keys) + 1))
    moves = pc.starts_with(keys, _MOVING).to_numpy(zero_copy_only=False)
    moves |= np.diff(ends) == 0  # nothing is known of where it is
    cells = [None if moves[n] else pair[ends[n] : ends[n + 1], 1] for n in range(len(keys))]
    return Objects(keys, cells, first, last), number


def first_alert_mjd(parts: Sequence[Part], objects: Objects, progress: Progress) -> NDArray[np.float64]:
    """Return the time of the first alert of each object, or of any before its first event, shape (n,).

    Parts are read from the newest back, only keys and times, and only where they list a cell of an object that is not
    settled yet. Infinite where no alert stands before the object's last event.
    """
    earliest = np.full(len(objects.keys), np.inf)
    is_open = np.isfinite(objects.first_event_mjd)
    last = objects.last_event_mjd[is_open].max(initial=-np.inf)
    wanted = [part for part in parts if part.rows and (part.mjd_min is None or part.mjd_min < last)]
    wanted.sort(key=lambda part: (-(np.inf if part.mjd_min is None else part.mjd_min), part.name))
    in_cell = _Grouped(objects)
    if wanted:
        progress.stage(STAGE, len(wanted))
    for part in wanted:
        asked = in_cell.objects(part) if part.cells is not None else np.arange(len(is_open))
        asked = asked[is_open[asked]]
        if part.mjd_min is not None:
            asked = asked[objects.last_event_mjd[asked] > part.mjd_min]
        if len(asked):
            _look(part, objects, asked, earliest)
            is_open[asked] = ~(earliest[asked] < objects.first_event_mjd[asked])
        progress.advance(STAGE)
    return earliest


class _Grouped:
    """Objects by cell."""

    def __init__(self, objects: Objects) -> None:
        still = [(n, cells) for n, cells in enumerate(objects.cells) if cells is not None]
        none = np.zeros(0, dtype=np.int64)
        number = np.concatenate([none, *(np.full(len(cells), n, dtype=np.int64) for n, cells in still)])
        cell = np.concatenate([none, *(cells for _, cells in still)])
        order = np.argsort(cell, kind="stable")
        self._number = number[order]
        self._starts = np.searchsorted(cell[order], np.arange(N_CELLS + 1))
        self._anywhere = np.array([n for n, cells in enumerate(objects.cells) if cells is None], dtype=np.int64)

    def objects(self, part: Part) -> NDArray[np.int64]:
        """Return the objects that a part with listed cells may hold, ascending."""
        here = [self._number[self._starts[cell] : self._starts[cell + 1]] for cell in part.cells or ()]
        return np.unique(np.concatenate([self._anywhere, *here]))


def _look(part: Part, objects: Objects, asked: NDArray[np.int64], earliest: NDArray[np.float64]) -> None:
    """Note the earliest time of each object asked for in one part."""
    with opened(part, "science" if "science" in part.files else "alerts") as file:
        table = file.read(columns=["object_key", "mjd"], use_threads=False)
    place = pc.index_in(table.column("object_key"), value_set=objects.keys.take(pa.array(asked)))
    found = pc.fill_null(place, -1).to_numpy()
    hit = found >= 0
    np.minimum.at(earliest, asked[found[hit]], table.column("mjd").to_numpy()[hit])
