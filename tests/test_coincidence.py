"""Chance coincidence: closed forms, Monte Carlo, and scrambles of a small survey."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2, kstest, poisson
from scrambles import Map, Survey, circle, event_maps, placed, plant, scramble, simulate_survey

from pipeline import coincidence, healpix
from pipeline.coincidence import Compensator, Counterpart
from pipeline.errors import InputError

RATE, AREA, WINDOW = 0.02, 90.0, 3.0
PROMPT = Counterpart(window_day=3.0, half_life_day=0.5)


# ------------------------------------------------------------------------------------------------- closed forms
def test_uniform_sky_has_uniform_p_values() -> None:
    """Events on a survey that looks everywhere, always: the closed form against drawn transients."""
    rng = np.random.default_rng(1)
    p = []
    for _ in range(4000):
        n = rng.poisson(RATE * AREA * WINDOW)
        best = np.min(rng.uniform(0, AREA, n) * rng.uniform(0, WINDOW, n), initial=np.inf)
        p.append(coincidence.chance(coincidence.expected_uniform(best, RATE, AREA, WINDOW)) if n else np.nan)
    total = np.full(len(p), RATE * AREA * WINDOW)
    values = np.array(p, dtype=float)
    assert np.isnan(values).sum() == pytest.approx(4000 * np.exp(-total[0]), abs=4 * np.sqrt(4000 * np.exp(-total[0])))
    assert kstest(coincidence.randomised(values, total, rng.random(len(p))), "uniform").pvalue > 0.01


def test_expected_number_below_a_hyperbola_is_its_integral() -> None:
    s = np.array([0.3, 10.0, AREA * WINDOW, 1e6])
    area = (np.arange(200_000) + 0.5) / 200_000 * AREA
    integral = [np.minimum(item / area, WINDOW).mean() * AREA for item in s]
    assert coincidence.expected_uniform(s, RATE, AREA, WINDOW) == pytest.approx(RATE * np.array(integral), rel=1e-4)
    assert coincidence.expected_uniform([0.0, np.nan], RATE, AREA, WINDOW)[0] == 0.0
    assert np.isnan(coincidence.expected_uniform(np.nan, RATE, AREA, WINDOW))


def test_before_the_event_nothing_coincides() -> None:
    assert np.isnan(coincidence.statistic_uniform([5.0, np.nan], [-0.1, 1.0])).all()
    assert coincidence.statistic_uniform(5.0, 0.2) == pytest.approx(1.0)


def test_sum_over_elements_is_the_closed_form() -> None:
    """The elements of a uniform survey, ranked by area times delay, expect what the formula says."""
    area, delay = np.meshgrid((np.arange(600) + 0.5) / 600 * AREA, (np.arange(600) + 0.5) / 600 * WINDOW)
    weight = np.full(area.size, RATE * AREA * WINDOW / area.size)
    none = np.zeros(0)
    found = Compensator(1.0 / (area * delay).ravel(), weight, none, none.astype(np.int64))
    s = np.array([3.0, 12.0, 40.0, 200.0])
    assert found.expected_at(1.0 / s) == pytest.approx(coincidence.expected_uniform(s, RATE, AREA, WINDOW), rel=4e-3)
    assert found.total == pytest.approx(RATE * AREA * WINDOW)


def test_small_probabilities_keep_their_digits() -> None:
    assert coincidence.chance(1e-18) == pytest.approx(1e-18, rel=1e-12)
    assert np.isnan(coincidence.chance(np.nan))


# ------------------------------------------------------------------------------------------------- elements
def _one_cell(times: list[float], rates: list[float]) -> coincidence.Visits:
    visits, _ = coincidence.make_visits(6, np.full(len(times), 77), np.array(times))
    return coincidence.Visits(6, visits.key, visits.mjd, np.array(rates))


def test_elements_of_one_cell_by_hand() -> None:
    visits = _one_cell([58999.9, 59000.1, 59001.1], [9.0, 0.02, 0.5])
    found = coincidence.compensate(
        visits, np.array([77, 77]), np.array([0.1, 0.3]), np.array([2.0, 1.0]), 59000.0, PROMPT
    )
    first = 0.8 * 2 ** (-0.1 / 0.5)
    second = (1 - first) * 0.8 * 2 ** (-1.1 / 0.5)
    assert found.total == pytest.approx(0.4 * 0.52)
    assert found.seen == pytest.approx((0.2 + 0.3) * (first + second))
    rows = visits.rows([77, 77, 77, 78], [59000.1, 59001.1, 58999.9, 59000.1])
    assert rows.tolist() == [1, 2, 0, -1]
    rank = found.rank_of([2.0, 1.0, 2.0, 2.0], rows)
    assert rank[:2] == pytest.approx([2.0 * first / 0.02, second / 0.5])
    assert np.isnan(rank[2:]).all()
    assert found.expected_at(rank)[:2] == pytest.approx([0.1 * 0.02, found.total])
    assert np.isnan(found.expected_at(rank)[2:]).all()
    assert found.expected_for_recovery(1.0) == pytest.approx(found.total)
    assert found.expected_for_recovery(0.3) == pytest.approx(0.1 * 0.02)
    assert found.expected_for_recovery(0.6) == pytest.approx(0.4 * 0.02)


@pytest.mark.parametrize("onset", [0.0, 3.0])
def test_first_seen_is_what_drawn_counterparts_do(onset: float) -> None:
    model = Counterpart(window_day=6.0, half_life_day=1.5, onset_day=onset)
    times = [59000.3, 59000.35, 59002.3, 59005.0]
    visits = _one_cell(times, [1.0] * 4)
    rows, ends = visits.window(np.array([77]), 59000.0, 59006.0)
    wanted = coincidence.first_seen(visits, rows, ends, 59000.0, model)
    rng = np.random.default_rng(2)
    up = 59000.0 + rng.uniform(0, onset, 200_000) if onset else np.full(200_000, 59000.0)
    sees = np.stack([(rng.random(len(up)) < 0.8 * 2 ** (-(t - 59000.0) / 1.5)) & (up <= t) for t in times], axis=1)
    first = np.where(sees.any(axis=1), sees.argmax(axis=1), -1)
    drawn = np.array([(first == i).mean() for i in range(4)])
    assert wanted == pytest.approx(drawn, abs=4e-3)


@given(st.integers(0, 10), st.lists(st.integers(0, 1 << 20), min_size=1, max_size=20), st.integers(1, 1 << 44))
def test_pieces_keep_area_and_lie_in_their_cell(order: int, begins: list[int], length: int) -> None:
    start = np.array(begins, dtype=np.int64) << 40
    stop = np.minimum(start + length, 12 << 58)
    start, stop = start[stop > start], stop[stop > start]
    if order > 6:
        stop = np.minimum(stop, start + (1 << 2 * (29 - order)) * 50)
    interval, cell, area = coincidence.pieces_of(start, stop, order)
    whole = np.bincount(interval, weights=area, minlength=len(start))
    assert whole == pytest.approx((stop - start) * healpix.cell_area_deg2(29), rel=1e-12)
    assert (area <= healpix.cell_area_deg2(order) * (1 + 1e-12)).all()
    shift = 2 * (29 - order)
    assert ((cell + 1) << shift > start[interval]).all()
    assert (cell << shift < stop[interval]).all()


def test_an_interval_over_many_cells_is_cut_at_each() -> None:
    size = 4 ** (29 - 6)
    interval, cell, area = coincidence.pieces_of(np.array([size // 2]), np.array([3 * size + size // 4]), 6)
    assert interval.tolist() == [0, 0, 0, 0] and cell.tolist() == [0, 1, 2, 3]
    assert area / healpix.cell_area_deg2(6) == pytest.approx([0.5, 1.0, 1.0, 0.25])


def test_no_visit_means_nothing_is_expected_and_nothing_ranks() -> None:
    visits = _one_cell([59000.1], [0.1])
    found = coincidence.compensate(visits, np.array([5]), np.array([1.0]), np.array([1.0]), 59000.0, PROMPT)
    assert found.total == found.seen == found.expected_for_recovery(0.95) == 0.0
    assert np.isnan(found.rank_of([1.0], [0])).all()
    empty, row = coincidence.make_visits(6, np.array([-1, 3]), np.array([59000.0, np.nan]))
    assert len(empty.key) == 0 and row.tolist() == [-1, -1]
    assert empty.rows([3], [59000.0]).tolist() == [-1]


def test_marks_of_one_change_nothing_and_others_are_summed() -> None:
    rng = np.random.default_rng(3)
    none = np.zeros(0)
    found = Compensator(rng.exponential(1.0, 300), rng.exponential(0.01, 300), none, none.astype(np.int64))
    rank = rng.exponential(1.0, 20)
    assert found.expected_marked(rank, np.ones(5)) == pytest.approx(found.expected_at(rank))
    marks = rng.lognormal(0.0, 1.0, 40)
    brute = [(found.expected * (found.rank[:, None] * marks >= item).mean(axis=1)).sum() for item in rank]
    assert found.expected_marked(rank, marks) == pytest.approx(brute)
    assert np.isnan(found.expected_marked([np.nan], marks)).all()


# ------------------------------------------------------------------------------------------------- rates
def test_rates_are_found_again() -> None:
    rng = np.random.default_rng(4)
    cells = np.repeat(np.arange(400), 60)
    visits, _ = coincidence.make_visits(6, cells, np.tile(59000.2 + np.arange(60), 400))
    where, when = rng.integers(0, 8, 400)[visits.cell], rng.integers(0, 3, len(visits.key))
    truth = 0.5 * np.array([0.3, 0.5, 1, 1, 1, 2, 3, 4])[where] * np.array([1.0, 0.2, 2.5])[when]
    counts = rng.poisson(truth)
    row = np.repeat(np.arange(len(counts)), counts)
    fitted = coincidence.fit_rates(visits, row, [where, when]).rate_per_deg2 * healpix.cell_area_deg2(6)
    assert fitted.sum() == pytest.approx(counts.sum())
    for group in np.unique(where * 3 + when):
        here = where * 3 + when == group
        assert fitted[here].mean() == pytest.approx(truth[here].mean(), rel=0.2)
        assert np.ptp(fitted[here]) < 1e-12


def test_fitted_rates_have_the_counts_of_every_label() -> None:
    """The condition of the Poisson maximum, where the prior weighs nothing."""
    rng = np.random.default_rng(8)
    visits, _ = coincidence.make_visits(6, np.arange(3000), np.full(3000, 59000.2))
    labels = [rng.integers(0, 6, 3000), rng.integers(0, 4, 3000) * (np.arange(3000) % 3 > 0)]
    row = rng.choice(3000, 2500, p=np.linspace(1, 9, 3000) / np.linspace(1, 9, 3000).sum())
    fitted = coincidence.fit_rates(visits, row, labels, prior_counts=1e-9).rate_per_deg2 * healpix.cell_area_deg2(6)
    counts = np.bincount(row, minlength=3000)
    for label in labels:
        assert np.bincount(label, weights=fitted) == pytest.approx(np.bincount(label, weights=counts), rel=1e-5)


def test_few_counts_stay_near_the_overall_rate() -> None:
    visits, _ = coincidence.make_visits(6, np.arange(1000), np.full(1000, 59000.2))
    label = np.where(np.arange(1000) < 5, 1, 0)
    row = np.concatenate([[0, 1, 2], np.arange(100, 300)])  # three counts in five visits: 3 times the rate, by chance
    fitted = coincidence.fit_rates(visits, row, [label]).rate_per_deg2
    assert 1.0 < fitted[0] / fitted[500] < 1.7
    assert (fitted > 0).all()


def test_no_candidates_no_rate() -> None:
    visits = _one_cell([59000.1], [1.0])
    with pytest.raises(InputError, match="no rate can be measured from 1 visits and 0 candidates; state a rate"):
        coincidence.fit_rates(visits, np.array([-1]), [])
    with pytest.raises(InputError, match="order 13"):
        coincidence.make_visits(13, np.array([1]), np.array([59000.0]))


def test_a_neighbouring_field_is_no_second_look() -> None:
    """Field 1 covers the cell, field 2 a corner of it, minutes later: the time since the last visit is field 1's."""
    mjd = np.array([59000.1, 59000.2, 59002.1, 59002.115])
    field, share = np.array([1, 2, 1, 2]), np.array([0.9, 0.2, 0.9, 0.2])
    visits, row = coincidence.make_visits(6, np.full(4, 9), mjd)
    _, _, gap, covered, _ = coincidence.visit_labels(visits, row, field, share, np.full(4, 20.5))
    assert gap.tolist() == [-1, -1, 2, 2]
    assert covered.tolist() == [6, 2, 6, 2]
    both, at = coincidence.make_visits(6, np.full(3, 9), np.array([59000.1, 59002.1005, 59002.1]))
    for order in ([0, 1, 2], [0, 2, 1]):  # field 1 again, and field 2 for the first time, within one visit
        labels = coincidence.visit_labels(
            both, at[order], np.array([1, 2, 1])[order], np.array([0.9, 0.2, 0.9])[order], np.full(3, np.nan)
        )
        assert labels[2].tolist() == [-1, 2]
        assert labels[3].tolist() == [6, 6]
    one, at = coincidence.make_visits(6, np.full(2, 9), np.array([59000.101, 59000.102]))
    assert len(one.key) == 1 and at.tolist() == [0, 0] and one.mjd.tolist() == [59000.102]


