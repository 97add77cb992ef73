"""Magnitudes and fluxes: AB system, nanojansky.

``m = 31.4 - 2.5 log10(F / nJy)`` (Oke & Gunn 1983, ApJ 266, 713; the zero point is rounded as in Rubin's data
products). NaN stands for "not measured" in every array here and becomes null in Arrow.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float = NDArray[np.float64]

AB_ZERO_POINT_MAG = 31.4
MAG_PER_RELATIVE_FLUX = 2.5 / np.log(10.0)


def flux_from_mag(mag: ArrayLike) -> Float:
    """Return the flux of AB magnitudes, nJy; shape kept."""
    return np.power(10.0, 0.4 * (AB_ZERO_POINT_MAG - np.asarray(mag, dtype=np.float64)))


def flux_error_from_mag(mag: ArrayLike, mag_error: ArrayLike) -> Float:
    """Return the 1 sigma flux error, nJy, of magnitudes with 1 sigma errors (to first order); shape kept."""
    return flux_from_mag(mag) * np.asarray(mag_error, dtype=np.float64) / MAG_PER_RELATIVE_FLUX


def mag_from_flux(flux_njy: ArrayLike) -> Float:
    """Return AB magnitudes of fluxes in nJy; NaN where the flux is not positive; shape kept."""
    flux = np.asarray(flux_njy, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(flux > 0.0, AB_ZERO_POINT_MAG - 2.5 * np.log10(np.where(flux > 0.0, flux, 1.0)), np.nan)


def mag_error_from_flux(flux_njy: ArrayLike, flux_error_njy: ArrayLike) -> Float:
    """Return 1 sigma magnitude errors (to first order); NaN where the flux is not positive; shape kept."""
    flux = np.asarray(flux_njy, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        error = MAG_PER_RELATIVE_FLUX * np.asarray(flux_error_njy, dtype=np.float64) / flux
    return np.where(flux > 0.0, error, np.nan)


def flux_at_zero_point(counts: ArrayLike, zero_point_mag: ArrayLike) -> Float:
    """Return fluxes in nJy of counts whose magnitude is ``zero_point_mag - 2.5 log10(counts)``; shapes broadcast."""
    return np.asarray(counts, dtype=np.float64) * flux_from_mag(zero_point_mag)


def add_reference(
    flux_njy: ArrayLike, flux_error_njy: ArrayLike, reference_mag: ArrayLike, reference_mag_error: ArrayLike
) -> tuple[Float, Float]:
    """Return total ("DC") flux and error: the reference source plus the difference flux.

    Parameters
    ----------
    flux_njy, flux_error_njy : array_like, (n,)
        Signed difference flux and its 1 sigma error, nJy.
    reference_mag, reference_mag_error : array_like, (n,)
        AB magnitude of the source in the reference image of that very epoch, and its 1 sigma error.

    Returns
    -------
    tuple of numpy.ndarray, (n,)
        Total flux and its 1 sigma error, in quadrature, nJy. NaN where an ingredient is; no flux has no error.
    """
    total = np.asarray(flux_njy, dtype=np.float64) + flux_from_mag(reference_mag)
    error = np.hypot(flux_error_njy, flux_error_from_mag(reference_mag, reference_mag_error))
    return total, np.where(np.isnan(total), np.nan, error)
