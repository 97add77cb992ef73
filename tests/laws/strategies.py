"""Synthetic ``alerts`` tables: one frozen on disk, and hypothesis strategies that conform to the declared schema."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st

from pipeline import healpix, lightcurve
from pipeline.schema import conform
from pipeline.tables import ALERTS, LIGHT_CURVE_TYPE, UPPER_LIMITS_TYPE

GOLDEN = Path(__file__).parent / "golden"
BANDS = ("u", "g", "r", "i", "z", "y", "w")  # the last is no band that features are measured in


def frozen_alerts() -> pa.Table:
    """Return the synthetic table that golden outputs are held to: 60 alerts, written once."""
    return conform(pq.read_table(GOLDEN / "alerts.parquet"), ALERTS)


def synthetic_alerts(n: int, seed: int, null_rate: float = 0.2, longest: int = 25) -> pa.Table:
    """Return ``n`` alerts with random light curves (some empty) and nulls wherever the schema allows them.

    Half of the alerts have a known total flux. Values are physical; ids exceed 2**53.
    """
    draw = np.random.Generator(np.random.Philox(key=seed))
    mjd = np.round(60000.0 + draw.uniform(0.0, 1.0, n), 6)
    curve = _points(draw, n, mjd, longest, null_rate)
    limits = _limits(draw, n, mjd, longest)
    columns: dict[str, Any] = {
        "alert_id": 2**53 + 1 + np.arange(n, dtype=np.int64) * 7,
        "object_key": [f"obj{k}" for k in draw.integers(0, max(n // 2, 1), n)],
        "ra": draw.uniform(0.0, 360.0, n),
        "dec": np.degrees(np.arcsin(draw.uniform(-1.0, 1.0, n))),
        "mjd": mjd,
        "utc_date": np.full(n, 20230225, dtype=np.int32),
        "band": [BANDS[k] for k in draw.integers(0, 6, n)],
        "is_solar_system": draw.random(n) < 0.2,
        "is_public": draw.random(n) < 0.9,
        "light_curve": lightcurve.to_struct(curve, n, BANDS, LIGHT_CURVE_TYPE),
        "upper_limits": lightcurve.to_struct(limits, n, BANDS, UPPER_LIMITS_TYPE),
    }
    columns["healpix_29"] = healpix.ang2pix(29, columns["ra"], columns["dec"])
    ends = lightcurve.offsets(columns["light_curve"])
    columns["n_light_curve"] = np.diff(ends).astype(np.int32)
    columns["n_detections"] = lightcurve.count(ends, ~curve.is_forced)
    columns["n_upper_limits"] = lightcurve.count(lightcurve.offsets(columns["upper_limits"]))
    columns["first_mjd"] = mjd - draw.uniform(0.0, 20.0, n)
    arrays = []
    for field in ALERTS:
        values = columns.get(field.name)
        if values is None:
            values = _flat(draw, n, field)
        mask = draw.random(n) < null_rate if field.nullable else None
        if not isinstance(values, pa.Array):
            values = pa.array(values, field.type, mask=mask)
        arrays.append(values)
    return conform(pa.table(arrays, names=ALERTS.names), ALERTS)


def all_null(table: pa.Table) -> pa.Table:
    """Return the table with null in every column that may be null."""
    columns = [
        pa.nulls(table.num_rows, field.type) if field.nullable else table.column(field.name) for field in table.schema
    ]
    return pa.table(columns, schema=table.schema)


def alerts(max_rows: int = 12) -> st.SearchStrategy[pa.Table]:
    """Return a strategy of alerts tables: any number of rows, any share of nulls, any length of light curve."""
    return st.builds(
        synthetic_alerts,
        n=st.integers(0, max_rows),
        seed=st.integers(0, 2**32 - 1),
        null_rate=st.sampled_from([0.0, 0.2, 1.0]),
        longest=st.sampled_from([0, 1, 4, 30]),
    )


def _points(draw: Any, n: int, mjd: np.ndarray, longest: int, null_rate: float) -> lightcurve.Points:
    lengths = draw.integers(0, longest + 1, n)
    row = np.repeat(np.arange(n), lengths)
    m = len(row)
    flux = draw.normal(0.0, 3000.0, m) + 1000.0
    total = np.where(row % 2 == 0, np.abs(draw.normal(2e5, 1e4, m)), np.nan)
    total[draw.random(m) < null_rate * 0.5] = np.nan
    points = lightcurve.Points(
        row=row.astype(np.int64),
        mjd=np.round(mjd[row] - draw.uniform(0.0, 40.0, m), 2),  # coarse: some times are equal
        band=draw.integers(0, len(BANDS), m).astype(np.int8),
        exposure=np.where(draw.random(m) < 0.1, lightcurve.MISSING, draw.integers(1, 60, m)),
        flux_njy=np.where(draw.random(m) < 0.03, np.nan, flux),
        flux_err_njy=np.where(draw.random(m) < 0.03, np.nan, draw.uniform(50.0, 600.0, m)),
        total_flux_njy=total,
        total_flux_err_njy=np.where(np.isnan(total), np.nan, draw.uniform(500.0, 3000.0, m)),
        reference=np.where(np.isnan(total), lightcurve.MISSING, 77_001),
        is_forced=draw.random(m) < 0.3,
    )
    return lightcurve.in_time_order(points)


def _limits(draw: Any, n: int, mjd: np.ndarray, longest: int) -> lightcurve.Points:
    row = np.repeat(np.arange(n), draw.integers(0, longest // 2 + 1, n)).astype(np.int64)
    m = len(row)
    nothing = np.full(m, np.nan)
    return lightcurve.in_time_order(
        lightcurve.Points(
            row=row,
            mjd=np.round(mjd[row] - draw.uniform(0.0, 60.0, m), 2),
            band=draw.integers(0, 6, m).astype(np.int8),
            exposure=draw.integers(1, 60, m),
            flux_njy=draw.uniform(500.0, 5000.0, m),
            flux_err_njy=nothing,
            total_flux_njy=nothing,
            total_flux_err_njy=nothing,
            reference=np.full(m, lightcurve.MISSING),
            is_forced=np.zeros(m, dtype=np.bool_),
        )
    )


def _flat(draw: Any, n: int, field: pa.Field) -> Any:
    if pa.types.is_boolean(field.type):
        return draw.random(n) < 0.5
    if pa.types.is_string(field.type):
        return [f"name {k}" for k in draw.integers(0, 5, n)]
    if pa.types.is_integer(field.type):
        return draw.integers(1, 9000, n)
    if field.name.endswith("_mag"):
        return draw.uniform(12.0, 21.0, n)
    if field.name.endswith("_arcsec"):
        return draw.uniform(0.0, 5.0, n)
    if field.name.endswith("_njy"):
        return draw.uniform(-5000.0, 50000.0, n)
    return draw.random(n)
