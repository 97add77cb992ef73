"""Science modules: one a file, registered by explicit import."""

from __future__ import annotations

from pipeline.science import glint_streaks, light_curve_rates, light_curve_statistics, supernova
from pipeline.science.registry import NIGHT, SCIENCE, ScienceModule, apply, night_module, order, science_module

__all__ = [
    "NIGHT",
    "SCIENCE",
    "ScienceModule",
    "apply",
    "glint_streaks",
    "light_curve_rates",
    "light_curve_statistics",
    "night_module",
    "order",
    "science_module",
    "supernova",
]
