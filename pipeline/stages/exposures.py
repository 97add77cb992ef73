"""What was observed: one row an exposure and detector, from the alerts it gave."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.schema import conform
from pipeline.tables import EXPOSURES

VERSION = 1
"""Raised whenever its rows or numbers change."""
CELL_ORDER = 10
REQUIRES = ("exposure", "detector", "field", "mjd", "band", "limit_mag", "seeing_arcsec", "healpix_29")


def exposures(alerts: pa.Table) -> pa.Table:
    """Return the exposures of a night, ordered by (mjd, exposure).

    Parameters
    ----------
    alerts : pyarrow.Table
        With :data:`REQUIRES`, any order of rows. Alerts without an exposure number do not count.

    Returns
    -------
    pyarrow.Table
        :data:`pipeline.tables.EXPOSURES`. An exposure that gave no alert is not known here. ``seeing_arcsec`` is the
        median over its alerts (of an even number, the mean of the middle two), ``limit_mag`` the smallest.
    """
    known = alerts.filter(pc.is_valid(alerts.column("exposure"))).combine_chunks()
    number = known.column("exposure").to_numpy()
    order = np.lexsort((known.column("healpix_29").to_numpy(), number))
    known, number = known.take(pa.array(order)), number[order]
    starts = np.flatnonzero(np.r_[True, np.diff(number) != 0]) if len(number) else np.empty(0, np.int64)
    ends = np.r_[starts[1:], len(number)].astype(np.int64)[: len(starts)]
    cells = known.column("healpix_29").to_numpy() >> (2 * (29 - CELL_ORDER))
    first = known.take(pa.array(starts))
    columns = {
        "exposure": first.column("exposure"),
        "detector": first.column("detector"),
        "field": first.column("field"),
        "mjd": pa.array(_each(known.column("mjd"), starts, ends, np.min), pa.float64()),
        "band": first.column("band"),
        "limit_mag": pa.array(_each(known.column("limit_mag"), starts, ends, np.min), pa.float64()),
        "seeing_arcsec": pa.array(_each(known.column("seeing_arcsec"), starts, ends, np.median), pa.float32()),
        "n_alerts": pa.array((ends - starts).astype(np.int32)),
        "cells": pa.array([np.unique(cells[a:b]) for a, b in zip(starts, ends, strict=True)], pa.list_(pa.int64())),
    }
    table = conform(pa.table(columns), EXPOSURES, dataset="exposures")
    return table.sort_by([("mjd", "ascending"), ("exposure", "ascending")])


def _each(
    data: pa.ChunkedArray, starts: np.ndarray, ends: np.ndarray, reduce: Callable[..., Any]
) -> list[float | None]:
    """Reduce the values of each segment that are there; None where none is."""
    values = data.cast(pa.float64()).to_numpy()  # null becomes NaN
    out: list[float | None] = []
    for a, b in zip(starts, ends, strict=True):
        there = values[a:b][~np.isnan(values[a:b])]
        out.append(float(reduce(there)) if len(there) else None)
    return out