def test_uniform_visits_hold_the_stated_rate() -> None:
    visits = coincidence.uniform_visits(6, np.array([3, 9]), 59000.0, 59002.0, 31.0)
    one_day = (visits.mjd > 59000.0) & (visits.mjd < 59001.0) & (visits.cell == 9)
    assert visits.rate_per_deg2[one_day].sum() == pytest.approx(31.0)


# ------------------------------------------------------------------------------------------------- selections
def test_gold_of_all_streams_is_one_a_year() -> None:
    limit = coincidence.gold_limit()
    rates = [item.events_per_year for item in coincidence.STREAMS.values()]
    assert sum(rates) * limit == pytest.approx(1.0)
    assert coincidence.joint_far_per_year(limit) == pytest.approx(1.0)
    assert np.isnan(coincidence.joint_far_per_year([np.nan])).all()


def test_selections_are_nested() -> None:
    p = np.array([1e-6, 0.01, 0.5, np.nan, 1e-6, 0.01, 0.9])
    level = np.array([0.2, 0.2, 0.2, 0.2, 0.2, 0.95, 0.95])
    candidate = np.array([1, 1, 1, 1, 0, 1, 1], dtype=bool)
    got = coincidence.select(candidate, level, p, 0.05).tolist()
    assert got == ["gold", "silver", "bronze", "bronze", None, "silver", None]
    assert coincidence.select([True], [0.5], [1e-4], 1e-9).tolist() == ["gold"]


