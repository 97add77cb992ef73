"""Filter: known Solar System objects."""

from __future__ import annotations

import pyarrow as pa

from pipeline.filters.blocks import all_of, is_not_injected
from pipeline.filters.registry import alert_filter


@alert_filter(version=1, description="Associated by the survey with a known Solar System object")
def solar_system(is_solar_system: pa.Array, is_injected: pa.Array) -> pa.Array:
    """Select what the survey associated with a known asteroid or comet."""
    return all_of(is_solar_system, is_not_injected(is_injected))
