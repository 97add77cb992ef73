"""Light curves of variable stars and nuclei: total flux over reference flux, from geometry, physics and templates.

Each function returns F(t) / F_reference at one time and wavelength; ``p`` are the object's parameters (8,).

References
----------
RR Lyrae: Fourier decomposition of Simon & Teays 1982 (doi:10.1086/160368) with the mean phases of ab stars; amplitude
ratios of Sesar et al. 2010 (doi:10.1088/0004-637X/708/1/717).
Eclipsing binaries: the overlap of two uniform discs on a circular orbit (exact geometry).
Dwarf novae: rise, plateau and viscous decay of disc-instability outbursts, Cannizzo, Chen & Livio 1995
(doi:10.1086/176541); colours of a steady disc, F_nu ~ nu^1/3 (Lynden-Bell 1969, doi:10.1038/223690a0).
Microlensing: Paczynski 1986, doi:10.1086/164140.
M-dwarf flares: template of Davenport et al. 2014, doi:10.1088/0004-637X/797/2/122, radiating at 9,000 K.
Obscuration: a dust clump that condenses before the star and disperses, Clayton 1996 (doi:10.1086/133715), with the
extinction law of Cardelli, Clayton & Mathis 1989 (doi:10.1086/167900) at R_V 3.1.
Active nuclei: damped random walk, Kelly, Bechtold & Siemiginowska 2009 (doi:10.1088/0004-637X/698/1/895), with the
amplitudes of MacLeod et al. 2010 (doi:10.1088/0004-637X/721/2/1014).
"""

from __future__ import annotations

import numba as nb
import numpy as np

RR_LYRAE, ECLIPSING, DWARF_NOVA, MICROLENSING, FLARE, OBSCURED, NUCLEUS = range(10, 17)
"""Families of light curves, beside the power sources of :mod:`pipeline.simulate.transients` (0 to 4)."""

_AMPLITUDES = np.array([1.0, 0.47, 0.34, 0.22, 0.14, 0.09])
_PHASES = np.array([0.0, 3.9, 1.9, 6.0, 4.0, 2.0])


@nb.njit(cache=True, nogil=True, error_model="numpy")
def rr_lyrae(mjd, wavelength_nm, p):  # type: ignore[no-untyped-def]
    """p: 0 period (d), 1 epoch, 2 amplitude in g (mag, peak to peak), 3 overtone (0 ab, 1 c)."""
    angle = 2.0 * np.pi * ((mjd - p[1]) / p[0] - np.floor((mjd - p[1]) / p[0]))
    if p[3] > 0.5:
        shape = 0.5 * (np.cos(angle) + 0.12 * np.cos(2.0 * angle + 4.2))
    else:
        shape = 0.0
        for k in range(6):
            shape += _AMPLITUDES[k] * np.cos((k + 1) * angle + _PHASES[k])
        shape *= 0.3415
    return 10.0 ** (-0.4 * p[2] * (wavelength_nm / 478.0) ** -1.15 * shape)


@nb.njit(cache=True, nogil=True, error_model="numpy")
def disc_overlap(d, r1, r2):  # type: ignore[no-untyped-def]
    """Return the area common to two discs of radii r1, r2 at distance d."""
    if d >= r1 + r2:
        return 0.0
    small = min(r1, r2)
    if d <= abs(r1 - r2):
        return np.pi * small * small
    a = (d * d + r1 * r1 - r2 * r2) / (2.0 * d)
    b = d - a
    corner = np.sqrt(max(r1 * r1 - a * a, 0.0))
    area1 = r1 * r1 * np.arccos(min(max(a / r1, -1.0), 1.0)) - a * corner
    area2 = r2 * r2 * np.arccos(min(max(b / r2, -1.0), 1.0)) - b * corner
    return area1 + area2


@nb.njit(cache=True, nogil=True, error_model="numpy")
def eclipsing(mjd, wavelength_nm, p):  # type: ignore[no-untyped-def]
    """p: 0 period (d), 1 epoch of primary eclipse, 2, 3 radii over separation, 4 cos(inclination), 5 T1, 6 T2 (K)."""
    angle = 2.0 * np.pi * (mjd - p[1]) / p[0]
    distance = np.sqrt(np.sin(angle) ** 2 + (np.cos(angle) * p[4]) ** 2)
    bright1 = 1.0 / np.expm1(1.438777e7 / (wavelength_nm * p[5]))
    bright2 = 1.0 / np.expm1(1.438777e7 / (wavelength_nm * p[6]))
    whole = np.pi * (p[2] ** 2 * bright1 + p[3] ** 2 * bright2)
    hidden = disc_overlap(distance, p[2], p[3])
    return 1.0 - hidden * (bright1 if np.cos(angle) > 0.0 else bright2) / whole


