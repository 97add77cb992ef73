"""Filter: supernova candidates."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.filters.blocks import all_of, is_not_injected, is_on_star, is_real
from pipeline.filters.registry import alert_filter


@alert_filter(version=1, description="Classified as a supernova, at most 150 days old, real, not on a star")
def supernova_candidate(
    clf_supernova_class: pa.Array,
    mjd: pa.Array,
    first_mjd: pa.Array,
    is_positive: pa.Array,
    reliability: pa.Array,
    star_score: pa.Array,
    star_separation_arcsec: pa.Array,
    is_solar_system: pa.Array,
    is_injected: pa.Array,
) -> pa.Array:
    """Select alerts that the supernova model calls so, at the threshold of its card.

    The model looks at the shape of the light curve only: what else tells a supernova is asked here. First detected at
    most 150 days ago (slow and superluminous ones are still bright), positive, not on a star.
    The cuts on reliability (0.5), star score (0.76) and Solar System objects are those in common use for the ZTF
    stream (Fremling et al. 2020, doi:10.3847/1538-4357/ab8943).
    """
    return all_of(
        pc.equal(clf_supernova_class, "supernova"),
        pc.less_equal(pc.subtract(mjd, first_mjd), 150.0),
        is_positive,
        is_real(reliability),
        pc.invert(is_on_star(star_score, star_separation_arcsec)),
        pc.invert(is_solar_system),
        is_not_injected(is_injected),
    )
