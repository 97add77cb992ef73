"""Filter: transients on their first nights, away from stars and from sources of the reference image."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.filters.blocks import all_of, is_not_injected, is_on_star, is_real
from pipeline.filters.registry import alert_filter


@alert_filter(
    version=1, description="Two to five detections within 10 days, real, no source of the reference at its place"
)
def new_transient(
    n_detections: pa.Array,
    mjd: pa.Array,
    first_mjd: pa.Array,
    is_positive: pa.Array,
    reliability: pa.Array,
    reference_separation_arcsec: pa.Array,
    star_score: pa.Array,
    star_separation_arcsec: pa.Array,
    is_solar_system: pa.Array,
    is_injected: pa.Array,
) -> pa.Array:
    """Select new transients: 2 to 5 detections, first at most 10 days ago, no reference source within 1.5 arcsec.

    Where the survey names no reference source there is none. Two detections exclude most unknown asteroids
    (Perley et al. 2020, doi:10.3847/1538-4357/abbd98).
    """
    hostless = pc.fill_null(pc.greater(reference_separation_arcsec, 1.5), True)
    return all_of(
        pc.greater_equal(n_detections, 2),
        pc.less_equal(n_detections, 5),
        pc.less_equal(pc.subtract(mjd, first_mjd), 10.0),
        is_positive,
        is_real(reliability),
        hostless,
        pc.invert(is_on_star(star_score, star_separation_arcsec)),
        pc.invert(is_solar_system),
        is_not_injected(is_injected),
    )
