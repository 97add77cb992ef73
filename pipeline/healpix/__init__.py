"""HEALPix cells, nested scheme: the only door to pixel arithmetic in the project.

The arithmetic is that of Górski et al. (2005, ApJ 622, 759, doi:10.1086/427976), in the very order of operations of the
reference implementation, so that cells are bit-identical to it at every order. Positions are ICRS degrees; a position
that is not one (NaN, infinite, ``|dec| > 90``) has cell -1 and belongs to no range.

A *range set* is an int64 array of shape ``(k, 2)``: half-open intervals of order-29 cells, sorted, disjoint and not
touching. It is the one form in which regions of the sky (coverage, contours, cones) are held.
"""

from pipeline.healpix.cells import (
    BLOCK_WIDTH_DEG,
    MAX_ORDER,
    ang2pix,
    cell_area_deg2,
    cell_at,
    from_uniq,
    neighbours,
    nested_of,
    order_for_radius,
    pix2ang,
    position_to_cell,
    ring_of,
    step_cell,
    to_uniq,
)
from pipeline.healpix.ranges import (
    ALL_SKY,
    cells_of_ranges,
    cone_ranges,
    in_ranges,
    merge_ranges,
    ranges_area_deg2,
    ranges_of,
)

__all__ = [
    "ALL_SKY",
    "BLOCK_WIDTH_DEG",
    "MAX_ORDER",
    "ang2pix",
    "cell_area_deg2",
    "cell_at",
    "cells_of_ranges",
    "cone_ranges",
    "from_uniq",
    "in_ranges",
    "merge_ranges",
    "neighbours",
    "nested_of",
    "order_for_radius",
    "pix2ang",
    "position_to_cell",
    "ranges_area_deg2",
    "ranges_of",
    "ring_of",
    "step_cell",
    "to_uniq",
]
