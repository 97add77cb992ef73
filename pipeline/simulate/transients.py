"""Light curves of exploding and disrupted stars, from their power source and photon diffusion.

Every model gives a bolometric luminosity and a photosphere on a grid of rest-frame time, and radiates as a black body
with ultraviolet blanketing. Nothing here has the form of a function that a science module fits.

References
----------
Diffusion of the power of a source through homologous ejecta: Arnett 1982, doi:10.1086/159681.
56Ni and 56Co: Nadyozhin 1994, doi:10.1086/192008; gamma-ray leakage: Clocchiatti & Wheeler 1997, doi:10.1086/304961.
Photosphere R = v t until it has cooled to a floor temperature: Nicholl et al. 2017, doi:10.3847/1538-4357/aa9334.
Type II plateau (recombination in a hydrogen envelope): Popov 1993, doi:10.1086/173117.
Magnetar spin-down: Kasen & Bildsten 2010, doi:10.1088/0004-637X/717/1/245.
Pair-instability supernovae (several solar masses of 56Ni): Kasen et al. 2011, doi:10.1088/0004-637X/734/2/102.
Kilonovae: heating of Korobkin et al. 2012 (doi:10.1111/j.1365-2966.2012.21859.x), thermalisation of Barnes et al. 2016
(doi:10.3847/0004-637X/829/2/110), one zone of Metzger 2017 (doi:10.1007/s41114-017-0006-z).
Tidal disruption events: fallback as t^-5/3 (Rees 1988, doi:10.1038/333523a0) through a viscous delay (Mockler et al.
2019, doi:10.3847/1538-4357/ab010f) at constant temperature.
"""

from __future__ import annotations

import numba as nb
import numpy as np

NI56, MAGNETAR, R_PROCESS, PLATEAU, FALLBACK = range(5)
"""Power sources."""

GRID = 200
"""Points of the rest-frame time grid, spaced as squares: dense at early times."""

SUN_G = 1.98841e33
DAY_SEC = 86400.0
MPC_CM = 3.0856775814913673e24
STEFAN = 5.670374419e-5
_LIGHT = 2.99792458e10
_PLANCK = 6.62607015e-27
_BOLTZMANN = 1.380649e-16


@nb.njit(cache=True, nogil=True, error_model="numpy")
def _power(source, t, p):  # type: ignore[no-untyped-def]
    """Return the heating in erg/s at rest-frame time ``t`` (s); ``p`` as in :func:`thermal_grid`."""
    if source == NI56:
        days = t / DAY_SEC
        return p[0] * SUN_G * ((3.90e10 - 6.78e9) * np.exp(-days / 8.8) + 6.78e9 * np.exp(-days / 111.3))
    if source == MAGNETAR:
        spin_ms, field_14 = p[0], p[5]
        energy = 2e50 * (10.0 / spin_ms) ** 2
        spin_down = 1.3 * 3.156e7 * (spin_ms / 10.0) ** 2 / field_14**2
        return energy / spin_down / (1.0 + t / spin_down) ** 2
    if source == R_PROCESS:
        heat = 4e18 * (0.5 - np.arctan((t - 1.3) / 0.11) / np.pi) ** 1.3
        days = t / DAY_SEC
        x = 2.0 * 0.19 * days**0.86
        return p[0] * SUN_G * heat * 0.36 * (np.exp(-0.55 * days) + np.log1p(x) / x)
    peak = p[5] * DAY_SEC  # fallback: linear onset to the most bound debris' peak, then t^-5/3
    rise = t / peak
    return p[0] * (rise if rise < 1.0 else rise ** (-5.0 / 3.0))


@nb.njit(cache=True, nogil=True, error_model="numpy")
def thermal_grid(source, p, luminosity, temperature):  # type: ignore[no-untyped-def]
    """Fill the bolometric luminosity (erg/s) and temperature (K) on the grid t_i = p[6] (i/(GRID-1))^2 days.

    ``p`` (8,): 0 amount (56Ni or ejecta mass in Msun, spin in ms, peak power in erg/s; for the plateau the 56Ni of the
    tail), 1 diffusion or viscous time in days (plateau: Popov's t_a), 2 photospheric velocity in cm/s (fallback:
    none), 3 floor (fallback: constant) temperature in K, 4 gamma-ray leakage time in days, 5 magnetic field in 1e14 G,
    time of peak fallback in days, or beginning of recombination in days, 6 end of the grid in days.
    """
    n = luminosity.size
    tau = p[1] * DAY_SEC
    integral = 0.0
    previous, heat_before = 0.0, 0.0
    for i in range(n):
        t = max(p[6] * DAY_SEC * (i / (n - 1.0)) ** 2, 1.0)
        if source == PLATEAU:
            luminosity[i] = _plateau(t, p)
        else:
            heat = _power(source, t, p)
            steps = 4
            for step in range(steps):
                a = previous + (t - previous) * step / steps
                b = previous + (t - previous) * (step + 1) / steps
                weight = (step + 0.5) / steps
                q = heat_before + (heat - heat_before) * weight
                if source == FALLBACK:
                    decay = np.exp(-(b - a) / tau)
                    integral = integral * decay + q * (1.0 - decay)
                else:
                    decay = np.exp(-(b * b - a * a) / (tau * tau))
                    integral = integral * decay + q * (1.0 - decay)
            luminosity[i] = integral
            previous, heat_before = t, heat
        if p[4] > 0.0:
            luminosity[i] *= -np.expm1(-((p[4] * DAY_SEC / t) ** 2))
        if source == FALLBACK:
            temperature[i] = p[3]
        else:
            radius = p[2] * t
            hot = (max(luminosity[i], 1.0) / (4.0 * np.pi * STEFAN * radius * radius)) ** 0.25
            temperature[i] = min(max(hot, p[3]), 1e5)


