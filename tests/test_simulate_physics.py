"""Shapes, orbits and distances of the simulator against analytic results and independent libraries."""

from __future__ import annotations

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import EarthLocation, SkyCoord, get_body_barycentric_posvel
from astropy.cosmology import Planck18
from astropy.time import Time
from scipy.integrate import solve_ivp
from scipy.optimize import brentq

from pipeline.simulate import orbits, variables
from pipeline.simulate import transients as tr
from pipeline.simulate.cadence import ZTF, schedule
from pipeline.simulate.draws import Draws
from pipeline.simulate.geometry import (
    RUBIN_CAMERA,
    ZTF_CAMERA,
    altitude,
    ecliptic,
    field_grid,
    galactic,
    observer_au,
    separation_arcsec,
    sun_altitude,
    to_sky,
    to_tangent,
)
from pipeline.simulate.objects import luminosity_distance, redshift_at


def _curve(source, p, days, wavelength=478.0, z=0.0, mpc=10.0, blanket=0.0):
    luminosity, kelvin = np.empty(tr.GRID), np.empty(tr.GRID)
    p = np.array(p, float)
    tr.thermal_grid(source, p, luminosity, kelvin)
    return np.array([tr.observed_njy(luminosity, kelvin, p[6], t, wavelength, z, mpc, blanket) for t in days])


def _parameters(**values):
    p = np.zeros(8)
    for slot, value in values.items():
        p[int(slot[1:])] = value
    return p


# ------------------------------------------------------------------------------------------------ transients
def test_the_peak_of_an_arnett_light_curve_equals_the_power_then_put_in():
    p = _parameters(p0=0.6, p1=13.0, p2=1.1e9, p3=4800.0, p6=150.0)
    luminosity, kelvin = np.empty(tr.GRID), np.empty(tr.GRID)
    tr.thermal_grid(tr.NI56, p, luminosity, kelvin)
    top = int(np.argmax(luminosity))
    days = 150.0 * (top / (tr.GRID - 1)) ** 2
    power = 0.6 * tr.SUN_G * ((3.90e10 - 6.78e9) * np.exp(-days / 8.8) + 6.78e9 * np.exp(-days / 111.3))
    assert luminosity[top] == pytest.approx(power, rel=0.02)  # Arnett's rule
    assert 14 < days < 22


def test_diffusion_follows_its_differential_equation():
    p = _parameters(p0=0.6, p1=13.0, p2=1.1e9, p3=4800.0, p6=100.0)
    luminosity, kelvin = np.empty(tr.GRID), np.empty(tr.GRID)
    tr.thermal_grid(tr.NI56, p, luminosity, kelvin)
    tau = 13.0 * 86400

    def slope(t, y):
        power = 0.6 * tr.SUN_G * ((3.90e10 - 6.78e9) * np.exp(-t / 86400 / 8.8) + 6.78e9 * np.exp(-t / 86400 / 111.3))
        return (power - y) * 2 * t / tau**2

    times = 100.0 * (np.arange(tr.GRID) / (tr.GRID - 1)) ** 2 * 86400
    oracle = solve_ivp(slope, (0, times[-1]), [0.0], t_eval=times, rtol=1e-8, atol=1e30).y[0]
    kept = times > 2 * 86400
    assert np.allclose(luminosity[kept], oracle[kept], rtol=0.01)


def test_a_tidal_disruption_fades_as_time_to_the_minus_five_thirds():
    p = _parameters(p0=3e44, p1=5.0, p3=2e4, p5=20.0, p6=700.0)
    early, late = _curve(tr.FALLBACK, p, [200.0, 400.0])
    assert np.log(late / early) / np.log(2.0) == pytest.approx(-5 / 3, abs=0.06)
    blue, red = _curve(tr.FALLBACK, p, [60.0, 60.0], 478.0)[0], _curve(tr.FALLBACK, p, [60.0], 754.0)[0]
    blue2, red2 = _curve(tr.FALLBACK, p, [200.0], 478.0)[0], _curve(tr.FALLBACK, p, [200.0], 754.0)[0]
    assert blue / red == pytest.approx(blue2 / red2, rel=1e-9)  # constant temperature


