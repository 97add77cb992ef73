"""Probability maps of the sky: multi-order and flat HEALPix, with or without distance.

A map is held as intervals of order-29 cells with one probability density each, sorted by cell; a flat map's
neighbouring pixels of one density are one interval, so that both forms of a map become the same thing. A place's
*credible level* is the total probability of all places at least as dense: places of equal density share the end of
their group, and density 0 has level 1. Formats: Singer et al. 2016, ApJL 829, L15,
doi:10.3847/2041-8205/829/1/L15, and the public alerts user guide of LIGO, Virgo and KAGRA (multi-order maps).
"""

from pipeline.skymap import sweep
from pipeline.skymap.circle import fisher_skymap
from pipeline.skymap.fits import parse_skymap
from pipeline.skymap.levels import levels, mass_in, region, region_area_deg2, rows_at, searched_areas
from pipeline.skymap.maps import DEG2_PER_SR, SKY_DEG2, SkyMap, credible_levels, event_name, make_skymap
from pipeline.skymap.volume import volume_levels

__all__ = [
    "DEG2_PER_SR",
    "SKY_DEG2",
    "SkyMap",
    "credible_levels",
    "event_name",
    "fisher_skymap",
    "levels",
    "make_skymap",
    "mass_in",
    "parse_skymap",
    "region",
    "region_area_deg2",
    "rows_at",
    "searched_areas",
    "sweep",
    "volume_levels",
]
