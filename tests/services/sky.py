"""A small sky that the services of the tests serve, and alerts in it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline import healpix

CENTRES = [(150.1, 2.2), (0.0, 10.0), (359.9999, -41.81), (30.0, 89.95), (222.2, -89.99), (83.6, 22.0)]


@dataclass(frozen=True)
class Sky:
    """Sources: ``columns`` by name, each of shape (n,); ``units`` of some."""

    columns: dict[str, np.ndarray]
    units: dict[str, str]

    @property
    def ra(self) -> np.ndarray:
        return self.columns["ra"]

    @property
    def dec(self) -> np.ndarray:
        return self.columns["dec"]

    def rows_within(self, ra: float, dec: float, radius_arcsec: float) -> np.ndarray:
        """Brute force: the rows within a disc."""
        return np.flatnonzero(separation_arcsec(ra, dec, self.ra, self.dec) <= radius_arcsec)


def separation_arcsec(ra: float, dec: float, other_ra: np.ndarray, other_dec: np.ndarray) -> np.ndarray:
    one, two = np.radians(dec), np.radians(other_dec)
    d_ra, d_dec = np.radians(other_ra - ra), two - one
    haversine = np.sin(d_dec / 2) ** 2 + np.cos(one) * np.cos(two) * np.sin(d_ra / 2) ** 2
    return np.degrees(2 * np.arcsin(np.sqrt(haversine))) * 3600


def scatter(rng: np.random.Generator, ra: float, dec: float, spread_arcsec: float, n: int) -> tuple:
    """Return n positions around one, at the poles too."""
    east, north = rng.normal(0, spread_arcsec / 206_265, (2, n))
    one, two = np.radians(ra), np.radians(dec)
    centre = np.array([np.cos(two) * np.cos(one), np.cos(two) * np.sin(one), np.sin(two)])
    to_east = np.array([-np.sin(one), np.cos(one), 0.0])
    vector = centre + np.outer(east, to_east) + np.outer(north, np.cross(centre, to_east))
    vector /= np.linalg.norm(vector, axis=1, keepdims=True)
    return np.degrees(np.arctan2(vector[:, 1], vector[:, 0])) % 360, np.degrees(np.arcsin(vector[:, 2]))


def make_alerts(per_centre: int = 12, seed: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (ra, dec, healpix_29) of alerts around the centres."""
    rng = np.random.default_rng(seed)
    places = [scatter(rng, *centre, 400.0, per_centre) for centre in CENTRES]
    ra, dec = (np.concatenate([place[axis] for place in places]) for axis in (0, 1))
    return ra, dec, healpix.ang2pix(29, ra, dec)


def make_sky(per_centre: int = 40, seed: int = 2) -> Sky:
    """Return sources around the centres, most of them near an alert."""
    rng = np.random.default_rng(seed)
    ra, dec, _ = make_alerts()
    near = [scatter(rng, *place, 1.2, 2) for place in zip(ra[::2], dec[::2], strict=True)]
    wide = [scatter(rng, *centre, 600.0, per_centre) for centre in CENTRES]
    ra, dec = (np.round(np.concatenate([place[axis] for place in [*near, *wide]]), 8) for axis in (0, 1))
    n = len(ra)
    magnitude = np.round(rng.uniform(12, 20, n), 3)
    magnitude[::7] = np.nan
    columns = {
        "ra": ra,
        "dec": dec,
        "source_id": np.arange(n) + 2**53 + 1,
        "main_id": np.array([f"OBJ {number}" for number in range(n)]),
        "otype": np.array(["RRL", "", "G", "AGN"])[rng.integers(0, 4, n)],
        "mag": magnitude,
    }
    return Sky(columns, {"ra": "deg", "dec": "deg", "mag": "mag"})
