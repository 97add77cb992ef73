"""What a source at a known distance gives off: absolute magnitude, luminosity, and the dust of the Milky Way before it.

No K-correction anywhere: a luminosity is that at the rest wavelength lambda / (1+z) of the band. Whatever is unknown is
NaN and stays NaN in all that is made of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import erfa
import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.cosmology import distance_modulus

Float = NDArray[np.float64]

_SPEED_OF_LIGHT_NM_SEC = 2.99792458e17
_SPHERE_ERG_PER_SEC = 4.0 * math.pi * (3.0856775814913673e24) ** 2 * 1e-32
"""4 pi (1 Mpc)^2 x 1 nJy, in erg/s/Hz: 1 Mpc is 3.0857e24 cm, 1 nJy is 1e-32 erg/s/cm2/Hz."""
_MAG_PER_RELATIVE_DISTANCE = 5.0 / math.log(10.0)


@dataclass(frozen=True)
class Passband:
    """One band of one instrument.

    Attributes
    ----------
    wavelength_nm : float
        Where its flux density is taken to be measured.
    extinction : float
        A / E(B-V), E(B-V) as on the map of Schlegel, Finkbeiner & Davis (1998); their later rescaling is inside.
    """

    wavelength_nm: float
    extinction: float


LSST: Mapping[str, Passband] = {
    "u": Passband(367.1, 4.145),
    "g": Passband(482.7, 3.237),
    "r": Passband(622.3, 2.273),
    "i": Passband(754.6, 1.684),
    "z": Passband(869.1, 1.323),
    "y": Passband(971.2, 1.088),
}
"""Effective wavelengths of the LSST throughputs, release 1.4; A/E(B-V) of Schlafly & Finkbeiner (2011, ApJ 737, 103,
doi:10.1088/0004-637X/737/2/103, table 6, R_V = 3.1)."""

ZTF: Mapping[str, Passband] = {
    "g": Passband(475.9, 3.272),
    "r": Passband(639.0, 2.197),
    "i": Passband(792.8, 1.561),
}
"""Pivot wavelengths of the SVO Filter Profile Service (Palomar/ZTF; Rodrigo & Solano 2020). Table 6 of Schlafly &
Finkbeiner (2011) has no ZTF: A/E(B-V) is interpolated in wavelength between its nearest bands at R_V = 3.1 (g: SDSS g
468.6 nm 3.303 and DES g 484.2 nm 3.237; r: PS1 r 621.5 nm 2.271 and DES r 643.9 nm 2.176; i: DES i 782.1 nm 1.595 and
PS1 z 867.9 nm 1.322), within 2 % of that paper's reddening law at these wavelengths."""


def wavelengths_nm(passbands: Mapping[str, Passband], bands: ArrayLike) -> Float:
    """Return the wavelength of each band by name, shape (n,); NaN for one that is not known."""
    return _by_name({name: item.wavelength_nm for name, item in passbands.items()}, bands)


def extinction_mag(passbands: Mapping[str, Passband], bands: ArrayLike, ebv_mag: ArrayLike) -> Float:
    """Return the extinction A in magnitudes.

    Parameters
    ----------
    passbands : mapping
        The instrument's bands.
    bands : array_like of str, shape (n,)
        Band of each row.
    ebv_mag : array_like, shape (n,)
        E(B-V) on the map of Schlegel, Finkbeiner & Davis.

    Returns
    -------
    numpy.ndarray, shape (n,)
        NaN where the band or the reddening is not known.
    """
    ratio = _by_name({name: item.extinction for name, item in passbands.items()}, bands)
    return np.asarray(ratio * np.asarray(ebv_mag, dtype=np.float64))


def _by_name(values: Mapping[str, float], names: ArrayLike) -> Float:
    asked, place = np.unique(np.asarray(names, dtype=object).astype(str), return_inverse=True)
    known = np.array([values.get(str(name), math.nan) for name in asked], dtype=np.float64)
    return known[place.reshape(-1)] if len(asked) else np.empty(0)


