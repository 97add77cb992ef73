"""Brute force over all pairs: the oracle of the cross-match."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from pipeline.xmatch import MatchIndex, Nearest, Pairs
from pipeline.xmatch.kernel import separation_arcsec


@njit
def _all_pairs(ra, dec, radius, source_ra, source_dec, reach):
    alert, row, separation = [0], [0], [0.0]
    for i in range(ra.size):
        if not (math.isfinite(ra[i]) and abs(dec[i]) <= 90.0):
            continue
        cos_dec = math.cos(dec[i] * (math.pi / 180.0))
        for j in range(source_ra.size):
            if abs(dec[i] - source_dec[j]) * 3600.0 > radius[i] * 1.01 + 1e-3:
                continue
            apart = separation_arcsec(ra[i] % 360.0, dec[i], cos_dec, source_ra[j], source_dec[j])
            if apart <= radius[i] and apart <= reach[j]:
                alert.append(i)
                row.append(j)
                separation.append(apart)
    return np.array(alert[1:]), np.array(row[1:]), np.array(separation[1:])


def brute_force(
    ra: np.ndarray, dec: np.ndarray, radius: np.ndarray, index: MatchIndex, reach: object = np.inf
) -> Pairs:
    """Every pair within the alert's radius and the source's reach, by looking at all of them."""
    reaches = np.broadcast_to(np.asarray(reach, dtype=float), len(index)).copy()
    radii = np.broadcast_to(np.asarray(radius, dtype=float), len(ra)).copy()
    found = _all_pairs(
        np.asarray(ra, dtype=float), np.asarray(dec, dtype=float), radii, index.ra.copy(), index.dec.copy(), reaches
    )
    by = np.lexsort((found[1], found[2], found[0]))
    return Pairs(*(item[by] for item in found))


def assert_same_pairs(ours: Pairs, theirs: Pairs) -> None:
    """The same pairs, in the same order, with the same separations to the bit."""
    np.testing.assert_array_equal(ours.alert, theirs.alert)
    np.testing.assert_array_equal(ours.row, theirs.row)
    np.testing.assert_array_equal(ours.separation_arcsec, theirs.separation_arcsec)


def assert_same_nearest(ours: Nearest, theirs: Nearest) -> None:
    np.testing.assert_array_equal(ours.row, theirs.row)
    np.testing.assert_array_equal(ours.separation_arcsec, theirs.separation_arcsec)
    np.testing.assert_array_equal(ours.n_neighbours, theirs.n_neighbours)


def sky(kind: str, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Positions of a kind, ``SKIES``."""
    ra, dec = rng.uniform(0, 360, n), np.degrees(np.arcsin(rng.uniform(-1, 1, n)))
    if kind == "clustered":
        centre = rng.integers(0, 5, n)
        ra, dec = 40.0 * centre + rng.normal(0, 0.01, n), 17.0 * (centre - 2) + rng.normal(0, 0.01, n)
    elif kind in ("north", "south"):
        dec = (90.0 - np.abs(rng.normal(0, 0.01, n))) * (1 if kind == "north" else -1)
        dec[:3] = 90.0 if kind == "north" else -90.0
    elif kind == "wrap":
        ra, dec = rng.normal(0, 0.01, n) % 360.0, rng.normal(0, 0.01, n)
        ra[:3] = [0.0, 360.0, np.nextafter(360, 0)]
    elif kind == "grid":  # many equal separations, on the borders of base faces
        ra, dec = rng.integers(0, 20, n) / 3600 + 45.0, rng.integers(-10, 10, n) / 3600
    elif kind == "transition":  # where the polar caps begin, and a base face's corner
        ra, dec = rng.choice([0.0, 45.0, 90.0], n) + rng.normal(0, 0.01, n), 41.8103 + rng.normal(0, 0.01, n)
    elif kind == "cap":
        ra, dec = rng.normal(0, 0.02, n), 80.0 + rng.normal(0, 0.01, n)
    return ra, dec


SKIES = ["uniform", "clustered", "north", "south", "wrap", "grid", "transition", "cap"]
