"""A thousand scrambles against one archive of 300 nights: uniform p-values, the gold rate, what silver keeps.

Every scramble shifts the time of one event of each stream (two mergers) and turns its map by a random rotation; turning
the map and looking the survey up at the turned pixels is the same as turning the survey, and the map stays exact.
"""

from __future__ import annotations

import time

import numpy as np
import pytest
from scipy.stats import chi2, kstest
from scrambles import Scrambled, Survey, event_maps, plant, scramble, simulate_survey

from pipeline import coincidence

pytestmark = pytest.mark.bench

SCRAMBLES = 1000
NIGHTS = 300
PLANTED = 1500
OTHER_SKIES = {
    "clusters of 3": {"companions": 2.0},
    "clusters of 10": {"companions": 9.0},
    "fields differ by a factor of 2": {"field_sigma": 0.7},
    "rate follows depth steeply": {"depth_power": 0.9},
    "three times the rate": {"rate_per_deg2": 0.06},
}


@pytest.fixture(scope="module")
def survey() -> Survey:
    return simulate_survey(1, NIGHTS)


def _interval(count: int, outside: float = 0.05) -> tuple[float, float]:
    """Return Garwood's (1936) interval of a Poisson mean."""
    low = chi2.ppf(outside / 2, 2 * count) / 2 if count else 0.0
    return low, chi2.ppf(1 - outside / 2, 2 * count + 2) / 2


def _spread(got: Scrambled) -> np.ndarray:
    return coincidence.randomised(got.p, got.total, np.random.default_rng(5).random(len(got.p)))


def _gold_per_year(got: Scrambled, counts: np.ndarray) -> float:
    """Return the sum over streams of events a year times the mean of ``counts`` in the stream."""
    return sum(item.events_per_year * counts[got.stream == name].mean() for name, item in coincidence.STREAMS.items())


def _gold(got: Scrambled) -> tuple[int, float]:
    """Return the measured and the stated number of chance gold: events that the survey hardly saw have fewer."""
    limit = coincidence.gold_limit()
    return int((got.p <= limit).sum()), float(np.minimum(limit, coincidence.chance(got.total)).sum())


def test_scrambles(survey: Survey) -> None:
    begin = time.perf_counter()
    got = scramble(survey, event_maps(), SCRAMBLES, seed=2)
    seconds = time.perf_counter() - begin
    limit = coincidence.gold_limit()
    print(
        f"\n{SCRAMBLES} scrambles of {len(got.p) // SCRAMBLES} events in {seconds:.0f} s; {len(survey.ra)} transients"
    )
    for name in coincidence.STREAMS:
        here = got.stream == name
        one = Scrambled(got.stream[here], got.p[here], got.total[here])
        fit = kstest(one.conditional, "uniform").pvalue if len(one.conditional) else np.nan
        with_one, stated = len(one.conditional), coincidence.chance(one.total).sum()
        print(f"  {name:15} events with a candidate {with_one:5} stated {stated:7.1f}  KS p {fit:.3f}")
    conditional, spread = kstest(got.conditional, "uniform"), kstest(_spread(got), "uniform")
    print(
        f"  KS p {conditional.pvalue:.3f} of {len(got.conditional)} events with a candidate, {spread.pvalue:.3f} of all"
    )
    measured, stated = _gold(got)
    low, high = _interval(measured)
    print(f"  gold: measured {measured} ({low:.1f} to {high:.1f}), stated {stated:.2f}")
    expected = _gold_per_year(got, np.minimum(limit, coincidence.chance(got.total)))
    print(f"  gold a year: measured {_gold_per_year(got, got.p <= limit):.2f}, stated {expected:.2f}, never above 1")
    assert conditional.pvalue > 0.01
    assert spread.pvalue > 0.01
    assert low <= stated <= high
    assert expected <= 1.0


def test_planted_counterparts(survey: Survey) -> None:
    streams, chosen = plant(survey, event_maps(), PLANTED, seed=3)
    is_silver = np.array([item in ("silver", "gold") for item in chosen])
    is_gold = np.array([item == "gold" for item in chosen])
    print(f"\n{PLANTED} counterparts seen: silver {is_silver.mean():.3f}, gold {is_gold.mean():.3f}")
    for name in np.unique(streams):
        here = streams == name
        print(f"  {name:15} {here.sum():5} silver {is_silver[here].mean():.3f}  gold {is_gold[here].mean():.3f}")
    assert is_silver.mean() >= 0.9


def test_other_skies() -> None:
    """What is not assumed: groups, fields that differ, depth; p may become too large, and the gold rate stays."""
    print()
    for name, options in OTHER_SKIES.items():
        got = scramble(simulate_survey(6, NIGHTS, **options), event_maps(), SCRAMBLES // 2, seed=7)
        fit = kstest(got.conditional, "uniform")
        measured, stated = _gold(got)
        seen, told = len(got.conditional), coincidence.chance(got.total).sum()
        print(
            f"  {name:32} KS D {fit.statistic:.3f} p {fit.pvalue:.2g}; median p {np.median(got.conditional):.3f}; "
            f"with a candidate {seen / told:.2f} of stated; gold {measured}, stated {stated:.1f}"
        )
        assert measured <= _interval(max(round(stated), 1), 0.002)[1]
