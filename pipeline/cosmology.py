"""Distances in an expanding universe: Planck 2018, flat, with one neutrino of 0.06 eV.

Parameters are those of Planck Collaboration 2020 (A&A 641, A6, doi:10.1051/0004-6361/201833910, table 2, TT,TE,EE+lowE+
lensing+BAO), as ``astropy.cosmology.Planck18`` has them; distances agree with it to 1e-8. The density of massive
neutrinos follows the fit of Komatsu et al. (2011, ApJS 192, 18, doi:10.1088/0067-0049/192/2/18, eq. 26).

Whatever is not a distance or redshift (NaN, infinite, zero, negative) gives NaN.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

SPEED_OF_LIGHT_KM_S = 299_792.458
PECULIAR_VELOCITY_KM_S = 300.0
"""Typical velocity of a galaxy against the Hubble flow, 1 sigma."""
CATALOG_DISTANCE_REDSHIFT = 0.02
"""Below it peculiar velocities spoil a redshift distance: a catalog's own distance goes before it."""
MAX_REACH_ARCSEC = 5 * 3600.0
"""No galaxy reaches farther than 5 degrees, however near it is."""
MAX_REDSHIFT = 1100.0
"""Distances are known up to here (last scattering); beyond, NaN."""

_H0 = 67.66  # km/s/Mpc
_MATTER = 0.30966
_PHOTONS = 5.402015137139353e-05  # of 2.7255 K at this H0
_NEUTRINOS = 0.22710731766 * 3.046 / 3  # of one massless kind, in units of the photons: 7/8 (4/11)^(4/3) N_eff/3
_NEUTRINO_MASS = 0.06 / (8.617333262145179e-05 * 0.7137658555036082 * 2.7255)  # of the heavy kind, m / (k T_nu)
_STEP = 1 / 256  # of ln(1+z) in the table


