"""Which parts of an archive can hold neighbours, and what is read of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline import healpix
from pipeline.archive import Archive, Selection
from pipeline.archive.pruning import LEDGER_ORDER, Part
from pipeline.errors import InputError
from pipeline.xmatch import Positions

COLUMNS = ("alert_id", "object_key", "ra", "dec", "healpix_29", "mjd", "band", "diff_mag", "n_detections", "night")
"""What is read of every alert."""

RING_ARCSEC = healpix.BLOCK_WIDTH_DEG / (1 << LEDGER_ORDER) * 3600.0
"""Up to this radius (0.5 deg) what lies within it is in the same ledger cell or a neighbouring one."""

Sky = NDArray[np.bool_]
"""Whether each cell of the ledgers' order is touched."""


class Progress(Protocol):
    """Is told the stages of a match and each step of them."""

    def stage(self, name: str, total: int) -> None:
        """Begin a stage of ``total`` steps."""

    def advance(self, name: str) -> None:
        """Finish one step."""


class Silent:
    """Tells nobody."""

    def stage(self, name: str, total: int) -> None:
        """Begin a stage."""

    def advance(self, name: str) -> None:
        """Finish one step."""


def select(archive: Archive, survey: str, start: int, stop: int) -> Selection:
    """Select what is read of the alerts of a range of nights, both ends included.

    Raises
    ------
    InputError
        No such survey, the range ends before it starts, or none of its nights is in the archive.
    """
    chosen = archive.science(f"{start}:{stop}", columns=COLUMNS, survey=survey)
    if not any(start <= night <= stop for night in archive.nights(survey)):
        held = ", ".join(map(str, archive.nights(survey)[-3:])) or "none yet"
        raise InputError(
            f"{survey} has no night from {start} to {stop} in {archive.root}", mend=f"its latest nights are: {held}"
        )
    return chosen


def sky_of_parts(parts: Iterable[Part], radius_arcsec: float) -> Sky | None:
    """Return the cells within the radius of any cell that parts touch; None for all of them."""
    cells: list[int] = []
    for part in parts:
        if part.rows and part.cells is None:
            return None
        cells.extend(part.cells or ())
    return sky_around(np.unique(np.array(cells, dtype=np.int64)), radius_arcsec)


def sky_around(cells: NDArray[np.int64], radius_arcsec: float) -> Sky | None:
    """Return the ledger cells within the radius of some; None for all, as for a radius beyond ``RING_ARCSEC``."""
    if not radius_arcsec <= RING_ARCSEC:
        return None
    sky = np.zeros(12 << (2 * LEDGER_ORDER), dtype=bool)
    sky[cells] = True
    beside = healpix.neighbours(LEDGER_ORDER, cells)
    sky[beside[beside >= 0]] = True
    return sky


def touching(parts: Iterable[Part], sky: Sky | None) -> tuple[Part, ...]:
    """Return the parts that can hold an alert in that sky."""
    return tuple(
        part
        for part in parts
        if part.rows and (sky is None or part.cells is None or sky[np.array(part.cells, dtype=np.int64)].any())
    )


def read(selection: Selection, parts: Sequence[Part]) -> pa.Table:
    """Read some parts of a selection, in archive order (night, part, row)."""
    return replace(selection, parts=tuple(parts)).to_arrow()


def positions_of(table: pa.Table) -> Positions:
    """Return the positions of alerts."""
    return Positions(*(table.column(name).to_numpy() for name in ("ra", "dec", "healpix_29")))