def test_streams_of_one_observatory_stand_for_each_other() -> None:
    assert coincidence.stream_of("swift-xrt").name == "swift-bat"
    assert coincidence.stream_of("icecube-cascade").name == "icecube-bronze"
    assert coincidence.stream_of("svom", "grb").name == "fermi-gbm"
    with pytest.raises(InputError, match="no counterparts are known of events of stream voevent"):
        coincidence.stream_of("voevent", "other")


# ------------------------------------------------------------------------------------------------- scrambles
@pytest.fixture(scope="module")
def survey() -> Survey:
    return simulate_survey(11, 70, order=5, per_night=180, rate_per_deg2=0.05)


@pytest.fixture(scope="module")
def maps() -> list[Map]:
    return event_maps()


def test_turning_a_map_keeps_what_it_holds(survey: Survey) -> None:
    sky = circle("fermi-gbm", 4.7, 7)
    assert sky.density.sum() * sky.area_deg2 == pytest.approx(0.99, abs=0.002)
    turned = [placed(survey, sky, turn, survey.span_mjd[0] + 35.0) for turn in (np.eye(3), np.eye(3)[[0, 2, 1]])]
    assert turned[0].total > 0
    assert turned[0].total != turned[1].total


def test_p_values_of_scrambles_are_uniform(survey: Survey, maps: list[Map]) -> None:
    got = scramble(survey, maps, 150, seed=12)
    assert len(got.conditional) > 150
    assert kstest(got.conditional, "uniform").pvalue > 0.01
    spread = np.random.default_rng(13).random(len(got.p))
    assert kstest(coincidence.randomised(got.p, got.total, spread), "uniform").pvalue > 0.01
    for limit in (coincidence.gold_limit(), 0.05):
        stated = np.minimum(limit, coincidence.chance(got.total)).sum()
        measured = int((got.p <= limit).sum())
        low, high = poisson_interval(measured)
        assert low <= stated <= high