def _expansion(redshift: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return H(z)/H0."""
    grown = 1.0 + redshift

    def neutrinos(at: NDArray[np.float64] | float) -> NDArray[np.float64] | float:
        return _NEUTRINOS * (2.0 + (1.0 + (0.3173 * _NEUTRINO_MASS / at) ** 1.83) ** 0.54644808743)

    vacuum = 1.0 - _MATTER - _PHOTONS * (1.0 + neutrinos(1.0))
    radiation = _PHOTONS * (1.0 + neutrinos(grown)) * grown
    return np.sqrt((_MATTER + radiation) * grown**3 + vacuum)


@cache
def _table() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return comoving distance and its derivative by ln(1+z), in units of c/H0, at steps of ln(1+z)."""
    edges = np.arange(int(np.log1p(MAX_REDSHIFT) / _STEP) + 2) * _STEP
    nodes, weights = np.polynomial.legendre.leggauss(8)
    within = edges[:-1, None] + 0.5 * _STEP * (1.0 + nodes)
    pieces = 0.5 * _STEP * (weights * np.exp(within) / _expansion(np.expm1(within))).sum(axis=1)
    slope = np.exp(edges) / _expansion(np.expm1(edges))
    return np.concatenate([[0.0], np.cumsum(pieces)]), slope


def _usable(values: ArrayLike, largest: float = np.inf) -> NDArray[np.float64]:
    """Return values as float64 with NaN for whatever is not positive and finite."""
    array = np.asarray(values, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        return np.where((array > 0) & np.isfinite(array) & (array <= largest), array, np.nan)


def _comoving_mpc(redshift: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the comoving distance by cubic Hermite interpolation in ln(1+z); NaN in, NaN out."""
    distance, slope = _table()
    place = np.log1p(redshift) / _STEP
    node = np.where(np.isnan(place), 0.0, place).astype(np.int64)
    t = place - node
    rise = _STEP * t * (1.0 - t)
    values = (
        distance[node] * (1.0 + 2.0 * t) * (1.0 - t) ** 2
        + distance[node + 1] * t * t * (3.0 - 2.0 * t)
        + rise * ((1.0 - t) * slope[node] - t * slope[node + 1])
    )
    return np.asarray(values * (SPEED_OF_LIGHT_KM_S / _H0))


def luminosity_distance_mpc(redshift: ArrayLike) -> NDArray[np.float64]:
    """Return the luminosity distance in Mpc of redshifts of any shape; NaN outside 0 < z <= 1100."""
    z = _usable(redshift, MAX_REDSHIFT)
    return (1.0 + z) * _comoving_mpc(z)


def angular_diameter_distance_mpc(redshift: ArrayLike) -> NDArray[np.float64]:
    """Return the angular-diameter distance in Mpc of redshifts of any shape; NaN outside 0 < z <= 1100."""
    z = _usable(redshift, MAX_REDSHIFT)
    return _comoving_mpc(z) / (1.0 + z)


def _luminosity_slope_mpc(redshift: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return dD_L/dz."""
    hubble_mpc = SPEED_OF_LIGHT_KM_S / _H0
    return _comoving_mpc(redshift) + (1.0 + redshift) * hubble_mpc / _expansion(redshift)


def redshift_at_luminosity_distance(distance_mpc: ArrayLike) -> NDArray[np.float64]:
    """Return the redshift of the Hubble flow at luminosity distances in Mpc, any shape; NaN where there is none."""
    distance = _usable(distance_mpc)
    known, _ = _table()
    edges = np.expm1(np.arange(len(known)) * _STEP)
    table = known * (1.0 + edges) * (SPEED_OF_LIGHT_KM_S / _H0)
    distance = np.where(distance <= luminosity_distance_mpc(MAX_REDSHIFT), distance, np.nan)
    z = np.interp(distance, table, edges)
    for _ in range(3):  # Newton: the table is good to 1e-3, each step squares that
        z = np.clip(z, 1e-300, MAX_REDSHIFT)
        z = z - ((1.0 + z) * _comoving_mpc(z) - distance) / _luminosity_slope_mpc(z)
    return np.asarray(z)


def distance_modulus(distance_mpc: ArrayLike) -> NDArray[np.float64]:
    """Return m - M in magnitudes at luminosity distances in Mpc, any shape."""
    return np.asarray(5.0 * np.log10(_usable(distance_mpc)) + 25.0)


def separation_kpc(separation_arcsec: ArrayLike, angular_distance_mpc: ArrayLike) -> NDArray[np.float64]:
    """Return the projected distance in kpc of separations in arcsec at angular-diameter distances in Mpc."""
    return np.radians(np.asarray(separation_arcsec, dtype=np.float64) / 3600.0) * 1e3 * _usable(angular_distance_mpc)


def reach_arcsec(radius_kpc: ArrayLike, angular_distance_mpc: ArrayLike) -> NDArray[np.float64]:
    """Return the angle in arcsec that a radius in kpc spans at angular-diameter distances in Mpc, at most 5 degrees."""
    angle = np.degrees(_usable(radius_kpc) / (1e3 * _usable(angular_distance_mpc))) * 3600.0
    return np.minimum(angle, MAX_REACH_ARCSEC)


@dataclass(frozen=True)
class Distances:
    """Distances of galaxies, each of shape (n,), NaN where unknown: Mpc, the error 1 sigma."""

    luminosity_mpc: NDArray[np.float64]
    luminosity_err_mpc: NDArray[np.float64]
    angular_mpc: NDArray[np.float64]


def galaxy_distances(
    distance_mpc: ArrayLike | None = None,
    distance_err_mpc: ArrayLike | None = None,
    angular_distance_mpc: ArrayLike | None = None,
    redshift: ArrayLike | None = None,
) -> Distances:
    """Settle the distances of galaxies from what a catalog tells of them.

    Below a redshift of 0.02, or without one, the catalog's luminosity distance holds, its error unknown where the
    catalog gives none. From 0.02 on, or where the catalog gives no distance, the distance is that of the redshift; its
    error is the catalog's, else what 300 km/s of peculiar velocity make of it.

    Parameters
    ----------
    distance_mpc, distance_err_mpc, angular_distance_mpc, redshift : array_like of shape (n,), optional
        Columns of the catalog: luminosity distance, its 1 sigma, angular-diameter distance, redshift. NaN is unknown,
        and so are zero and below, which catalogs write for it.

    Returns
    -------
    Distances
        Of the same n.
    """
    given = [distance_mpc, distance_err_mpc, angular_distance_mpc, redshift]
    shape = next((np.shape(item) for item in given if item is not None), (0,))
    own, err, angular, z = (np.full(shape, np.nan) if item is None else _usable(item) for item in given)
    z = _usable(z, MAX_REDSHIFT)
    by_redshift = ~np.isnan(z) & ((z >= CATALOG_DISTANCE_REDSHIFT) | np.isnan(own))
    luminosity = np.where(by_redshift, luminosity_distance_mpc(z), own)
    peculiar = _luminosity_slope_mpc(z) * (1.0 + z) * (PECULIAR_VELOCITY_KM_S / SPEED_OF_LIGHT_KM_S)
    err = np.where(by_redshift & np.isnan(err), peculiar, err)
    flow = np.where(np.isnan(z), redshift_at_luminosity_distance(luminosity), z)
    own_angular = np.where(by_redshift | np.isnan(angular), luminosity / (1.0 + flow) ** 2, angular)
    return Distances(luminosity, np.where(np.isnan(luminosity), np.nan, err), own_angular)
