"""Magnitudes and fluxes, against astropy's units and by hand."""

from __future__ import annotations

import astropy.units as u
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import photometry as ph

MAGS = st.floats(-5, 35)


@given(MAGS)
def test_flux_against_astropy(mag: float) -> None:
    oracle = (mag * u.ABmag).to_value(u.nJy)  # with the unrounded zero point, 31.400 mag to 2e-6
    assert ph.flux_from_mag(mag) == pytest.approx(oracle, rel=2e-5)


@given(MAGS)
def test_there_and_back(mag: float) -> None:
    assert ph.mag_from_flux(ph.flux_from_mag(mag)) == pytest.approx(mag, abs=1e-12)


@given(MAGS, st.floats(0, 0.5))
def test_errors_there_and_back(mag: float, error: float) -> None:
    flux = ph.flux_from_mag(mag)
    assert ph.mag_error_from_flux(flux, ph.flux_error_from_mag(mag, error)) == pytest.approx(error, abs=1e-12)


@given(st.floats(15, 22), st.floats(1e-6, 1e-4))
def test_errors_are_the_derivative(mag: float, error: float) -> None:
    step = ph.flux_from_mag(mag - error) - ph.flux_from_mag(mag)
    assert ph.flux_error_from_mag(mag, error) == pytest.approx(step, rel=1e-4)


def test_by_hand() -> None:
    assert ph.flux_from_mag(31.4) == 1.0
    assert ph.flux_from_mag(28.9) == pytest.approx(10.0)
    assert ph.flux_error_from_mag(28.9, 0.1) == pytest.approx(0.1 * np.log(10) / 2.5 * 10)
    assert ph.flux_at_zero_point([100.0, -100.0], 26.4) == pytest.approx([10000.0, -10000.0])


def test_what_is_not_positive_has_no_magnitude() -> None:
    with np.errstate(all="raise"):
        assert np.isnan(ph.mag_from_flux([0.0, -1.0, np.nan])).all()
        assert np.isnan(ph.mag_error_from_flux([0.0, -1.0, np.nan], [1.0, 1.0, 1.0])).all()


@given(st.floats(14, 22), st.floats(0, 0.3), st.floats(-1e5, 1e5), st.floats(0, 1e4))
def test_total_flux(mag: float, mag_error: float, flux: float, error: float) -> None:
    total, total_error = ph.add_reference(flux, error, mag, mag_error)
    assert total == ph.flux_from_mag(mag) + flux
    assert total_error**2 == pytest.approx(error**2 + ph.flux_error_from_mag(mag, mag_error) ** 2, rel=1e-12)
    assert np.isnan(ph.add_reference(flux, error, np.nan, mag_error)).all()
    assert np.isnan(ph.add_reference(np.nan, error, mag, mag_error)).all()