def test_planted_counterparts_are_silver(survey: Survey, maps: list[Map]) -> None:
    streams, chosen = plant(survey, maps, 250, seed=14)
    assert len(np.unique(streams)) == 6
    assert np.mean([item in ("silver", "gold") for item in chosen]) >= 0.9


def poisson_interval(count: int, outside: float = 0.01) -> tuple[float, float]:
    """Return Garwood's (1936) interval of a Poisson mean."""
    low = chi2.ppf(outside / 2, 2 * count) / 2 if count else 0.0
    return low, chi2.ppf(1 - outside / 2, 2 * count + 2) / 2


def test_transients_in_groups_make_p_too_large_never_too_small() -> None:
    """Jensen: a random intensity leaves more events without a candidate than its mean says."""
    rng = np.random.default_rng(5)
    groups = rng.poisson(0.5, 20_000)
    best = np.array([rng.exponential(1.0, n).min(initial=np.inf) * 1.0 for n in groups])
    expected = 0.5 * (1 - np.exp(-best)) * 4.0  # four transients at each place: four times as many expected
    p = coincidence.chance(expected[np.isfinite(best)])
    for limit in (0.01, 0.1, 0.3):
        assert (p <= limit).sum() / len(groups) < limit
    assert poisson.sf(0, 0.5) == pytest.approx(np.isfinite(best).mean(), abs=0.02)
