"""Luminosities against astropy units, the extinction table, galactic latitude, and the luminosity stage."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from astropy import constants, units
from astropy.coordinates import SkyCoord
from hypothesis import given
from hypothesis import strategies as st

from pipeline import luminosity, surveys
from pipeline.photometry import flux_from_mag
from pipeline.stages import luminosity as stage
from pipeline.stages.groups import apply

FLUXES = st.floats(-1e9, 1e9)


def alerts(**given: list) -> pa.Table:
    """The kilonova of story 1, and whatever is given otherwise."""
    n = len(next(iter(given.values()))) if given else 1
    columns = {
        **{"ra": [148.6188113] * n, "dec": [-18.6363575] * n, "band": ["r"] * n},
        **{"flux_njy": [float(flux_from_mag(18.25))] * n, "diff_mag": [18.25] * n, "diff_err_mag": [0.07] * n},
        **{"host_distance_mpc": [57.2517] * n, "host_distance_err_mpc": [None] * n, "host_redshift": [None] * n},
    } | given
    kinds = {"band": pa.string()}
    return pa.table({name: pa.array(column, kinds.get(name, pa.float64())) for name, column in columns.items()})


class EvenDust:
    """The same reddening everywhere north of the equator, unknown south of it."""

    digest = "1" * 64

    def ebv_mag(self, ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
        return np.where(dec > 0, 0.1, np.nan)


# ------------------------------------------------------------------------------------------------- formulas
def test_absolute_magnitude_of_story_1() -> None:
    assert luminosity.absolute_mag(18.25, 57.2517) == pytest.approx(-15.539, abs=5e-4)
    assert luminosity.absolute_mag(18.25, 57.2517, np.nan, np.nan) == luminosity.absolute_mag(18.25, 57.2517)
    assert luminosity.absolute_mag(18.25, 57.2517, 0.1, 0.3) == pytest.approx(-15.539 - 0.3 + 0.1035, abs=1e-3)
    assert np.isnan(luminosity.absolute_mag([np.nan, 18.0, 18.0, 18.0], [50.0, np.nan, 0.0, -1.0])).all()


@given(FLUXES, st.floats(300, 1100), st.floats(1e-3, 1e5), st.floats(0, 5))
def test_nu_lnu_equals_astropy_units(flux: float, wavelength: float, distance: float, extinction: float) -> None:
    frequency = constants.c / (wavelength * units.nm)
    expected = 4 * np.pi * (distance * units.Mpc) ** 2 * frequency * (flux * units.nJy)
    ours = luminosity.nu_lnu_erg_s(flux, wavelength, distance, extinction)
    unreddened = expected.to_value(units.erg / units.s) * 10 ** (0.4 * extinction)
    assert float(ours) == pytest.approx(unreddened, rel=1e-9, abs=0)
    assert np.sign(ours) == np.sign(flux)


def test_magnitude_and_luminosity_tell_the_same() -> None:
    """At 10 pc an AB magnitude of 0 is 3631 Jy."""
    at_10_pc = luminosity.nu_lnu_erg_s(flux_from_mag(0.0), 500.0, 1e-5)
    expected = (4 * np.pi * (10 * units.pc) ** 2 * 3631 * units.Jy * constants.c / (500 * units.nm)).to_value("erg/s")
    assert at_10_pc == pytest.approx(expected, rel=1e-3)  # the zero point is rounded to 31.4
    assert luminosity.absolute_mag(0.0, 1e-5) == pytest.approx(0.0, abs=1e-12)


def test_errors_stay_unknown() -> None:
    err = luminosity.absolute_err_mag([0.07, 0.07, np.nan, 0.07], [50.0, 50.0, 50.0, np.nan], [np.nan, 5.0, 5.0, 5.0])
    assert np.isnan(err).tolist() == [True, False, True, True]
    assert err[1] == pytest.approx(np.hypot(0.07, 0.1 * 5 / np.log(10)))


def test_the_extinction_table() -> None:
    """LSST as in the paper; ZTF, which it has not, between the bands around it."""
    assert [item.extinction for item in luminosity.LSST.values()] == [4.145, 3.237, 2.273, 1.684, 1.323, 1.088]
    around = {"g": [(468.6, 3.303), (484.2, 3.237)], "r": [(621.5, 2.271), (643.9, 2.176)]}
    around["i"] = [(782.1, 1.595), (867.9, 1.322)]
    for band, item in luminosity.ZTF.items():
        expected = np.interp(item.wavelength_nm, *zip(*around[band], strict=True))
        assert item.extinction == pytest.approx(expected, abs=6e-4), band
    given = luminosity.extinction_mag(luminosity.LSST, ["r", "u", "x", None], [0.1, 0.2, 0.1, 0.1])
    np.testing.assert_allclose(given, [0.2273, 0.829, np.nan, np.nan])
    for survey in surveys.SURVEYS.values():
        assert set(survey.passbands) == set(survey.bands)


def test_galactic_coordinates_equal_astropy() -> None:
    assert luminosity.galactic_latitude_deg(148.6188113, -18.6363575) == pytest.approx(27.28744, abs=5e-6)
    rng = np.random.default_rng(3)
    ra, dec = rng.uniform(0, 360, 500), np.degrees(np.arcsin(rng.uniform(-1, 1, 500)))
    longitude, latitude = luminosity.galactic(ra, dec)
    ours = SkyCoord(longitude, latitude, frame="galactic", unit="deg")
    assert SkyCoord(ra, dec, unit="deg").galactic.separation(ours).arcsec.max() < 0.03  # astropy goes by way of FK5
    assert np.isnan(luminosity.galactic_latitude_deg([np.nan], [0.0])).all()


# ------------------------------------------------------------------------------------------------- the stage
def test_the_kilonova_of_story_1() -> None:
    row = stage.match(alerts(), luminosity.ZTF).to_pylist()[0]
    assert row["lum_absolute_mag"] == pytest.approx(-15.539, abs=5e-4)
    assert row["lum_distance_mpc"] == 57.2517
    assert row["lum_absolute_err_mag"] is None  # the distance's error is unknown
    assert row["lum_nu_lnu_erg_s"] == pytest.approx(3.35e42 * 10 ** (-0.4 * (18.25 - 16.4)) * 0.595, rel=0.1)
    assert row["lum_extinction_mag"] is None and row["lum_is_extinction_corrected"] is False


def test_what_is_unknown_is_null() -> None:
    table = alerts(
        flux_njy=[-1e5, 1e5, 1e5, None, 0.0, 1e5],
        diff_mag=[18.9, 18.9, 18.9, None, None, 18.9],
        host_distance_mpc=[50.0, None, 50.0, 50.0, 50.0, 50.0],
        host_distance_err_mpc=[5.0] * 6,
        band=["r", "r", "x", "r", "r", "r"],
        host_redshift=[None, None, None, None, None, 0.1],
    )
    out = stage.match(table, luminosity.ZTF)
    assert out.schema.equals(pa.schema(stage.produces()), check_metadata=True)
    told = {name: [value is not None for value in out[name].to_pylist()] for name in out.column_names}
    assert told["lum_absolute_mag"] == [False, False, True, False, False, True]
    assert told["lum_absolute_err_mag"] == [False, False, True, False, False, True]
    assert told["lum_nu_lnu_erg_s"] == [True, False, False, False, True, True]
    assert told["lum_is_extinction_corrected"] == [True, False, True, False, True, True]
    assert out["lum_nu_lnu_erg_s"][0].as_py() == -out["lum_nu_lnu_erg_s"][5].as_py()  # signed
    stretched = out["lum_absolute_mag"][5].as_py() - out["lum_absolute_mag"][2].as_py()
    assert stretched == pytest.approx(2.5 * np.log10(1.1))


def test_dust_brightens_and_says_so() -> None:
    table = alerts(dec=[10.0, -10.0, 10.0], band=["g", "g", "x"])
    bare, seen = stage.match(table, luminosity.ZTF), stage.match(table, luminosity.ZTF, EvenDust())
    assert seen["lum_is_extinction_corrected"].to_pylist() == [True, False, False]
    assert seen["lum_extinction_mag"].to_pylist() == [pytest.approx(0.3272), None, None]
    brighter = seen["lum_absolute_mag"][0].as_py() - bare["lum_absolute_mag"][0].as_py()
    assert brighter == pytest.approx(-0.3272)
    assert seen["lum_nu_lnu_erg_s"][0].as_py() == pytest.approx(bare["lum_nu_lnu_erg_s"][0].as_py() * 10**0.13088)
    assert seen.slice(1).equals(bare.slice(1))


def test_rows_by_themselves_and_no_rows() -> None:
    rng = np.random.default_rng(4)
    table = alerts(
        flux_njy=rng.normal(0, 1e5, 90).tolist(),
        host_distance_mpc=[None if item < 0 else item for item in rng.normal(50, 40, 90).tolist()],
        band=rng.choice(["g", "r", "i"], 90).tolist(),
    )
    whole = stage.match(table, luminosity.ZTF)
    parts = [stage.match(table.slice(start, 40), luminosity.ZTF) for start in range(0, 90, 40)]
    assert pa.concat_tables(parts).combine_chunks().equals(whole.combine_chunks())
    turned = rng.permutation(90)
    assert stage.match(table.take(turned), luminosity.ZTF).equals(whole.take(turned).combine_chunks())
    assert stage.match(table.slice(0, 0), luminosity.ZTF).schema.equals(whole.schema)


def test_the_group_requires_what_it_reads_and_knows_its_tables() -> None:
    bound = stage.group(luminosity.ZTF)
    out = apply(bound, alerts())
    assert out["lum_absolute_mag"].null_count == 0
    definitions = {bound.definition, stage.group(luminosity.LSST).definition}
    definitions.add(stage.group(luminosity.ZTF, EvenDust()).definition)
    assert len(definitions) == 3


# -------------------------------------------------------------------------------------------- light curves
def test_every_point_of_a_light_curve() -> None:
    kind = pa.struct([("flux_njy", pa.list_(pa.float64())), ("band", pa.list_(pa.string()))])
    rows = [
        {"flux_njy": [1e5, -1e5, None], "band": ["g", "r", "g"]},
        {"flux_njy": [], "band": []},
        {"flux_njy": [2e5], "band": ["r"]},
        {"flux_njy": [2e5, 1e5], "band": ["r", "x"]},
    ]
    light_curves = pa.array(rows, kind)
    distance, z, ebv = np.array([50.0, 50.0, np.nan, 80.0]), np.array([np.nan, 0, 0, 0.1]), np.array([0, 0, 0, 0.2])
    out = stage.add_to_points(light_curves, luminosity.ZTF, distance, z, ebv)
    told = out.to_pylist()
    assert [item.name for item in out.type] == ["flux_njy", "band", "absolute_mag", "nu_lnu_erg_s"]
    assert [row["flux_njy"] for row in told] == [row["flux_njy"] for row in rows]
    assert [[value is not None for value in row["absolute_mag"]] for row in told] == [
        [True, False, False], [], [False], [True, True],
    ]  # fmt: skip
    assert told[0]["nu_lnu_erg_s"][0] == float(luminosity.nu_lnu_erg_s(1e5, 475.9, 50.0))
    assert told[0]["nu_lnu_erg_s"][1] < 0 and told[0]["nu_lnu_erg_s"][2] is None
    mag = 31.4 - 2.5 * np.log10(2e5)
    assert told[3]["absolute_mag"][0] == pytest.approx(float(luminosity.absolute_mag(mag, 80.0, 0.1, 0.2 * 2.197)))
    assert told[3]["nu_lnu_erg_s"][1] is None  # a band whose wavelength is not known
    sliced = stage.add_to_points(light_curves[2:], luminosity.ZTF, distance[2:], z[2:], ebv[2:])
    assert sliced.to_pylist() == told[2:]