def absolute_mag(
    mag: ArrayLike, distance_mpc: ArrayLike, redshift: ArrayLike = 0.0, extinction: ArrayLike = 0.0
) -> Float:
    """Return M = m - A - DM + 2.5 log10(1+z) at the rest wavelength lambda / (1+z).

    Parameters
    ----------
    mag : array_like
        Apparent AB magnitude.
    distance_mpc : array_like
        Luminosity distance.
    redshift : array_like
        Redshift; where it is NaN, or not above -1, the last term is left out.
    extinction : array_like
        A in magnitudes; where it is NaN, none is taken off.

    Returns
    -------
    numpy.ndarray
        Of the common shape; NaN where magnitude or distance is unknown.
    """
    z = np.asarray(redshift, dtype=np.float64)
    stretch = np.log10(np.where(z > -1.0, 1.0 + z, 1.0))
    faded = np.nan_to_num(np.asarray(extinction, dtype=np.float64), nan=0.0)
    return np.asarray(np.asarray(mag, dtype=np.float64) - faded - distance_modulus(distance_mpc) + 2.5 * stretch)


def absolute_err_mag(mag_err: ArrayLike, distance_mpc: ArrayLike, distance_err_mpc: ArrayLike) -> Float:
    """Return the 1 sigma error of an absolute magnitude, to first order; NaN where either error is unknown."""
    distance = np.asarray(distance_mpc, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = np.where(distance > 0, np.asarray(distance_err_mpc, dtype=np.float64) / distance, np.nan)
    return np.hypot(np.asarray(mag_err, dtype=np.float64), _MAG_PER_RELATIVE_DISTANCE * relative)


def nu_lnu_erg_s(
    flux_njy: ArrayLike, wavelength_nm: ArrayLike, distance_mpc: ArrayLike, extinction: ArrayLike = 0.0
) -> Float:
    """Return nu L_nu = 4 pi D_L^2 nu_obs F_nu in erg/s, with the sign of the flux.

    It is the luminosity at the rest frequency nu_obs (1+z): the width of the band and the frequency stretch alike, so
    no power of 1+z is left over (Hogg et al. 2002, arXiv:astro-ph/0210394, eq. 6).

    Parameters
    ----------
    flux_njy : array_like
        Flux density, signed.
    wavelength_nm : array_like
        Observed wavelength of the band.
    distance_mpc : array_like
        Luminosity distance.
    extinction : array_like
        A in magnitudes; where it is NaN, none is made up for.

    Returns
    -------
    numpy.ndarray
        Of the common shape; NaN where flux, wavelength or distance is unknown.
    """
    distance = np.asarray(distance_mpc, dtype=np.float64)
    frequency = _SPEED_OF_LIGHT_NM_SEC / np.asarray(wavelength_nm, dtype=np.float64)
    kept = 10.0 ** (0.4 * np.nan_to_num(np.asarray(extinction, dtype=np.float64), nan=0.0))
    sphere = np.where(distance > 0, distance, np.nan) ** 2 * _SPHERE_ERG_PER_SEC
    return np.asarray(np.asarray(flux_njy, dtype=np.float64) * kept * frequency * sphere)


def galactic(ra: ArrayLike, dec: ArrayLike) -> tuple[Float, Float]:
    """Return Galactic longitude [0, 360) and latitude, degrees, of ICRS positions, degrees, any shape.

    By the rotation of the Hipparcos catalogue (ESA SP-1200, 1997, vol. 1, section 1.5.3); NaN gives NaN.
    """
    with np.errstate(invalid="ignore"):
        longitude, latitude = erfa.icrs2g(np.radians(ra), np.radians(dec))
    return np.degrees(longitude) % 360.0, np.degrees(latitude)


def galactic_latitude_deg(ra: ArrayLike, dec: ArrayLike) -> Float:
    """Return the Galactic latitude, degrees, of ICRS positions, degrees, any shape."""
    return galactic(ra, dec)[1]
