"""Archives for searches: alerts where and when a test wants them, and the answer by brute force."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import synthetic_archive as synthetic

from pipeline import healpix
from pipeline.night import date_number, mjd_of_date
from pipeline.schema import from_columns
from pipeline.skymap import SkyMap
from pipeline.stages.exposures import exposures
from pipeline.store.ledger import write_ledger, zero_counts
from pipeline.store.parts import pruning
from pipeline.store.root import Root, open_root
from pipeline.tables import ALERTS, EXPOSURES, FLAT

NO_LIMITS: dict[str, list[Any]] = {"mjd": [], "flux_limit_njy": [], "band": [], "exposure": []}
POINTS = 3
"""Points of every light curve: two forced ones before the detection."""


def alerts_table(
    alert_id: np.ndarray,
    object_key: Sequence[str],
    ra: np.ndarray,
    dec: np.ndarray,
    mjd: np.ndarray,
    *,
    first_mjd: np.ndarray | None = None,
    is_bound: np.ndarray | None = None,
    forced_mjd: np.ndarray | None = None,
    forced_snr: np.ndarray | None = None,
    **more: Any,
) -> pa.Table:
    """Return alerts; ``forced_mjd`` and ``forced_snr`` have shape (n, 2), NaN first detections are null."""
    n = len(alert_id)
    first = mjd if first_mjd is None else first_mjd
    forced_mjd = np.stack([mjd - 4, mjd - 2], axis=1) if forced_mjd is None else forced_mjd
    forced_snr = np.zeros((n, 2)) if forced_snr is None else forced_snr
    times = np.column_stack([forced_mjd, mjd]).ravel()
    flux = np.column_stack([forced_snr * 100.0, np.full(n, 5_000.0)]).ravel()
    offsets = pa.array(np.arange(n + 1, dtype=np.int32) * POINTS)
    values: dict[str, pa.Array] = {
        "mjd": pa.array(times),
        "flux_njy": pa.array(flux, mask=np.isnan(flux)),
        "flux_err_njy": pa.array(np.full(n * POINTS, 100.0)),
        "band": pa.array(["g"] * (n * POINTS)),
        "is_forced": pa.array(np.tile([True, True, False], n)),
        "exposure": pa.array(np.arange(n * POINTS)),
    }
    kind = ALERTS.field("light_curve").type
    lists = [
        pa.ListArray.from_arrays(
            offsets, values.get(item.name, pa.nulls(n * POINTS, item.type.value_type)), type=item.type
        )
        for item in kind
    ]
    columns: dict[str, Any] = {item.name: pa.nulls(n, item.type) for item in FLAT}
    columns |= {
        "alert_id": alert_id,
        "object_key": list(object_key),
        "ra": ra,
        "dec": dec,
        "healpix_29": healpix.ang2pix(29, ra, dec),
        "mjd": mjd,
        "utc_date": date_number(mjd),
        "band": np.where(np.arange(n) % 2, "r", "g").tolist(),
        "exposure": alert_id // 50,
        "flux_njy": np.full(n, 5_000.0),
        "flux_err_njy": np.full(n, 100.0),
        "diff_mag": np.full(n, 22.15),
        "limit_mag": 19.0 + (alert_id // 50 % 4) * 0.5,
        "is_positive": np.ones(n, dtype=bool),
        "is_solar_system": [key.startswith("ss:") for key in object_key],
        "is_injected": np.zeros(n, dtype=bool),
        "is_public": np.ones(n, dtype=bool),
        "first_mjd": pa.array(first, mask=np.isnan(first)),
        "first_mjd_is_bound": np.zeros(n, dtype=bool) if is_bound is None else is_bound,
        "n_detections": np.ones(n, dtype=np.int32),
        "n_light_curve": np.full(n, POINTS, dtype=np.int32),
        "n_upper_limits": np.zeros(n, dtype=np.int32),
        "light_curve": pa.StructArray.from_arrays(lists, fields=list(kind)),
        "upper_limits": pa.array([NO_LIMITS] * n, ALERTS.field("upper_limits").type),
    }
    return from_columns(columns | more, ALERTS)


def write_archive(
    folder: Path,
    nights: Mapping[int, Sequence[pa.Table]],
    *,
    survey: str = "ztf",
    added: Mapping[str, Any] | None = None,
) -> Root:
    """Write an archive of ``{night: [alerts of each part]}``; science has the flat columns and ``score``."""
    root = open_root(folder, create=True)
    for number, (night, tables) in enumerate(nights.items()):
        write_night(root, survey, night, tables, number=number)
    return root


def write_night(root: Root, survey: str, night: int, tables: Sequence[pa.Table], *, number: int = 0) -> None:
    parts = []
    for index, alerts in enumerate(tables):
        score = pa.array(np.arange(alerts.num_rows) / max(alerts.num_rows, 1))
        science = alerts.select(FLAT.names).append_column(pa.field("score", pa.float64()), score)
        name = f"part-{number:08d}-{index:05d}-000"
        files = {
            "alerts": synthetic._write(root, survey, "alerts", night, name, alerts, ALERTS),
            "science": synthetic._write(root, survey, "science", night, name, science, science.schema),
        }
        parts.append({"name": name, "rows": alerts.num_rows, "source": 0, **pruning(alerts), "files": files})
    night_files: dict[str, list[dict[str, Any]]] = {"exposures": [], "links": [], "rejects": []}
    if tables:
        made = exposures(pa.concat_tables(tables))
        night_files["exposures"] = [
            synthetic._write(root, survey, "exposures", night, "part-00000-000", made, EXPOSURES)
        ]
    rows = sum(table.num_rows for table in tables)
    counts = zero_counts() | {"packets_in": rows, "written": rows}
    source = {"number": 0, "name": "dump", "size": 1, "mtime_ns": 0, "sha256": "0" * 64, "origin": "native"}
    ledger = {
        "layout": 1,
        "survey": survey,
        "night": str(night),
        "status": "complete",
        "release": "main",
        "counts": counts,
        "reasons": {},
        "sources": [{**source, "packets": rows, "counts": counts}],
        "parts": parts,
        "night_files": night_files,
        "bytes": {},
        "groups": {},
        "timing": [],
        "environment": {},
        "settings": {},
    }
    write_ledger(root, ledger, night)


def night_of(mjd: float) -> int:
    return int(date_number(np.array([mjd]))[0])


def start_of(night: int) -> float:
    return float(mjd_of_date(np.array([night]))[0])


def all_science(root: Root) -> list[dict[str, Any]]:
    """Every science row on disk, read without the code under test."""
    files = sorted(Path(root.folder).glob("*/science/main/night=*/*.parquet"))
    return [row | {"night": int(file.parent.name[6:])} for file in files for row in pq.read_table(file).to_pylist()]


def light_curves(root: Root) -> dict[int, dict[str, list[Any]]]:
    files = sorted(Path(root.folder).glob("*/alerts/night=*/*.parquet"))
    return {
        row["alert_id"]: row["light_curve"]
        for file in files
        for row in pq.read_table(file, columns=["alert_id", "light_curve"]).to_pylist()
    }


def level_of(skymap: SkyMap, cell: int) -> tuple[float, float]:
    """Level and density at a cell, by the definition: the mass of all pixels at least as dense."""
    mass = skymap.density_per_deg2 * skymap.area_deg2
    for start, stop, density in zip(skymap.start, skymap.stop, skymap.density_per_deg2, strict=True):
        if start <= cell < stop:
            level = float(mass[skymap.density_per_deg2 >= density].sum())
            return (level if density > 0 else 1.0), float(density)
    return 1.0, 0.0


def limit_of(skymap: SkyMap, credible_level: float) -> float:
    """Level of the tie group that the line cuts: the smallest one that reaches it."""
    mass = skymap.density_per_deg2 * skymap.area_deg2
    every = {
        float(mass[skymap.density_per_deg2 >= item].sum()) for item in set(skymap.density_per_deg2.tolist()) if item
    }
    return min((level for level in every if level >= credible_level - 1e-12), default=1.0)


def brute_force(
    root: Root, maps: Sequence[SkyMap], start: int, stop: int, credible_level: float, window: Any = None
) -> list[dict[str, Any]]:
    """The answer row by row: no pruning, no sorting, no kernel."""
    rows, curves = all_science(root), light_curves(root)
    answer = []
    for skymap in maps:
        limit, t0 = limit_of(skymap, credible_level), skymap.event_mjd
        known: dict[int, tuple[float, float]] = {}
        for row in rows:
            if not start <= row["night"] <= stop:
                continue
            if window is not None and not t0 - window[0] <= row["mjd"] <= t0 + window[1]:
                continue
            cell = row["healpix_29"]
            level, density = known.setdefault(cell, level_of(skymap, cell))
            if density == 0 or level > limit + 1e-12:
                continue
            answer.append(
                row | {"event": skymap.event, "credible_level": level, "probdensity": density * (180 / np.pi) ** 2}
            )
            answer[-1] |= prior_of(row, rows, curves[row["alert_id"]], t0)
    return sorted(answer, key=lambda row: (row["event"], row["mjd"], row["alert_id"]))


def prior_of(row: dict[str, Any], rows: list[dict[str, Any]], curve: dict[str, list[Any]], t0: Any) -> dict[str, Any]:
    names = ("delay_day", "first_delay_day", "has_prior_detection", "has_prior_forced", "has_prior_alert")
    if t0 is None:
        return dict.fromkeys((*names, "has_prior_activity"))
    first = row["first_mjd"]
    detected = None if first is None else first < t0
    if detected is False and row["first_mjd_is_bound"]:
        detected = None
    points = zip(curve["mjd"], curve["flux_njy"], curve["flux_err_njy"], curve["is_forced"], strict=True)
    before = [(x, e) for t, x, e, f in points if f and t < t0 and x is not None]
    forced = any(abs(x) >= 5 * e for x, e in before) if before else None
    alerted = any(other["object_key"] == row["object_key"] and other["mjd"] < t0 for other in rows)
    every = (detected, forced, alerted)
    activity = True if True in every else None if detected is None else False
    delays = (row["mjd"] - t0, None if first is None else first - t0)
    return dict(zip((*names, "has_prior_activity"), (*delays, *every, activity), strict=True))
