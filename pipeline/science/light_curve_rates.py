"""Science module: rates, colors and ages, measurable from the first points on."""

from __future__ import annotations

import pyarrow as pa

from pipeline.features.points import detections, limits
from pipeline.features.rates import COLUMNS, rates
from pipeline.lightcurve import floats
from pipeline.science.registry import science_module


@science_module(version=1, requires=["light_curve", "upper_limits", "mjd", "first_mjd"], produces=COLUMNS)
def light_curve_rates(alerts: pa.Table) -> pa.Table:
    """Measure how fast a light curve rises or fades in each band, its colors and its age.

    What: slope and last value of the difference flux relative to its brightest, magnitude change since the night
    before and since the last upper limit before the first detection, time since the brightest point, the newest g - r
    and r - i within a day. Detections only, each exposure once; forced photometry left out.

    Minimum points: 1 detection in the band; 2 at least half an hour apart for the slope, 12 hours apart for the
    nightly rate; null below. Counts are 0, never null.

    Units: mag, mag / d, 1 / d, d.

    Reference: rates and upper limits as in Andreoni et al. 2021, doi:10.3847/1538-4357/ac0bc7

    Surveys: not validated on real data.
    """
    measured = rates(
        detections(alerts.column("light_curve")),
        limits(alerts.column("upper_limits")),
        floats(alerts.column("mjd")),
        floats(alerts.column("first_mjd")),
    )
    return pa.table(measured, schema=pa.schema(COLUMNS))
