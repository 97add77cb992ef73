"""Night module: glints of satellites, several alerts along a line in one exposure."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.features import streaks
from pipeline.lightcurve import booleans, floats, integers
from pipeline.schema import column
from pipeline.science.registry import night_module
from pipeline.tables import LINKS

_NEW_DAYS = 0.01  # an alert this soon after the first detection of its object is the first detection

_COLUMNS = (
    column("glint_n_alerts", pa.int32(), doc="alerts of the streak"),
    column("glint_length_arcsec", pa.float64(), unit="arcsec", doc="from its first to its last alert"),
    column("glint_residual_arcsec", pa.float64(), unit="arcsec", doc="root mean square distance from the fit"),
)


@night_module(
    version=1,
    requires=[
        "alert_id",
        "ra",
        "dec",
        "mjd",
        "first_mjd",
        "n_detections",
        "is_positive",
        "is_solar_system",
        "is_injected",
        "diff_mag",
        "reference_mag",
        "reference_separation_arcsec",
    ],
    produces=_COLUMNS,
)
def glint_streaks(night: pa.Table) -> pa.Table:
    """Find satellite glints: at least 5 new alerts of one exposure along a great circle.

    What: candidates are first detections, positive, not of a known Solar System object and outside the locus of
    variable stars. Per exposure (alerts of one mid-exposure time, all detectors), every pair more than 10 arcsec apart
    spans a great circle; one with at least 5 candidates within 5 arcsec is fitted, straight or bent, and those within
    1 arcsec of the fit are the streak. The score is -log10 of the number of streaks as good that the exposure would
    give by chance, from the density beside the streak; streaks below 2 are left out.

    Minimum points: 5 alerts at least 5 arcsec apart along the streak.

    Units: arcsec. The link id is ``glint-`` and the smallest alert id of the streak.

    Reference: Karpov & Peloton 2022, doi:10.48550/arXiv.2202.05719

    Surveys: not validated on real data.
    """
    alert_id = integers(night.column("alert_id"))
    mjd = floats(night.column("mjd"))
    rows = np.flatnonzero(_is_candidate(night))
    rows = rows[np.lexsort((alert_id[rows], mjd[rows]))]
    xyz = streaks.unit_vectors(floats(night.column("ra"))[rows], floats(night.column("dec"))[rows])
    cuts = np.flatnonzero(np.diff(mjd[rows])) + 1
    links: list[tuple[int, str, float, int, float, float]] = []
    for exposure in np.split(np.arange(len(rows)), cuts):
        for streak in streaks.find(np.ascontiguousarray(xyz[exposure])):
            ids = alert_id[rows[exposure[streak.members]]]
            score = -math.log10(max(streak.chance, 1e-300))
            name = f"glint-{ids.min()}"
            links.extend((int(one), name, score, len(ids), streak.length_arcsec, streak.residual_arcsec) for one in ids)
    return _table(sorted(links, key=lambda link: (link[1], link[0])))


def _is_candidate(night: pa.Table) -> NDArray[np.bool_]:
    """Return the candidates, bool (n,): what is not known to disqualify does not."""
    n_detections = integers(night.column("n_detections"))
    age = floats(night.column("mjd")) - floats(night.column("first_mjd"))
    candidate = (n_detections == 1) & ~(age > _NEW_DAYS) & booleans(night.column("is_positive"))
    candidate &= ~booleans(night.column("is_solar_system")) & ~booleans(night.column("is_injected"))
    separation = floats(night.column("reference_separation_arcsec"))
    contrast = floats(night.column("reference_mag")) - floats(night.column("diff_mag"))
    with np.errstate(divide="ignore", invalid="ignore"):
        variable = (separation < 2.0) & (contrast < 1.0) & (contrast < -4.0 * (np.log10(separation) + 0.2))
    return candidate & ~variable


def _table(links: list[tuple[int, str, float, int, float, float]]) -> pa.Table:
    ids, names, scores, counts, lengths, residuals = zip(*links, strict=True) if links else ((),) * 6
    schema = pa.schema([*LINKS, *_COLUMNS])
    values = (ids, ("glint_streaks",) * len(ids), names, scores, counts, lengths, residuals)
    return pa.table([pa.array(v, field.type) for v, field in zip(values, schema, strict=True)], schema=schema)
