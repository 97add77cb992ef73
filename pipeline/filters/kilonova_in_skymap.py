"""Filter: young transients inside the sky map of a gravitational-wave event."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.filters.blocks import all_of, is_not_injected, is_on_star, is_real, is_repeated
from pipeline.filters.registry import alert_filter


@alert_filter(version=2, description="New, real, seen twice, not on a star, within the 90 % region of any sky map")
def kilonova_in_skymap(
    skymap_min_credible_level: pa.Array,
    mjd: pa.Array,
    first_mjd: pa.Array,
    n_detections: pa.Array,
    is_positive: pa.Array,
    reliability: pa.Array,
    star_score: pa.Array,
    star_separation_arcsec: pa.Array,
    is_solar_system: pa.Array,
    is_glint_flagged: pa.Array,
    is_injected: pa.Array,
) -> pa.Array:
    """Select candidate counterparts: credible level at most 0.9, first detected at most 5 days before the alert.

    A light curve that began more than 5 days earlier is not a kilonova's (Andreoni et al. 2021,
    doi:10.3847/1538-4357/ac0bc7). Without a sky map the credible level is null and nothing passes. Of an object
    that was detected once it cannot be told whether it moves: it passes with its second detection. The time of the
    event itself is not asked here: the sky-map search does that.
    """
    return all_of(
        pc.less_equal(skymap_min_credible_level, 0.9),
        pc.less_equal(pc.subtract(mjd, first_mjd), 5.0),
        is_positive,
        is_real(reliability),
        is_repeated(n_detections, is_glint_flagged),
        pc.invert(is_on_star(star_score, star_separation_arcsec)),
        pc.invert(is_solar_system),
        is_not_injected(is_injected),
    )