def test_a_kilonova_fades_and_reddens_in_days():
    p = _parameters(p0=0.04, p1=1.6, p2=0.25 * 3e10, p3=2500.0, p6=30.0)
    g = _curve(tr.R_PROCESS, p, [1.0, 3.0, 5.0], 478.0)
    i = _curve(tr.R_PROCESS, p, [1.0, 3.0, 5.0], 754.0)
    assert g[1] < 0.5 * g[0] and g[2] < 0.05 * g[0]
    assert np.all(np.diff(i / g) > 0)


def test_a_plateau_is_flat_then_drops():
    p = _parameters(p0=0.02, p1=85.0, p2=4.5e8, p3=5800.0, p5=22.0, p6=250.0)
    r = _curve(tr.PLATEAU, p, [30.0, 70.0, 150.0], 636.0)
    assert 0.5 < r[1] / r[0] < 2.0
    assert r[2] < 0.2 * r[1]


def test_nothing_shines_before_the_explosion_and_light_arrives_stretched():
    p = _parameters(p0=0.6, p1=13.0, p2=1.1e9, p3=4800.0, p6=250.0)
    days = np.linspace(-10, 120, 800)
    near, far = _curve(tr.NI56, p, days), _curve(tr.NI56, p, days * 1.5, 478.0 * 1.5, z=0.5, mpc=10.0)
    assert np.all(near[days <= 0] == 0)
    assert np.allclose(far, near * 1.5, rtol=1e-9)


# ------------------------------------------------------------------------------------------------ variables
@pytest.mark.parametrize("overtone", [0.0, 1.0])
def test_rr_lyrae_repeat_with_their_period_and_amplitude(overtone):
    p = _parameters(p0=0.5731, p1=60000.3, p2=0.9, p3=overtone)
    mjd = 60100.0 + np.linspace(0, 0.5731, 500)
    here = np.array([variables.rr_lyrae(t, 478.0, p) for t in mjd])
    later = np.array([variables.rr_lyrae(t + 17 * 0.5731, 478.0, p) for t in mjd])
    assert np.allclose(here, later, rtol=1e-9)
    assert np.ptp(2.5 * np.log10(here)) == pytest.approx(0.9, rel=0.03)
    red = np.array([variables.rr_lyrae(t, 636.0, p) for t in mjd])
    assert np.ptp(2.5 * np.log10(red)) == pytest.approx(0.9 * (636 / 478) ** -1.15, rel=0.03)
    mag = -2.5 * np.log10(here)
    rise = (np.argmin(mag) - np.argmax(mag)) % mag.size / mag.size
    assert rise < 0.25 if overtone == 0.0 else rise > 0.3


def test_microlensing_is_symmetric_and_follows_paczynski():
    p = _parameters(p0=20.0, p1=60000.0, p2=0.1, p3=1.0)
    for step in (0.0, 3.0, 17.0):
        before, after = (variables.microlensing(60000.0 + sign * step, p) for sign in (-1, 1))
        assert before == pytest.approx(after, rel=1e-12)
    assert variables.microlensing(60000.0, p) == pytest.approx(10.0374, rel=1e-4)
    both = [variables.relative_flux(variables.MICROLENSING, 60003.0, band, p) for band in (478.0, 754.0)]
    assert both[0] == both[1]


def test_eclipses_hide_what_geometry_says():
    p = _parameters(p0=2.0, p1=60000.0, p2=0.3, p3=0.15, p4=0.0, p5=6000.0, p6=6000.0)
    assert variables.eclipsing(60000.0, 500.0, p) == pytest.approx(1 - 0.15**2 / (0.3**2 + 0.15**2))
    assert variables.eclipsing(60000.5, 500.0, p) == 1.0
    assert variables.disc_overlap(0.0, 1.0, 1.0) == pytest.approx(np.pi)
    rng = np.random.default_rng(1)
    x, y = rng.uniform(-1, 1, (2, 200_000))
    inside = (x**2 + y**2 < 1) & ((x - 0.7) ** 2 + y**2 < 0.64)
    assert variables.disc_overlap(0.7, 1.0, 0.8) == pytest.approx(4 * inside.mean(), rel=0.02)


def test_flares_rise_in_one_width_and_fade_and_are_blue():
    p = _parameters(p0=0.02, p1=60000.0, p2=5.0, p3=3200.0)
    assert variables.flare(59999.9, 478.0, p) == 1.0
    assert variables.flare(60000.0, 478.0, p) == pytest.approx(1 + 5 * 0.992, rel=0.01)
    assert variables.flare(60000.05, 478.0, p) < 3
    assert variables.flare(60000.0, 478.0, p) > 2 * variables.flare(60000.0, 754.0, p)


