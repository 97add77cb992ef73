"""Distances against astropy's Planck18, and the rules of which distance of a galaxy holds."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.cosmology import Planck18
from hypothesis import given
from hypothesis import strategies as st

from pipeline import cosmology

REDSHIFTS = np.geomspace(1e-6, 10, 500)
NONE = [np.nan, 0.0, -0.0, -1e-3, -1.0, -2.0, np.inf, -np.inf]


def test_distances_equal_astropy() -> None:
    ours = cosmology.luminosity_distance_mpc(REDSHIFTS)
    np.testing.assert_allclose(ours, Planck18.luminosity_distance(REDSHIFTS).value, rtol=2e-9)
    ours = cosmology.angular_diameter_distance_mpc(REDSHIFTS)
    np.testing.assert_allclose(ours, Planck18.angular_diameter_distance(REDSHIFTS).value, rtol=2e-9)
    far = np.array([20.0, 300.0, 1100.0])
    np.testing.assert_allclose(
        cosmology.luminosity_distance_mpc(far), Planck18.luminosity_distance(far).value, rtol=1e-8
    )
    ours = cosmology.distance_modulus(Planck18.luminosity_distance(REDSHIFTS).value)
    np.testing.assert_allclose(ours, Planck18.distmod(REDSHIFTS).value, atol=1e-9)


def test_redshift_and_distance_are_inverse() -> None:
    z = np.concatenate([REDSHIFTS, [50.0, 1099.0]])
    again = cosmology.redshift_at_luminosity_distance(cosmology.luminosity_distance_mpc(z))
    np.testing.assert_allclose(again, z, rtol=1e-12)


@given(st.lists(st.floats(1e-6, 10), min_size=1, max_size=20))
def test_every_redshift_by_itself(values: list[float]) -> None:
    """Vectorised, and no value depends on what stands beside it."""
    together = cosmology.luminosity_distance_mpc(values)
    assert together.tolist() == [float(cosmology.luminosity_distance_mpc(z)) for z in values]
    np.testing.assert_allclose(together, Planck18.luminosity_distance(values).value, rtol=1e-6)


def test_what_is_no_redshift_or_distance_is_nan_without_a_warning() -> None:
    with np.errstate(all="raise"):
        for function in (
            cosmology.luminosity_distance_mpc,
            cosmology.angular_diameter_distance_mpc,
            cosmology.redshift_at_luminosity_distance,
            cosmology.distance_modulus,
        ):
            assert np.isnan(function(NONE)).all(), function.__name__
            assert np.isfinite(function([np.nan, 0.5])).tolist() == [False, True]
            assert function(np.full((2, 3), 0.1)).shape == (2, 3)
            assert function([]).shape == (0,)
        assert np.isnan(cosmology.separation_kpc(1.0, NONE)).all()
        assert np.isnan(cosmology.reach_arcsec(30.0, NONE)).all()
        assert np.isnan(cosmology.luminosity_distance_mpc(1101.0))
        assert np.isnan(cosmology.redshift_at_luminosity_distance(1e9))


def test_kpc_use_the_angular_diameter_distance() -> None:
    """NGC3052, 12.579 arcsec off, as the field's own message has it: 3.432 kpc."""
    assert cosmology.separation_kpc(12.579, 56.2777) == pytest.approx(3.432, abs=5e-4)
    assert cosmology.separation_kpc(12.579, 57.2517) != pytest.approx(3.432, abs=5e-3)
    expected = Planck18.kpc_proper_per_arcmin(0.3).value * 2.0
    assert cosmology.separation_kpc(120.0, cosmology.angular_diameter_distance_mpc(0.3)) == pytest.approx(expected)
    assert cosmology.separation_kpc(cosmology.reach_arcsec(30.0, 50.0), 50.0) == pytest.approx(30.0)
    assert cosmology.reach_arcsec(30.0, [0.01, 0.34, 0.35]).tolist() == pytest.approx([18000, 18000, 17679.8], abs=0.1)


def test_which_distance_holds() -> None:
    """Below z 0.02 the catalog's, its error unknown where none is given; else the redshift's."""
    flow = Planck18.luminosity_distance
    rows = [
        # D_L, error, D_A, z -> D_L, error, D_A
        ((57.2517, np.nan, 56.2777, np.nan), (57.2517, np.nan, 56.2777)),
        ((40.0, 2.0, np.nan, 0.01), (40.0, 2.0, 40.0 / 1.01**2)),
        ((0.77, np.nan, np.nan, -0.001), (0.77, np.nan, 0.77 / (1 + 0.77 * 67.66 / 299792.458) ** 2)),
        ((999.0, 50.0, 1.0, 0.1), (flow(0.1).value, 50.0, flow(0.1).value / 1.1**2)),
        ((999.0, np.nan, 1.0, 0.1), (flow(0.1).value, 5.58456936, flow(0.1).value / 1.1**2)),
        ((np.nan, np.nan, np.nan, 0.01), (flow(0.01).value, 4.54655996, flow(0.01).value / 1.01**2)),
        ((0.0, 0.0, 0.0, 0.01), (flow(0.01).value, 4.54655996, flow(0.01).value / 1.01**2)),
        ((-999.0, -999.0, -999.0, -999.0), (np.nan, np.nan, np.nan)),
        ((np.nan, 3.0, 20.0, np.nan), (np.nan, np.nan, 20.0)),
    ]
    told, expected = (np.array(column) for column in zip(*rows, strict=True))
    found = cosmology.galaxy_distances(*told.T)
    np.testing.assert_allclose(found.luminosity_mpc, expected[:, 0], rtol=1e-7)
    np.testing.assert_allclose(found.luminosity_err_mpc, expected[:, 1], rtol=1e-7)
    np.testing.assert_allclose(found.angular_mpc, expected[:, 2], rtol=1e-6)
    only = cosmology.galaxy_distances(redshift=[0.01, np.nan])
    np.testing.assert_allclose(only.luminosity_mpc, [flow(0.01).value, np.nan], rtol=1e-7)


def test_a_peculiar_velocity_shifts_the_distance_by_its_error() -> None:
    z = np.array([0.001, 0.05, 1.0])
    shifted = Planck18.luminosity_distance((1 + z) * (1 + 1e-3 * 300 / 299792.458) - 1).value
    expected = (shifted - Planck18.luminosity_distance(z).value) * 1e3
    np.testing.assert_allclose(cosmology.galaxy_distances(redshift=z).luminosity_err_mpc, expected, rtol=1e-3)
