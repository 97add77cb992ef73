"""What does not stay: asteroids, satellite glints, and what is not real at all."""

from __future__ import annotations

import numpy as np

from pipeline.simulate import orbits
from pipeline.simulate.cadence import Instrument, Visits
from pipeline.simulate.draws import Draws
from pipeline.simulate.geometry import observer_au, to_sky, to_tangent, unit_vector
from pipeline.simulate.objects import Objects, njy
from pipeline.simulate.populations import CODES

ORBIT_COLUMNS = ("a_au", "e", "i_deg", "node_deg", "argperi_deg", "mean_anomaly_deg", "q_au", "epoch_mjd", "h_mag")

ARTEFACTS = ("dipole", "cosmic_ray", "bad_column", "hot_pixel", "halo")
"""Kinds of bogus alert; ``link`` of a bogus object is its kind."""


def solar_system_name(kind: str, body: int) -> str:
    """Return the name of a body: a catalogue number if it is known, else a designation of the simulation."""
    if kind == "asteroid_known":
        return str(10_000 + 7 * body)
    return "SIM/1I" if kind == "asteroid_interstellar" else f"SIM {body}"


def detector_shift(draws: Draws, detector: np.ndarray) -> np.ndarray:
    """Return how much deeper each detector is than its exposure's limit, in magnitudes, shape (n,)."""
    return draws.normal("detector depth", detector, 0.0, 0.06)


def set_place(
    o: Objects, instrument: Instrument, visits: Visits, detector: np.ndarray, x: np.ndarray, y: np.ndarray, draws: Draws
) -> None:
    """Place ``o`` at pixels of their fields."""
    o.detector, o.x, o.y = detector, x, y
    xi, eta = instrument.camera.to_plane(detector, x, y)
    o.ra, o.dec = to_sky(xi, eta, visits.field_ra[o.field], visits.field_dec[o.field])
    o.limit_shift = detector_shift(draws, detector)


def random_place(o: Objects, instrument: Instrument, visits: Visits, draws: Draws) -> None:
    """Place ``o`` anywhere on the detectors of their fields, at least 40 pixels from an edge."""
    camera = instrument.camera
    detector = draws.integers("detector", o.key, 0, camera.detectors.size)
    x = draws.uniform("x", o.key, 40.0, camera.width_px - 40.0)
    y = draws.uniform("y", o.key, 40.0, camera.height_px - 40.0)
    set_place(o, instrument, visits, detector, x, y, draws)


