"""Filters: one selection of alerts a file, registered by explicit import."""

from __future__ import annotations

from pipeline.filters import kilonova_in_skymap, new_transient, solar_system, supernova_candidate
from pipeline.filters.registry import FILTERS, AlertFilter, alert_filter, passes

__all__ = [
    "FILTERS",
    "AlertFilter",
    "alert_filter",
    "kilonova_in_skymap",
    "new_transient",
    "passes",
    "solar_system",
    "supernova_candidate",
]
