"""Conditions that several filters share.

Every block is three-valued: null where what it asks is not known. Filters join them with ``pc.and_kleene``, so an
unknown never turns into a yes.
"""

from __future__ import annotations

import functools

import pyarrow as pa
import pyarrow.compute as pc


def all_of(*conditions: pa.Array) -> pa.Array:
    """Return where all conditions hold, by three-valued logic."""
    return functools.reduce(pc.and_kleene, conditions)


def is_real(reliability: pa.Array, *, above: float = 0.5) -> pa.Array:
    """Return where the survey's real/bogus score is above a value."""
    return pc.greater(reliability, above)


def is_on_star(star_score: pa.Array, star_separation_arcsec: pa.Array) -> pa.Array:
    """Return where the nearest PS1 source is within 1.5 arcsec and more likely a star than a galaxy.

    Where no source is known there is none: the answer is no, not null.
    """
    near = pc.less_equal(star_separation_arcsec, 1.5)
    return pc.fill_null(pc.and_kleene(near, pc.greater(star_score, 0.76)), False)


def is_repeated(n_detections: pa.Array, is_glint_flagged: pa.Array) -> pa.Array:
    """Return where a source was detected twice or more and the survey did not flag a glint.

    What moves is seen once in a place: asteroids that no ephemeris knew, and satellites that flash. Surveys that flag
    no glints leave the column null.
    """
    return pc.and_kleene(pc.greater_equal(n_detections, 2), pc.invert(pc.fill_null(is_glint_flagged, False)))


def is_not_injected(is_injected: pa.Array) -> pa.Array:
    """Return where the survey did not plant the source itself; surveys that plant none leave the column null."""
    return pc.invert(pc.fill_null(is_injected, False))
