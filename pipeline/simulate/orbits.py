"""Solar System bodies: two-body orbits through a chosen place on the sky, and their magnitudes.

Propagation with universal variables (Danby 1992, Fundamentals of Celestial Mechanics, ch. 6), valid for ellipses and
hyperbolas; magnitudes in the H, G system (Bowell et al. 1989, Asteroids II). Vectors are heliocentric, equatorial
J2000, in au and au/day, shape (n, 3).
"""

from __future__ import annotations

import numpy as np

from pipeline.simulate.geometry import OBLIQUITY_DEG, position_of

GM_SUN = 0.01720209895**2
"""au^3 / d^2 (Gauss)."""

LIGHT_AU_PER_DAY = 173.1446326846693

_EPS = np.radians(OBLIQUITY_DEG)
TO_ECLIPTIC = np.array([[1.0, 0.0, 0.0], [0.0, np.cos(_EPS), np.sin(_EPS)], [0.0, -np.sin(_EPS), np.cos(_EPS)]])


def _stumpff(psi: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return Stumpff's c2 and c3."""
    root = np.sqrt(np.abs(psi))
    safe = np.maximum(root, 1e-12)
    c2 = np.where(psi > 0, (1 - np.cos(root)) / safe**2, (np.cosh(root) - 1) / safe**2)
    c3 = np.where(psi > 0, (root - np.sin(root)) / safe**3, (np.sinh(root) - root) / safe**3)
    small = np.abs(psi) < 1e-3  # series: the closed forms cancel
    return (
        np.where(small, 1 / 2 - psi / 24 + psi**2 / 720, c2),
        np.where(small, 1 / 6 - psi / 120 + psi**2 / 5040, c3),
    )


def propagate(position: np.ndarray, velocity: np.ndarray, days: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return positions and velocities after ``days``, shape (n,)."""
    mu = GM_SUN
    r0 = np.linalg.norm(position, axis=1)
    radial = np.einsum("ij,ij->i", position, velocity) / np.sqrt(mu)
    alpha = 2.0 / r0 - np.einsum("ij,ij->i", velocity, velocity) / mu
    chi = np.sqrt(mu) * days / r0
    for _ in range(30):
        psi = alpha * chi**2
        c2, c3 = _stumpff(psi)
        r = chi**2 * c2 + radial * chi * (1 - psi * c3) + r0 * (1 - psi * c2)
        reached = chi**3 * c3 + radial * chi**2 * c2 + r0 * chi * (1 - psi * c3)
        chi = chi + (np.sqrt(mu) * days - reached) / r
    psi = alpha * chi**2
    c2, c3 = _stumpff(psi)
    f = 1 - chi**2 / r0 * c2
    g = days - chi**3 / np.sqrt(mu) * c3
    out = f[:, None] * position + g[:, None] * velocity
    r = np.linalg.norm(out, axis=1)
    f_dot = np.sqrt(mu) / (r * r0) * chi * (psi * c3 - 1)
    g_dot = 1 - chi**2 / r * c2
    return out, f_dot[:, None] * position + g_dot[:, None] * velocity


def astrometric(
    position: np.ndarray, velocity: np.ndarray, days: np.ndarray, observer: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return (ra, dec, distance to the Sun, distance to the observer) ``days`` after the epoch, light time allowed for.

    ``observer`` is where the telescope then is, shape (n, 3).
    """
    light_days = np.zeros(days.shape)
    for _ in range(3):
        where, _ = propagate(position, velocity, days - light_days)
        line = where - observer
        distance = np.linalg.norm(line, axis=1)
        light_days = distance / LIGHT_AU_PER_DAY
    ra, dec = position_of(line)
    return ra, dec, np.linalg.norm(where, axis=1), distance


def phase_magnitude(sun_au: np.ndarray, observer_au: np.ndarray, sun_observer_au: np.ndarray) -> np.ndarray:
    """Return V - H in magnitudes for slope G = 0.15."""
    cosine = (sun_au**2 + observer_au**2 - sun_observer_au**2) / (2 * sun_au * observer_au)
    half = np.tan(0.5 * np.arccos(np.clip(cosine, -1, 1)))
    phi1, phi2 = np.exp(-3.33 * half**0.63), np.exp(-1.87 * half**1.22)
    return 5 * np.log10(sun_au * observer_au) - 2.5 * np.log10(0.85 * phi1 + 0.15 * phi2)


def orbit_through(
    place: np.ndarray, semi_major_au: np.ndarray, eccentricity: np.ndarray, tilt_rad: np.ndarray, outbound: np.ndarray
) -> np.ndarray:
    """Return velocities of orbits of the given shape that pass through ``place``.

    The semi-major axis is negative for a hyperbola. The eccentricity is raised where the orbit could not reach the
    place. ``tilt_rad`` turns the orbital plane about the radius, from the smallest inclination possible there;
    ``outbound`` (+1, -1) chooses the side of perihelion.
    """
    r = np.linalg.norm(place, axis=1)
    least = np.abs(1 - r / semi_major_au) + 1e-4
    e = np.where(semi_major_au > 0, np.clip(np.maximum(eccentricity, least), 0, 0.98), eccentricity)
    speed = np.sqrt(GM_SUN * (2 / r - 1 / semi_major_au))
    transverse = np.minimum(np.sqrt(GM_SUN * semi_major_au * (1 - e**2)) / r, speed)
    radial = outbound * np.sqrt(np.maximum(speed**2 - transverse**2, 0))
    up = place / r[:, None]
    east = np.cross(TO_ECLIPTIC[2], up)
    east /= np.linalg.norm(east, axis=1)[:, None]
    north = np.cross(up, east)
    along = np.cos(tilt_rad)[:, None] * east + np.sin(tilt_rad)[:, None] * north
    return radial[:, None] * up + transverse[:, None] * along


def elements(position: np.ndarray, velocity: np.ndarray) -> dict[str, np.ndarray]:
    """Return osculating ecliptic elements: a_au, e, i_deg, node_deg, argperi_deg, mean_anomaly_deg, q_au; each (n,)."""
    r_vec, v_vec = position @ TO_ECLIPTIC.T, velocity @ TO_ECLIPTIC.T
    r = np.linalg.norm(r_vec, axis=1)
    h = np.cross(r_vec, v_vec)
    h_len = np.linalg.norm(h, axis=1)
    e_vec = np.cross(v_vec, h) / GM_SUN - r_vec / r[:, None]
    e = np.linalg.norm(e_vec, axis=1)
    a = 1 / (2 / r - np.einsum("ij,ij->i", v_vec, v_vec) / GM_SUN)
    inclination = np.arccos(np.clip(h[:, 2] / h_len, -1, 1))
    node = np.arctan2(h[:, 0], -h[:, 1])
    node_vec = np.stack([np.cos(node), np.sin(node), np.zeros_like(node)], axis=1)
    across = np.cross(h / h_len[:, None], node_vec)
    argperi = np.arctan2(np.einsum("ij,ij->i", e_vec, across), np.einsum("ij,ij->i", e_vec, node_vec))
    true = np.arctan2(np.einsum("ij,ij->i", np.cross(e_vec, r_vec), h) / h_len, np.einsum("ij,ij->i", e_vec, r_vec))
    eccentric = 2 * np.arctan(np.sqrt(np.abs((1 - e) / (1 + e))) * np.tan(true / 2))
    hyperbolic = 2 * np.arctanh(np.clip(np.sqrt(np.abs((e - 1) / (1 + e))) * np.tan(true / 2), -0.999999, 0.999999))
    mean = np.where(e < 1, eccentric - e * np.sin(eccentric), e * np.sinh(hyperbolic) - hyperbolic)
    return {
        "a_au": a, "e": e, "i_deg": np.degrees(inclination), "node_deg": np.degrees(node) % 360,
        "argperi_deg": np.degrees(argperi) % 360, "mean_anomaly_deg": np.where(e < 1, np.degrees(mean) % 360,
        np.degrees(mean)), "q_au": a * (1 - e),
    }  # fmt: skip