@nb.njit(cache=True, nogil=True, error_model="numpy")
def _plateau(t, p):  # type: ignore[no-untyped-def]
    """Return Popov's luminosity: diffusion, then a recombination wave, then the power of 56Co."""
    t_a, t_i = p[1] * DAY_SEC, p[5] * DAY_SEC
    scale = 8.0 * np.pi * STEFAN * p[3] ** 4 * p[2] ** 2
    if t < t_i:
        bright = scale * t_i * t_i * np.exp((t_i * t_i - t * t) / (t_a * t_a))
    else:
        bright = scale * (t_i * t * (1.0 + t_i * t_i / (3.0 * t_a * t_a)) - t**4 / (3.0 * t_a * t_a))
    tail = p[0] * SUN_G * 6.78e9 * np.exp(-t / DAY_SEC / 111.3)
    return max(bright, 0.0) + tail * -np.expm1(-((t / (60.0 * DAY_SEC)) ** 2))


@nb.njit(cache=True, nogil=True, error_model="numpy")
def spectral_luminosity(bolometric, temperature, wavelength_nm, blanket_nm):  # type: ignore[no-untyped-def]
    """Return L_nu (erg/s/Hz) at a rest wavelength: a black body, damped as lambda^2 below ``blanket_nm``."""
    frequency = _LIGHT / (wavelength_nm * 1e-7)
    x = _PLANCK * frequency / (_BOLTZMANN * temperature)
    if x > 200.0:
        return 0.0
    planck = 2.0 * _PLANCK * frequency**3 / _LIGHT**2 / np.expm1(x)
    out = np.pi * planck * bolometric / (STEFAN * temperature**4)
    if wavelength_nm < blanket_nm:
        out *= (wavelength_nm / blanket_nm) ** 2
    return out


@nb.njit(cache=True, nogil=True, error_model="numpy")
def observed_njy(  # type: ignore[no-untyped-def]
    luminosity, temperature, end_days, age_days, wavelength_nm, redshift, distance_mpc, blanket_nm
):
    """Return the observed flux (nJy) at ``age_days`` (observer's frame) after the explosion; 0 before and after."""
    rest = age_days / (1.0 + redshift)
    if rest <= 0.0 or rest >= end_days:
        return 0.0
    at = np.sqrt(rest / end_days) * (luminosity.size - 1)
    i = min(int(at), luminosity.size - 2)
    w = at - i
    bolometric = luminosity[i] + (luminosity[i + 1] - luminosity[i]) * w
    if i == 0:
        kelvin = temperature[1]
    else:
        kelvin = temperature[i] + (temperature[i + 1] - temperature[i]) * w
    l_nu = spectral_luminosity(bolometric, kelvin, wavelength_nm / (1.0 + redshift), blanket_nm)
    return (1.0 + redshift) * l_nu / (4.0 * np.pi * (distance_mpc * MPC_CM) ** 2) * 1e32


@nb.njit(cache=True, nogil=True, error_model="numpy")
def peak_of_grid(luminosity, temperature, end_days, wavelength_nm, blanket_nm):  # type: ignore[no-untyped-def]
    """Return (greatest L_nu, its rest-frame time in days) at one rest wavelength."""
    best, when = 0.0, 0.0
    for i in range(1, luminosity.size):
        here = spectral_luminosity(luminosity[i], temperature[i], wavelength_nm, blanket_nm)
        if here > best:
            best = here
            when = end_days * (i / (luminosity.size - 1.0)) ** 2
    return best, when


@nb.njit(cache=True, nogil=True, error_model="numpy")
def peaks(source, p, wavelength_nm, blanket_nm, magnitude, when):  # type: ignore[no-untyped-def]
    """Fill peak absolute AB magnitude and rest-frame time of peak (days) of each row of ``p`` (n, 8)."""
    luminosity, temperature = np.empty(GRID), np.empty(GRID)
    for row in range(p.shape[0]):
        thermal_grid(source[row], p[row], luminosity, temperature)
        best, when[row] = peak_of_grid(luminosity, temperature, p[row, 6], wavelength_nm, blanket_nm[row])
        flux = best / (4.0 * np.pi * (1e-5 * MPC_CM) ** 2)
        magnitude[row] = -2.5 * np.log10(max(flux, 1e-60)) - 48.6
