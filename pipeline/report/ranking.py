"""Which alerts of a night are shown first."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

IN_SKYMAP = 0.9
RULE = (
    "Kilonova candidates inside the 90 % region of a sky map first, then other kilonova candidates; then alerts of "
    "good quality that are no known Solar System object, by the number of filters passed, by the highest classifier "
    "score, and by brightness. Members of a streak come last. One alert per object; injected and non-public alerts "
    "never."
)


@dataclass(frozen=True)
class Interest:
    """One ranked alert: its row in the night's table and why it stands there."""

    row: int
    reasons: tuple[str, ...]


def rank(
    science: pa.Table, count: int = 10, *, on_streak: Collection[int] = (), events: Collection[str] = ()
) -> list[Interest]:
    """Return the most interesting alerts, best first, by :data:`RULE`; ties go to the smaller alert id.

    Parameters
    ----------
    science : pyarrow.Table
        Rows of the night with ``alert_id``, ``object_key``, ``flux_njy``, the flags, and whatever enrichment added.
    count : int
        At most so many.
    on_streak : collection of int
        Ids of alerts that a night module put on a streak.
    events : collection of str
        Names of the sky maps as their senders write them; columns have them in lower case.
    """
    if science.num_rows == 0:
        return []
    kilonova = np.zeros(science.num_rows, dtype=bool)
    for name in filters_of(science):
        if "kilonova" in name:
            kilonova |= _flag(science, name)
    n_filters = sum((_flag(science, name).astype(int) for name in filters_of(science)), np.zeros(science.num_rows))
    inside = np.zeros(science.num_rows, dtype=bool)
    for name in skymap_levels_of(science):
        inside |= _number(science, name, np.inf) <= IN_SKYMAP
    score = np.full(science.num_rows, -1.0)
    for name in scores_of(science):
        score = np.maximum(score, _number(science, name, -1.0))
    usual = _flag(science, "is_good_quality", missing=True) & ~_flag(science, "is_solar_system")
    brightness = np.abs(_number(science, "flux_njy", 0.0))
    ids = science.column("alert_id").to_numpy()
    streak = np.isin(ids, np.fromiter(on_streak, dtype=np.int64, count=len(on_streak)))
    order = np.lexsort((ids, -brightness, -score, -n_filters, ~usual, ~kilonova, ~(kilonova & inside), streak))
    served = ~_flag(science, "is_injected") & _flag(science, "is_public", missing=True)
    return _first_of_each_object(science, order[served[order]], count, events)


def _first_of_each_object(
    science: pa.Table, order: NDArray[np.int64], count: int, events: Collection[str]
) -> list[Interest]:
    keys = science.column("object_key")
    seen: set[str] = set()
    chosen: list[Interest] = []
    for row in order.tolist():
        key = keys[row].as_py()
        if key not in seen:
            seen.add(key)
            chosen.append(Interest(row, tuple(_reasons(science, row, events))))
        if len(chosen) == count:
            break
    return chosen


def _reasons(science: pa.Table, row: int, events: Collection[str]) -> list[str]:
    told = [f"passes {name.removeprefix('filter_')}" for name in filters_of(science) if science[name][row].as_py()]
    for name in skymap_levels_of(science):
        level = science[name][row].as_py()
        if level is not None and level <= IN_SKYMAP:
            told.append(f"inside the {100 * level:.3g} % region of {skymap_name(name, events)}")
    for name in scores_of(science):
        score = science[name][row].as_py()
        if score is not None:
            told.append(f"{score_name(name)} {score:.2f}")
    return told


def filters_of(science: pa.Table) -> list[str]:
    """Return the columns that say which filter passed."""
    return [name for name in science.column_names if name.startswith("filter_")]


def scores_of(science: pa.Table) -> list[str]:
    """Return the classifier score columns."""
    floats = [field.name for field in science.schema if pa.types.is_floating(field.type)]
    return [name for name in floats if name.startswith("clf_") and name.endswith(("_score", "_probability"))]


def score_name(column: str) -> str:
    """Return the name of the model that a score column belongs to."""
    return column.removeprefix("clf_").removesuffix("_score").removesuffix("_probability")


def skymap_levels_of(science: pa.Table) -> list[str]:
    """Return the credible level columns of sky maps, the smallest of all maps left out."""
    ending = "_credible_level"
    levels = [name for name in science.column_names if name.startswith("skymap_") and name.endswith(ending)]
    return [name for name in levels if name != f"skymap_min{ending}"]


def skymap_name(column: str, events: Collection[str] = ()) -> str:
    """Return the event that a credible level column belongs to, as its sender writes it if that is known."""
    name = column.removeprefix("skymap_").removesuffix("_credible_level")
    return next((event for event in sorted(events) if event.lower() == name), name)


def _flag(science: pa.Table, name: str, *, missing: bool = False) -> NDArray[np.bool_]:
    """Return a boolean column with null as ``missing``; all ``missing`` if it is not there."""
    if name not in science.column_names:
        return np.full(science.num_rows, missing)
    return science.column(name).fill_null(missing).to_numpy()


def _number(science: pa.Table, name: str, missing: float) -> NDArray[np.float64]:
    if name not in science.column_names:
        return np.full(science.num_rows, missing)
    values = science.column(name).cast(pa.float64()).fill_null(missing).to_numpy()
    return np.where(np.isnan(values), missing, values)
