"""Error circles: the Fisher distribution against scipy and quadrature, and what the grid of pixels makes of it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats

from pipeline import healpix, skymap
from pipeline.errors import CatalogError
from pipeline.skymap.circle import concentration, level_within

CIRCLES = [
    (1 / 60, 0.9, 20.0),  # Swift BAT
    (1.4 / 3600, 0.9, -89.9999),  # Swift XRT, beside the pole
    (0.5, 0.5, 41.81),  # where belt and caps meet
    (15.0, 0.68, -60.0),  # GBM
    (60.0, 0.9, 89.0),
    (1e-4, 0.9, 30.0),
    (90.0, 0.500002, 50.0),
    (60.0, 0.26, 3.0),  # hardly more than a uniform sky
    (175.0, 0.9999, 0.0),
]


def draws(kappa: float, dec: float, n: int = 40_000) -> tuple[np.ndarray, np.ndarray]:
    """Return the level of drawn positions about (359.9, dec), and their order-29 cells."""
    rng = np.random.default_rng(3)
    level = rng.random(n)
    theta = 2 * np.arcsin(np.sqrt(-np.log1p(level * math.expm1(-2 * kappa)) / kappa / 2))
    centre = SkyCoord(359.9 * u.deg, dec * u.deg)
    places = centre.directional_offset_by(rng.uniform(0, 360, n) * u.deg, theta * u.rad)
    return level, healpix.ang2pix(29, places.ra.deg, places.dec.deg)


@pytest.mark.parametrize(("radius", "containment", "dec"), CIRCLES)
def test_levels_are_those_of_the_distribution(radius: float, containment: float, dec: float) -> None:
    ours = skymap.fisher_skymap("GRB 1", 58000.0, 359.9, dec, radius, containment)
    assert (ours.event, ours.event_mjd, ours.has_distance) == ("grb_1", 58000.0, False)
    assert skymap.mass_in(ours, healpix.ALL_SKY) == pytest.approx(1.0, abs=1e-12)
    assert ours.area_deg2.sum() == pytest.approx(skymap.SKY_DEG2)
    kappa = concentration(radius, containment)
    level, cells = draws(kappa, dec)
    found, density = skymap.levels(ours, cells)
    off = found - level
    assert np.abs(off).max() < 0.0065
    assert np.abs(off).mean() < 0.0013
    assert abs(off.mean()) < 1e-4
    expected = kappa / (2 * math.pi * -math.expm1(-2 * kappa)) * (1 + level * math.expm1(-2 * kappa))
    ratio = density[level < 0.9999] / (expected * (math.pi / 180) ** 2)[level < 0.9999]
    assert ratio.min() > 0.5
    assert ratio.max() < 2.0
    cap = 2 * math.pi * (1 - math.cos(math.radians(radius))) * (180 / math.pi) ** 2
    if radius > 0.01:  # below, a cosine has no digits left
        assert skymap.region_area_deg2(ours, containment) == pytest.approx(cap, rel=0.003)
    assert len(ours.start) < 300_000


@given(st.floats(1e-3, 179.0), st.floats(1e-3, 0.999))
def test_concentration_holds_the_probability_within_the_radius(radius: float, containment: float) -> None:
    kappa = concentration(radius, containment)
    uniform = math.sin(math.radians(radius) / 2) ** 2
    if containment <= uniform:
        assert math.isnan(kappa)
    elif containment > uniform * (1 + 2e-6):
        assert level_within(kappa, radius) == pytest.approx(containment, rel=1e-9)
        assert level_within(kappa, 180.0) == 1.0


@pytest.mark.parametrize(("radius", "containment"), [(5.0, 0.9), (60.0, 0.5), (0.2, 0.39)])
def test_distribution_is_that_of_scipy(radius: float, containment: float) -> None:
    kappa = concentration(radius, containment)
    fisher = stats.vonmises_fisher([0, 0, 1], kappa)

    def per_angle(theta: float) -> float:
        return float(fisher.pdf([math.sin(theta), 0, math.cos(theta)]) * 2 * math.pi * math.sin(theta))

    held, _ = integrate.quad(per_angle, 0, math.radians(radius), epsabs=1e-12)
    assert held == pytest.approx(containment, abs=1e-9)


def test_systematic_error_is_added_in_quadrature() -> None:
    wide = skymap.fisher_skymap("a", None, 10, 20, 4.0, 0.68, systematic_deg=3.0)
    assert wide.digest == skymap.fisher_skymap("a", None, 10, 20, 5.0, 0.68).digest


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ((10, 20, 0.0), "cannot hold"),
        ((10, 20, -1.0), "cannot hold"),
        ((10, 20, math.nan), "not understood"),
        ((10, 91, 1.0), "not understood"),
        ((math.inf, 20, 1.0), "not understood"),
        ((10, 20, 1.0, 1.0), "cannot hold 1 "),
        ((10, 20, 1.0, 0.0), "cannot hold 0 "),
        ((10, 20, 90.0, 0.5), "cannot hold 0.5"),
        ((10, 20, 90.0, 0.5000001), "cannot hold 0.5"),
        ((10, 20, 1e-7), "cannot hold"),
        ((10, 20, 180.0, 0.9), "cannot hold"),
        ((10, 20, 1.0, 0.9, -1.0), "not understood"),
    ],
)
def test_what_is_no_circle_is_refused(numbers: tuple[float, ...], message: str) -> None:
    with pytest.raises(CatalogError, match=message) as caught:
        skymap.fisher_skymap("grb1", None, *numbers)
    assert "grb1" in str(caught.value)
    assert "\n" not in str(caught.value)
