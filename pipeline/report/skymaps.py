"""The night's alerts on the sky maps that its run was given: a figure and a few numbers for each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.archive import Archive
from pipeline.errors import PipelineError
from pipeline.events import EventStore
from pipeline.followup.coverage import any_depth, coverage_of, exposures_of
from pipeline.followup.summary import area_text, event_line, summary_of_map
from pipeline.healpix import in_ranges
from pipeline.report.night import Night
from pipeline.report.skymap import CONTOURS, Marks, skymap_figure
from pipeline.skymap import SkyMap, event_name, region
from pipeline.skymaps import read_skymap


@dataclass(frozen=True)
class EventSection:
    """What the page shows of one event.

    Attributes
    ----------
    name : str
        The event as the run was given it.
    line, area : str
        Time and distance; areas of the contours. Empty where the map is not at hand.
    alerts, prior : int
        Alerts of the night within the 90 % region, and those of them that were active before the event.
    covered : list of (band, probability)
        Probability within the night's exposures, all bands first; a lower bound.
    picture : str
        File name of the figure, empty where there is none.
    missing : str
        Why there is no figure.
    """

    name: str
    line: str
    area: str
    alerts: int
    prior: int
    covered: list[tuple[str, float]]
    picture: str
    missing: str


def event_sections(archive: Archive, night: Night) -> tuple[list[EventSection], dict[str, bytes]]:
    """Return the sections of a night's events in the order given, and their pictures by file name."""
    sections, pictures = [], {}
    given = [str(item) for item in night.ledger.get("settings", {}).get("skymaps") or []]
    exposures = exposures_of(archive.exposures(night.night, survey=night.survey).to_arrow()) if given else None
    science = night.science.filter(pa.array(~_flags(night.science, "is_injected")))
    for item in given:
        name = item.partition("=")[0]
        event = event_name(name)
        prior = _flags(science, f"skymap_{event}_has_prior_detection")
        prior |= _flags(science, f"skymap_{event}_has_prior_forced")
        skymap, missing = _map(archive, night.ledger, item)
        if skymap is None or exposures is None:
            level = f"skymap_{event}_credible_level"
            inside = _within(science, level)
            counts = int(inside.sum()), int((inside & prior).sum())
            sections.append(EventSection(name, "", "", *counts, [], "", missing))
            continue
        inside = in_ranges(region(skymap, CONTOURS[-1]), science["healpix_29"].to_numpy())
        covered = coverage_of(exposures, skymap)
        ra, dec = (science[axis].to_numpy()[inside] for axis in ("ra", "dec"))
        told = summary_of_map(skymap)
        picture = f"skymap-{event}.png"
        marks = Marks(ra, dec, prior[inside], covered.ranges)
        pictures[picture] = skymap_figure(skymap, marks, subtitle=f"{event_line(told)}; night {night.night}")
        area = ", ".join(f"{100 * float(level):g} % in {area_text(size)}" for level, size in told["area_deg2"].items())
        shares = [(item.band or "any band", item.probability) for item in any_depth(covered)]
        counts = int(inside.sum()), int(prior[inside].sum())
        sections.append(EventSection(name, event_line(told), area, *counts, shares, picture, ""))
    return sections, pictures


def _map(archive: Archive, ledger: Mapping[str, Any], given: str) -> tuple[SkyMap | None, str]:
    """Return the very map that the night was matched with, or why it is not at hand."""
    name, _, path = given.partition("=")
    group = ledger.get("groups", {}).get(f"skymap_{event_name(name)}", {})
    try:
        if path:
            skymap = read_skymap(path, name)
        else:
            store = EventStore(archive.root)
            skymap = store.skymap_of(store.pinned(event_name(name), str(group.get("notice"))))
    except PipelineError:
        return None, "the map is no longer where the run found it"
    if skymap.digest not in group.get("digests", {}).values():
        return None, "the map has changed since the night was run"
    return skymap, ""


def _flags(science: pa.Table, name: str) -> NDArray[np.bool_]:
    if name not in science.column_names:
        return np.zeros(science.num_rows, dtype=bool)
    return np.array(science.column(name).fill_null(False).to_numpy(), dtype=bool)


def _within(science: pa.Table, column: str) -> NDArray[np.bool_]:
    if column not in science.column_names:
        return np.zeros(science.num_rows, dtype=bool)
    return np.asarray(science.column(column).to_numpy() <= CONTOURS[-1])
