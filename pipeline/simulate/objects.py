"""Simulated objects as columns, and the distances and fluxes that they are made with."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import lru_cache

import numpy as np
from astropy.cosmology import Planck18

from pipeline.simulate.lightcurves import NONE


@dataclass
class Objects:
    """Objects of one class or many; arrays of shape (n,) unless said otherwise.

    ``key`` names an object in every random draw. ``params`` (n, 8) as the family's function says. ``reference_njy``
    and ``extinction`` (n, n_bands). ``source_njy`` (n, n_bands) and ``source_sep_arcsec``: the nearest source of the
    reference image (the star itself, or the host's centre), ``source_angle`` its direction (rad, from north to
    east), ``source_px`` its half-light radius in arcsec (0: a star). ``limit_shift`` is the detector's (mag).
    """

    key: np.ndarray
    code: np.ndarray
    family: np.ndarray
    params: np.ndarray
    redshift: np.ndarray
    distance_mpc: np.ndarray
    blanket_nm: np.ndarray
    scale: np.ndarray
    reference_njy: np.ndarray
    extinction: np.ndarray
    source_njy: np.ndarray
    source_sep_arcsec: np.ndarray
    source_angle: np.ndarray
    source_arcsec: np.ndarray
    field: np.ndarray
    detector: np.ndarray
    x: np.ndarray
    y: np.ndarray
    ra: np.ndarray
    dec: np.ndarray
    limit_shift: np.ndarray
    trigger_njy: np.ndarray
    peak_abs_mag: np.ndarray
    peak_mjd: np.ndarray
    period_days: np.ndarray
    link: np.ndarray

    def take(self, rows: np.ndarray) -> Objects:
        """Return the objects at ``rows``."""
        return Objects(**{item.name: getattr(self, item.name)[rows] for item in fields(self)})

    @classmethod
    def concatenate(cls, parts: list[Objects]) -> Objects:
        """Return the objects of all ``parts``, in order."""
        return cls(**{item.name: np.concatenate([getattr(part, item.name) for part in parts]) for item in fields(cls)})

    @classmethod
    def blank(cls, keys: np.ndarray, code: int, n_bands: int) -> Objects:
        """Return objects without flux, source or place."""
        n = keys.size
        nan = np.full(n, np.nan)
        out = {item.name: nan.copy() for item in fields(cls)}
        out["key"], out["code"] = keys.astype(np.int64), np.full(n, code, np.int64)
        for name in ("field", "detector"):
            out[name] = np.zeros(n, np.int64)
        out["link"] = np.full(n, -1, np.int64)
        out["family"] = np.full(n, NONE, np.int64)
        for name in ("reference_njy", "extinction", "source_njy"):
            out[name] = np.zeros((n, n_bands))
        out["params"] = np.zeros((n, 8))
        out["scale"] = np.ones(n)
        for name in ("redshift", "distance_mpc", "blanket_nm", "source_angle", "source_arcsec", "limit_shift"):
            out[name] = np.zeros(n)
        out["trigger_njy"] = np.zeros(n)
        return cls(**out)


@lru_cache(maxsize=1)
def _distances() -> tuple[np.ndarray, np.ndarray]:
    """Return a table of (redshift, comoving distance in Mpc) of Planck 2018."""
    z = np.expm1(np.linspace(0, np.log(9.0), 800))
    return z, Planck18.comoving_distance(z).value


def redshift_at(comoving_mpc: np.ndarray) -> np.ndarray:
    """Return the redshift of a comoving distance."""
    z, comoving = _distances()
    return np.interp(comoving_mpc, comoving, z)


def luminosity_distance(redshift: np.ndarray) -> np.ndarray:
    """Return luminosity distances in Mpc."""
    z, comoving = _distances()
    return np.interp(redshift, z, comoving) * (1 + redshift)


def njy(mag: np.ndarray) -> np.ndarray:
    """Return AB magnitudes as nJy."""
    return 10.0 ** (0.4 * (31.4 - mag))