def test_a_star_fades_more_in_the_blue():
    p = _parameters(p0=30.0, p1=60000.0, p2=2.0, p3=1e6)
    blue, red = (variables.obscured(60300.0, band, p) for band in (440.0, 550.0))
    assert -2.5 * np.log10(red) == pytest.approx(2.0, rel=0.01)
    assert np.log10(blue) / np.log10(red) == pytest.approx(1 + 1 / 3.1, rel=0.02)
    assert variables.obscured(59990.0, 550.0, p) == 1.0


def test_the_damped_walk_has_its_structure_function():
    tau, sigma, rng = 100.0, 0.2, np.random.default_rng(3)
    shocks = rng.standard_normal(60_000)
    walk = np.empty(shocks.size)
    walk[0] = 0.0
    for i in range(1, walk.size):
        walk[i] = variables.walk_step(walk[i - 1], 10.0, tau, sigma, shocks[i])
    assert walk.std() == pytest.approx(sigma, rel=0.05)
    lag = np.std(walk[5:] - walk[:-5])
    assert lag == pytest.approx(sigma * np.sqrt(2 * (1 - np.exp(-0.5))), rel=0.05)


def test_a_dwarf_nova_rises_fades_and_repeats():
    p = _parameters(p0=40.0, p1=60000.0, p2=4.0, p3=1.0, p4=5.0, p5=2.0)
    flux = np.array([variables.dwarf_nova(60000.0 + t, 478.0, p) for t in (0.0, 1.0, 5.0, 39.0, 41.0)])
    assert flux[0] == 1.0 and flux[3] == 1.0
    assert 2.5 * np.log10(flux[1]) == pytest.approx(4.0)
    assert flux[4] == pytest.approx(flux[1])


# ------------------------------------------------------------------------------------------------ orbits, sky
def _state(a, e, inclination, true):
    h = np.sqrt(orbits.GM_SUN * a * (1 - e**2))
    r = a * (1 - e**2) / (1 + e * np.cos(true))
    place = r * np.array([np.cos(true), np.sin(true), 0.0])
    speed = orbits.GM_SUN / h * np.array([-np.sin(true), e + np.cos(true), 0.0])
    c, s = np.cos(inclination), np.sin(inclination)
    tilt = np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    return (orbits.TO_ECLIPTIC.T @ tilt @ place)[None, :], (orbits.TO_ECLIPTIC.T @ tilt @ speed)[None, :]


@pytest.mark.parametrize(("a", "e"), [(2.6, 0.15), (1.1, 0.7), (-1.3, 2.5), (-0.8, 1.2)])
def test_propagation_equals_numerical_integration(a, e):
    place, speed = _state(a, e, 0.3, 0.8)

    def pull(_, y):
        return np.r_[y[3:], -orbits.GM_SUN * y[:3] / np.linalg.norm(y[:3]) ** 3]

    for days in (25.0, -40.0):
        oracle = solve_ivp(pull, (0, days), np.r_[place[0], speed[0]], rtol=1e-11, atol=1e-13).y[:, -1]
        where, moves = orbits.propagate(place, speed, np.array([days]))
        assert np.allclose(where[0], oracle[:3], atol=1e-8)
        assert np.allclose(moves[0], oracle[3:], atol=1e-9)
    found = orbits.elements(place, speed)
    assert found["a_au"][0] == pytest.approx(a) and found["e"][0] == pytest.approx(e)
    assert found["i_deg"][0] == pytest.approx(np.degrees(0.3))


def _kepler_equation(x, e, mean):
    return x - e * np.sin(x) - mean if e < 1 else e * np.sinh(x) - x - mean


def test_mean_anomaly_and_perihelion_place_the_body():
    for a, e in ((2.6, 0.15), (-1.3, 2.5)):
        place, speed = _state(a, e, 0.2, 0.9)
        found = orbits.elements(place, speed)
        mean = np.radians(found["mean_anomaly_deg"][0])
        motion = np.sqrt(orbits.GM_SUN / abs(a) ** 3)
        at_perihelion, _ = orbits.propagate(place, speed, np.array([-mean / motion]))
        assert np.linalg.norm(at_perihelion[0]) == pytest.approx(found["q_au"][0], rel=1e-6)
        anomaly = brentq(_kepler_equation, -4, 4, args=(e, mean))
        distance = a * (1 - e * np.cos(anomaly)) if e < 1 else abs(a) * (e * np.cosh(anomaly) - 1)
        assert np.linalg.norm(place[0]) == pytest.approx(distance, rel=1e-9)