@nb.njit(cache=True, nogil=True, error_model="numpy")
def dwarf_nova(mjd, wavelength_nm, p):  # type: ignore[no-untyped-def]
    """p: 0 recurrence (d), 1 epoch, 2 amplitude (mag), 3 rise (d), 4 plateau (d), 5 decay (d per mag)."""
    age = (mjd - p[1]) - p[0] * np.floor((mjd - p[1]) / p[0])
    if age < p[3]:
        brightening = p[2] * age / p[3]
    elif age < p[3] + p[4]:
        brightening = p[2] - 0.3 * (age - p[3]) / p[4]
    else:
        brightening = max(p[2] - 0.3 - (age - p[3] - p[4]) / p[5], 0.0)
    return 1.0 + (10.0 ** (0.4 * brightening) - 1.0) * (478.0 / wavelength_nm) ** (1.0 / 3.0)


@nb.njit(cache=True, nogil=True, error_model="numpy")
def microlensing(mjd, p):  # type: ignore[no-untyped-def]
    """p: 0 Einstein time (d), 1 epoch of closest approach, 2 impact parameter, 3 fraction of the light lensed."""
    u2 = p[2] ** 2 + ((mjd - p[1]) / p[0]) ** 2
    return 1.0 + p[3] * ((u2 + 2.0) / np.sqrt(u2 * (u2 + 4.0)) - 1.0)


@nb.njit(cache=True, nogil=True, error_model="numpy")
def flare(mjd, wavelength_nm, p):  # type: ignore[no-untyped-def]
    """p: 0 full width at half maximum (d), 1 epoch of peak, 2 amplitude in g over the star's flux, 3 T of the star."""
    t = (mjd - p[1]) / p[0]
    if t < -1.0:
        shape = 0.0
    elif t < 0.0:
        shape = 1.0 + 1.941 * t - 0.175 * t**2 - 2.246 * t**3 - 1.125 * t**4
    else:
        shape = 0.6890 * np.exp(-1.600 * t) + 0.3030 * np.exp(-0.2783 * t)
    hot = np.expm1(1.438777e7 / (478.0 * 9000.0)) / np.expm1(1.438777e7 / (wavelength_nm * 9000.0))
    cool = np.expm1(1.438777e7 / (478.0 * p[3])) / np.expm1(1.438777e7 / (wavelength_nm * p[3]))
    return 1.0 + p[2] * shape * hot / cool


@nb.njit(cache=True, nogil=True, error_model="numpy")
def obscured(mjd, wavelength_nm, p):  # type: ignore[no-untyped-def]
    """p: 0 condensation time (d), 1 onset, 2 greatest A_V (mag), 3 dispersal time (d)."""
    age = mjd - p[1]
    if age <= 0.0:
        return 1.0
    column = -np.expm1(-((age / p[0]) ** 2)) * np.exp(-age / p[3])
    x = 1000.0 / wavelength_nm
    y = x - 1.82
    a = 1.0 + 0.17699 * y - 0.50447 * y**2 - 0.02427 * y**3 + 0.72085 * y**4 + 0.01979 * y**5
    b = 1.41338 * y + 2.28305 * y**2 + 1.07233 * y**3 - 5.38434 * y**4 - 0.62251 * y**5
    if x < 1.1:
        a, b = 0.574 * x**1.61, -0.527 * x**1.61
    return 10.0 ** (-0.4 * p[2] * column * (a + b / 3.1))


@nb.njit(cache=True, nogil=True, error_model="numpy")
def walk_step(before, days, tau_days, sigma, shock):  # type: ignore[no-untyped-def]
    """Return the next value of a damped random walk of standard deviation ``sigma``, given a standard normal shock."""
    decay = np.exp(-days / tau_days)
    return before * decay + sigma * np.sqrt(-np.expm1(-2.0 * days / tau_days)) * shock


@nb.njit(cache=True, nogil=True, error_model="numpy")
def relative_flux(family, mjd, wavelength_nm, p):  # type: ignore[no-untyped-def]
    """Return F / F_reference of one point of any family but the damped random walk."""
    if family == RR_LYRAE:
        return rr_lyrae(mjd, wavelength_nm, p)
    if family == ECLIPSING:
        return eclipsing(mjd, wavelength_nm, p)
    if family == DWARF_NOVA:
        return dwarf_nova(mjd, wavelength_nm, p)
    if family == MICROLENSING:
        return microlensing(mjd, p)
    if family == FLARE:
        return flare(mjd, wavelength_nm, p)
    return obscured(mjd, wavelength_nm, p)