def asteroids(
    name: str, count: int, key0: int, trigger: np.ndarray, instrument: Instrument, visits: Visits, draws: Draws
) -> tuple[Objects, np.ndarray, dict[str, np.ndarray]]:
    """Draw ``count`` bodies through the fields of ``trigger`` and detect them at every visit of the night.

    Returns
    -------
    objects : Objects
        One per detection (its place is where the body then was); ``link`` is the body.
    visit : numpy.ndarray of int64
        The visit of each detection.
    bodies : dict of str to numpy.ndarray, shape (count,)
        ``ORBIT_COLUMNS`` at epoch, heliocentric ecliptic J2000; ``position_au, velocity_au_day`` (count, 3),
        heliocentric equatorial.
    """
    keys = key0 + np.arange(count)
    anchor = Objects.blank(keys, CODES[name], len(instrument.bands))
    anchor.field = visits.field[trigger]
    random_place(anchor, instrument, visits, draws)
    epoch = visits.mjd[trigger]
    observer = observer_au(epoch, instrument.camera)
    place, velocity = _state(name, keys, anchor, observer, draws)
    h_mag = _absolute_magnitude(name, keys, place, observer, instrument, visits.limit_mag[trigger], draws)
    body, visit = pairs_tonight(visits, anchor.field)
    tonight = visits.mjd[visit]
    here = observer_au(tonight, instrument.camera)
    # the state holds where the body was when the light of the trigger left it
    light_days = np.linalg.norm(place - observer, axis=1) / orbits.LIGHT_AU_PER_DAY
    ra, dec, sun_au, distance_au = orbits.astrometric(
        place[body], velocity[body], tonight - epoch[body] + light_days[body], here
    )
    field = visits.field[visit]
    xi, eta = to_tangent(ra, dec, visits.field_ra[field], visits.field_dec[field])
    detector, x, y = instrument.camera.to_pixel(np.clip(xi, -20, 20), np.clip(eta, -20, 20))
    mag = h_mag[body] + orbits.phase_magnitude(sun_au, distance_au, np.linalg.norm(here, axis=1))
    hue = np.array([0.3, -0.15, -0.3, -0.35, -0.35, -0.35])  # g - V, r - V ... of a mean asteroid
    if len(instrument.bands) > 2:
        hue = np.array([1.6, 0.3, -0.15, -0.3, -0.35, -0.3])
    mag = mag + hue[visits.band[visit]]
    shift = detector_shift(draws, np.maximum(detector, 0))
    edge = (x > 40) & (x < instrument.camera.width_px - 40) & (y > 40) & (y < instrument.camera.height_px - 40)
    seen = (detector >= 0) & edge & (mag < visits.limit_mag[visit] + shift - 0.05)
    o = Objects.blank(draws_key(key0, body, visit)[seen], CODES[name], len(instrument.bands))
    o.field, o.link = field[seen], body[seen]
    o.trigger_njy = njy(mag[seen])
    set_place(o, instrument, visits, detector[seen], x[seen], y[seen], draws)
    bodies = orbits.elements(place, velocity)
    bodies["epoch_mjd"] = epoch - light_days
    bodies["h_mag"] = h_mag
    bodies["position_au"], bodies["velocity_au_day"] = place, velocity
    return o, visit[seen], bodies


def draws_key(key0: int, body: np.ndarray, visit: np.ndarray) -> np.ndarray:
    """Return keys of single detections, apart from all keys of objects."""
    return (key0 + body) * 1_000_000 + visit