def test_the_observer_is_where_astropy_puts_it():
    mjd = np.array([60324.31, 60500.9])
    earth, _ = get_body_barycentric_posvel("earth", Time(mjd, format="mjd", scale="tai"), ephemeris="builtin")
    sun, _ = get_body_barycentric_posvel("sun", Time(mjd, format="mjd", scale="tai"), ephemeris="builtin")
    site = EarthLocation.from_geodetic(-116.863 * u.deg, 33.3563 * u.deg, 1712 * u.m)
    topo = site.get_gcrs_posvel(Time(mjd, format="mjd", scale="tai"))[0]
    oracle = (earth - sun + topo).xyz.to_value("au").T
    assert np.linalg.norm(observer_au(mjd, ZTF_CAMERA) - oracle, axis=1).max() < 1e-6  # 150 km: 0.2 arcsec at 1 au


def test_coordinates_equal_astropys():
    rng = np.random.default_rng(2)
    ra, dec = rng.uniform(0, 360, 200), np.degrees(np.arcsin(rng.uniform(-1, 1, 200)))
    sky = SkyCoord(ra * u.deg, dec * u.deg)
    lon, lat = galactic(ra, dec)
    assert separation_arcsec(lon, lat, sky.galactic.l.deg, sky.galactic.b.deg).max() < 0.1
    lon, lat = ecliptic(ra, dec)
    there = sky.transform_to("barycentricmeanecliptic")
    assert separation_arcsec(lon, lat, there.lon.deg, there.lat.deg).max() < 1.0
    xi, eta = rng.uniform(-3, 3, (2, 200))
    back = to_tangent(*to_sky(xi, eta, ra, dec), ra, dec)
    assert np.allclose(back[0], xi, atol=1e-8) and np.allclose(back[1], eta, atol=1e-8)


@pytest.mark.parametrize(("camera", "detectors", "area"), [(ZTF_CAMERA, 64, 47.0), (RUBIN_CAMERA, 189, 9.6)])
def test_focal_planes_have_their_detectors_and_area(camera, detectors, area):
    assert camera.detectors.size == detectors
    pixel_area = detectors * camera.width_px * camera.height_px * (camera.scale_arcsec / 3600) ** 2
    assert pixel_area == pytest.approx(area, rel=0.05)
    number = np.repeat(np.arange(detectors), 5)
    x, y = np.tile([1.0, 500.0, 1000.0, 2000.0, 3000.0], (2, detectors))
    found, x2, y2 = camera.to_pixel(*camera.to_plane(number, x, y))
    assert np.array_equal(found, number) and np.allclose(x, x2) and np.allclose(y, y2)
    assert camera.to_pixel(np.array([30.0]), np.array([0.0]))[0][0] == -1


def test_the_night_is_dark_and_its_fields_are_up():
    visits = schedule(ZTF, 20240621, 4000, Draws(1))
    now = visits.tonight
    assert now.size == 200
    assert sun_altitude(visits.jd, ZTF_CAMERA)[now].max() < -12
    up = altitude(visits.field_ra[visits.field[now]], visits.field_dec[visits.field[now]], visits.jd[now], ZTF_CAMERA)
    assert up.min() > 25
    assert np.all(np.floor(visits.jd[now] - 0.5) + 0.5 == 2460482.5)
    assert np.diff(visits.jd[now]).min() * 86400 > 30
    counts = np.bincount(visits.field[now])
    assert set(counts.tolist()) == {2}
    ra, _ = field_grid(ZTF_CAMERA)
    assert 800 < ra.size < 1500


def test_distances_are_those_of_planck18():
    z = np.array([0.003, 0.02, 0.4, 1.9])
    assert np.allclose(luminosity_distance(z), Planck18.luminosity_distance(z).value, rtol=1e-4)
    assert np.allclose(redshift_at(Planck18.comoving_distance(z).value), z, rtol=1e-3)
