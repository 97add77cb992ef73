"""What a search is told as: event by event its map, its coverage and its best candidates, as JSON values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.followup.coverage import Exposures, coverage_of
from pipeline.followup.search import Found, Search
from pipeline.night import tai_to_utc
from pipeline.skymap import SkyMap, region_area_deg2

_SHOWN = (
    *("alert_id", "object_key", "night", "mjd", "ra", "dec", "band", "diff_mag"),
    *("credible_level", "probdensity", "volume_level", "delay_day", "first_delay_day"),
    *("has_prior_detection", "has_prior_forced", "has_prior_alert", "has_prior_activity"),
    *("host_name", "host_distance_mpc", "host_separation_kpc", "lum_absolute_mag", "lum_nu_lnu_erg_s"),
    *("p_chance", "joint_far_per_year", "selection"),
)


def utc_text(mjd_tai: float | None) -> str | None:
    """Return a time in MJD (TAI) as UTC to the millisecond, ISO 8601."""
    if mjd_tai is None:
        return None
    utc_ms = round((float(tai_to_utc(mjd_tai)) - 40587.0) * 86_400_000.0)
    return f"{np.datetime64(utc_ms, 'ms')}Z"


def summary_of_map(skymap: SkyMap, credible_level: float = 0.9) -> dict[str, Any]:
    """Return what a map says of its event; distances are the header's, of the whole map."""
    levels = sorted({0.5, 0.9, credible_level})
    return {
        "event": skymap.event,
        "event_utc": utc_text(skymap.event_mjd),
        "event_mjd": skymap.event_mjd,
        "has_distance": skymap.has_distance,
        "distance_mpc": skymap.distance_mean_mpc,
        "distance_std_mpc": skymap.distance_std_mpc,
        "area_deg2": {f"{level:g}": region_area_deg2(skymap, level) for level in levels},
    }


def summary_of_search(asked: Search, found: Found, exposures: Exposures, *, best: int = 10) -> dict[str, Any]:
    """Return what a search found as JSON values; ids are strings, a value that is not known is null.

    Parameters
    ----------
    asked, found
        The search.
    exposures : Exposures
        Those of its nights.
    best : int
        How many candidates of each event are listed; see :func:`candidates`.
    """
    events = []
    for skymap in asked.maps:
        rows = found.table.filter(pc.equal(found.table.column("event"), skymap.event))
        activity = rows.column("has_prior_activity")
        whole = coverage_of(exposures, skymap, window_day=asked.window_day)
        since = coverage_of(exposures, skymap, window_day=asked.window_day, since_event=True)
        events.append(
            summary_of_map(skymap, asked.credible_level)
            | {
                "alerts": rows.num_rows,
                "objects": len(pc.unique(rows.column("object_key"))),
                "prior_activity": {
                    "yes": pc.sum(activity).as_py() or 0,
                    "no": pc.sum(pc.invert(activity)).as_py() or 0,
                    "unknown": activity.null_count,
                },
                "coverage": whole.as_dict(),
                "coverage_since_event": since.as_dict() if since.since_event else None,
                "candidates": candidates(rows, best),
            }
        )
    return {
        "nights": asked.nights.split(":"),
        "credible_level": asked.credible_level,
        "window_day": None if asked.window_day is None else list(asked.window_day),
        "read": {
            "nights": found.nights,
            "nights_opened": found.nights_opened,
            "parts": found.parts,
            "parts_opened": found.parts_opened,
            "parts_found": found.parts_found,
        },
        "events": events,
    }


def candidates(rows: pa.Table, best: int) -> list[dict[str, Any]]:
    """Return the best objects of one event, each by its first alert, as JSON values.

    Objects without known prior activity come first; then those with a level in space, by it; then by credible level,
    time and id. Injected sources are left out.
    """
    rows = rows.filter(pc.invert(pc.fill_null(rows.column("is_injected"), False)))
    is_prior = pc.fill_null(rows.column("has_prior_activity"), False).to_numpy()
    keys = ("volume_level", "credible_level", "mjd", "alert_id")
    volume, level, mjd, alert_id = (rows.column(name).to_numpy() for name in keys)
    order = np.lexsort((alert_id, mjd, level, np.where(np.isnan(volume), np.inf, volume), is_prior))
    ordered = rows.take(pa.array(order))
    number = pc.dictionary_encode(ordered.column("object_key")).combine_chunks().indices.to_numpy()
    _, first = np.unique(number, return_index=True)
    chosen = ordered.take(pa.array(np.sort(first)[:best])).select([n for n in _SHOWN if n in rows.column_names])
    return [item | {"alert_id": str(item["alert_id"])} for item in chosen.to_pylist()]


def area_text(area_deg2: float) -> str:
    """Return an area to three digits, in square arcminutes or arcseconds where it is small."""
    for factor, unit in ((1.0, "deg²"), (3600.0, "arcmin²")):
        if area_deg2 * factor >= 0.01 or area_deg2 == 0:
            return f"{rounded(area_deg2 * factor)} {unit}"
    return f"{rounded(area_deg2 * 3600.0**2)} arcsec²"


def rounded(value: float) -> str:
    """Return a number with three digits or more, thousands separated."""
    digits = 0 if value >= 100 or value == 0 else max(0, 2 - math.floor(math.log10(value)))
    return f"{value:,.{digits}f}"


def event_line(told: dict[str, Any]) -> str:
    """Return time and distance of an event in words."""
    words = [
        "time not known" if told["event_utc"] is None else told["event_utc"].replace("T", " ").rstrip("Z") + " UTC"
    ]
    if told["distance_mpc"] is not None:
        spread = "" if told["distance_std_mpc"] is None else f" ± {told['distance_std_mpc']:.0f}"
        words.append(f"{told['distance_mpc']:.0f}{spread} Mpc")
    elif told["has_distance"]:
        words.append("distance not in the header")
    return ", ".join(words)


def covered_bands(depths: Sequence[dict[str, Any]]) -> list[str]:
    """Return the bands of a coverage in its order."""
    return list(dict.fromkeys(item["band"] for item in depths if item["band"] is not None))