def pairs_tonight(visits: Visits, field: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (body, visit) of every visit of the night to each body's field."""
    tonight = visits.tonight
    order = tonight[np.argsort(visits.field[tonight], kind="stable")]
    first = np.searchsorted(visits.field[order], field, side="left")
    count = np.searchsorted(visits.field[order], field, side="right") - first
    body = np.repeat(np.arange(field.size), count)
    step = np.arange(body.size) - np.repeat(np.cumsum(count) - count, count)
    return body, order[np.repeat(first, count) + step]


def _state(
    name: str, keys: np.ndarray, anchor: Objects, observer: np.ndarray, draws: Draws
) -> tuple[np.ndarray, np.ndarray]:
    """Return heliocentric place and velocity of bodies seen at the anchors' positions."""
    if name == "asteroid_interstellar":
        distance = draws.uniform("topocentric distance", keys, 0.6, 1.8)
        a = -draws.uniform("hyperbola", keys, 0.9, 3.0)  # v_inf 17 to 31 km/s
        e = draws.uniform("eccentricity", keys, 1.3, 3.5)
    else:
        distance = draws.uniform("topocentric distance", keys, 0.9, 2.4)
        a = draws.uniform("semi-major axis", keys, 2.1, 3.3)
        e = np.clip(draws.normal("eccentricity", keys, 0.14, 0.07), 0.01, 0.4)
    place = observer + distance[:, None] * unit_vector(anchor.ra, anchor.dec)
    e = np.where(a < 0, np.minimum(e, 1 + 0.98 * np.linalg.norm(place, axis=1) / np.abs(a)), e)
    tilt = draws.normal("tilt", keys, 0.0, 0.15 if name != "asteroid_interstellar" else 1.0)
    side = np.where(draws.uniform("side", keys) < 0.5, -1.0, 1.0)
    return place, orbits.orbit_through(place, a, e, tilt, side)


def _absolute_magnitude(
    name: str,
    keys: np.ndarray,
    place: np.ndarray,
    observer: np.ndarray,
    instrument: Instrument,
    limit: np.ndarray,
    draws: Draws,
) -> np.ndarray:
    """Return H such that the bodies are seen at the trigger, the faint ones most common."""
    below = draws.uniform("brightness", keys) ** 2 * (4.0 if name == "asteroid_known" else 1.8)
    apparent = np.maximum(limit - 0.5 - below, instrument.bright_mag)
    if name == "asteroid_interstellar":
        apparent = limit - 1.2
    geometry = orbits.phase_magnitude(
        np.linalg.norm(place, axis=1), np.linalg.norm(place - observer, axis=1), np.linalg.norm(observer, axis=1)
    )
    return apparent - geometry


def glints(
    count: int, key0: int, instrument: Instrument, visits: Visits, draws: Draws, weights: np.ndarray
) -> tuple[Objects, np.ndarray]:
    """Draw ``count`` glints on streaks of 6 to 14 points, each streak a great circle in one exposure.

    A tumbling satellite flashes at equal steps along its track (Karpov & Peloton 2022, arXiv:2202.05719); flashes in
    the gaps between detectors are lost. A straight line in the tangent plane is a great circle. ``link`` is the
    streak.
    """
    camera = instrument.camera
    parts: list[Objects] = []
    places: list[np.ndarray] = []
    total, streak = 0, 0
    tonight = visits.tonight
    half = 0.5 * camera.side * camera.pitch_deg[0]
    while total < count:
        key = np.array([key0 + streak])
        flashes = int(draws.integers("flashes", key, 8, 20)[0])
        step = float(draws.uniform("step", key, 0.06, 0.16)[0]) * half
        angle = float(draws.uniform("angle", key, 0.0, np.pi)[0])
        middle = draws.uniform("centre", np.repeat(key, 2), -0.35, 0.35, np.arange(2)) * half
        along = (np.arange(flashes) - flashes / 2) * step
        keys = (key0 + streak) * 1_000_000 + np.arange(flashes)
        xi = middle[0] + along * np.cos(angle) + draws.normal("scatter xi", keys, 0.0, 0.2 / 3600)
        eta = middle[1] + along * np.sin(angle) + draws.normal("scatter eta", keys, 0.0, 0.2 / 3600)
        detector, x, y = camera.to_pixel(xi, eta)
        edge = (x > 40) & (x < camera.width_px - 40) & (y > 40) & (y < camera.height_px - 40)
        seen = np.flatnonzero((detector >= 0) & edge)[:14]
        if seen.size < 6:
            streak += 1
            continue
        visit = tonight[int(draws.choice("visit", key, weights)[0])]
        o = Objects.blank(keys[seen], CODES["satellite_glint"], len(instrument.bands))
        o.field[:], o.link[:] = visits.field[visit], streak
        set_place(o, instrument, visits, detector[seen], x[seen], y[seen], draws)
        mag = visits.limit_mag[visit] - draws.uniform("streak depth", key, 1.0, 2.5)[0]
        o.trigger_njy = njy(mag + draws.normal("flash", keys[seen], 0.0, 0.25))
        parts.append(o)
        places.append(np.full(seen.size, visit))
        total += seen.size
        streak += 1
    return Objects.concatenate(parts), np.concatenate(places)


def artefacts(
    count: int, key0: int, trigger: np.ndarray, instrument: Instrument, visits: Visits, draws: Draws
) -> tuple[Objects, np.ndarray]:
    """Draw ``count`` bogus detections of either sign, each in one exposure only."""
    keys = key0 + np.arange(count)
    o = Objects.blank(keys, CODES["bogus"], len(instrument.bands))
    o.field = visits.field[trigger]
    random_place(o, instrument, visits, draws)
    o.link = draws.integers("artefact", keys, 0, len(ARTEFACTS))
    sign = np.where(draws.uniform("sign", keys) < 0.35, -1.0, 1.0)
    strength = draws.log_uniform("strength", keys, 7.0, 60.0)
    o.trigger_njy = sign * strength * njy(visits.limit_mag[trigger] + o.limit_shift) / 5.0
    return o, trigger
