"""Time scales and dates, against astropy and the calendar."""

from __future__ import annotations

import datetime

import numpy as np
import pytest
from astropy.time import Time
from hypothesis import given
from hypothesis import strategies as st

from pipeline import night

LEAP = 57754.0  # 2017-01-01, after the last leap second


@pytest.mark.parametrize("name", ["utc_to_tai", "tai_to_utc"])
def test_against_astropy_over_all_leap_seconds(name: str) -> None:
    mjd = np.concatenate([np.linspace(41318, 61500, 4001), LEAP + np.linspace(-1.5, 1.5, 301), [53735.9999, 57203.5]])
    scales = ("utc", "tai") if name == "utc_to_tai" else ("tai", "utc")
    oracle = getattr(Time(mjd, format="mjd", scale=scales[0]), scales[1]).mjd
    assert np.abs(getattr(night, name)(mjd) - oracle).max() < 2e-11  # days; a double at MJD 60000 resolves 7e-12


def test_the_kernel_as_plain_python() -> None:
    mjd = np.array([np.nan, np.inf, -np.inf, 41316.9, 41317.0, LEAP - 1.0, LEAP - 0.25, LEAP, 61109.125])
    plain = night._utc_to_tai.py_func(mjd, *night._leap_seconds())
    assert np.array_equal(plain, night.utc_to_tai(mjd), equal_nan=True)
    assert np.isnan(plain[:4]).all()
    assert plain[6] == pytest.approx(LEAP - 0.25 + 36.75 / 86400, abs=1e-11)  # three quarters of 86,401 s


def test_shapes_are_kept() -> None:
    assert night.utc_to_tai(58000.5).shape == ()
    assert night.utc_to_tai(np.full((2, 3), 58000.5)).shape == (2, 3)


def test_the_offset_is_37_seconds_since_2017() -> None:
    assert night.utc_to_tai(58451.0) - 58451.0 == pytest.approx(37 / 86400, abs=1e-11)
    assert night.utc_to_tai(57753.0) - 57753.0 == pytest.approx(36 / 86400, abs=1e-11)


@given(st.floats(41500, 80000))
def test_there_and_back(mjd: float) -> None:
    assert abs(night.tai_to_utc(night.utc_to_tai(mjd)) - mjd) < 3e-11


@given(st.lists(st.floats(41400, 80000), min_size=2, max_size=20))
def test_utc_to_tai_is_monotonic(mjd: list[float]) -> None:
    assert (np.diff(night.utc_to_tai(np.sort(mjd))) >= 0).all()


def test_what_is_no_time_is_nan_and_nothing_is_empty() -> None:
    bad = np.array([np.nan, np.inf, -np.inf, 30000.0])
    assert np.isnan(night.utc_to_tai(bad)).all()
    assert np.isnan(night.tai_to_utc(bad)).all()
    assert night.utc_to_tai([]).shape == night.tai_to_utc([]).shape == night.date_number([]).shape == (0,)


def test_mjd_from_jd_keeps_the_last_digit() -> None:
    assert night.mjd_from_jd(2458451.7519213) == 2458451.7519213 - 2400000.5
    assert night.mjd_from_jd([2458451.7519213])[0] == pytest.approx(58451.2519213, abs=1e-9)


@given(st.dates(datetime.date(1900, 1, 1), datetime.date(2199, 12, 31)), st.floats(0, 0.9999))
def test_dates_against_the_calendar(day: datetime.date, fraction: float) -> None:
    number = day.year * 10000 + day.month * 100 + day.day
    mjd = (day - datetime.date(1858, 11, 17)).days
    assert night.date_number(mjd + fraction) == number
    assert night.mjd_of_date(number) == mjd


def test_date_numbers_have_the_declared_type() -> None:
    found = night.date_number(np.array([57754.0, 58451.99]))
    assert found.dtype == np.int32
    assert found.tolist() == [20170101, 20181129]
