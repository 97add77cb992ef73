"""Is a transient the counterpart of an event, or there by chance? Pure arrays: no file, no clock, no hidden number.

Derivation, rates and measured behaviour stand in ``docs/significance.md``. In short: unrelated new transients are a
Poisson process whose intensity follows what the survey looked at (:mod:`~pipeline.coincidence.background`); every place
and visit is ranked by the odds that a transient there belongs to the event (Ashton et al. 2018, ApJ 860, 6,
doi:10.3847/1538-4357/aabfd2); the expected number of unrelated ones that rank at least as high is summed exactly
(:mod:`~pipeline.coincidence.compensator`), and the probability of at least one is the p-value.
"""

from pipeline.coincidence.background import (
    BINS_PER_DAY,
    CANDIDATE_RATE_ZTF,
    Visits,
    fit_rates,
    make_visits,
    uniform_visits,
    visit_bins,
    visit_labels,
)
from pipeline.coincidence.compensator import Compensator, Counterpart, compensate, first_seen, pieces_of
from pipeline.coincidence.poisson import chance, expected_uniform, randomised, statistic_uniform
from pipeline.coincidence.selection import (
    BRONZE,
    GOLD,
    SILVER,
    SILVER_RECOVERY,
    STREAMS,
    EventStream,
    gold_limit,
    joint_far_per_year,
    select,
    stream_of,
)

__all__ = [
    "BINS_PER_DAY",
    "BRONZE",
    "CANDIDATE_RATE_ZTF",
    "GOLD",
    "SILVER",
    "SILVER_RECOVERY",
    "STREAMS",
    "Compensator",
    "Counterpart",
    "EventStream",
    "Visits",
    "chance",
    "compensate",
    "expected_uniform",
    "first_seen",
    "fit_rates",
    "gold_limit",
    "joint_far_per_year",
    "make_visits",
    "pieces_of",
    "randomised",
    "select",
    "statistic_uniform",
    "stream_of",
    "uniform_visits",
    "visit_bins",
    "visit_labels",
]
