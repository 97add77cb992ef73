"""True and measured difference fluxes of objects at the visits of their fields."""

from __future__ import annotations

import numba as nb
import numpy as np

from pipeline.simulate.draws import normal_of, stream_number
from pipeline.simulate.transients import GRID, observed_njy, thermal_grid
from pipeline.simulate.variables import NUCLEUS, RR_LYRAE, relative_flux, walk_step

NONE = 99
"""Family of what has flux in its trigger exposure only: asteroids, glints, artefacts."""

_NOISE = stream_number("photometric noise")
_FORCED = stream_number("forced photometry noise")
_WALK = stream_number("damped random walk")

FORCED_EXTRA = 0.25
"""Forced photometry repeats the detection's pixels, so it shares its noise; this much of sigma is its own."""

CALIBRATION = 0.01
"""Relative calibration error, added to the error of every point."""


@nb.njit(cache=True, nogil=True, error_model="numpy")
def true_flux(  # type: ignore[no-untyped-def]
    seed, key, family, params, redshift, distance_mpc, blanket_nm, scale, reference_njy, extinction, wavelength_nm,
    first, last, visits, mjd, band, luminosity, temperature, out,
):  # fmt: skip
    """Fill the true difference flux (nJy) of one object at visits[first:last] of its field, in time order.

    ``params`` (8,), ``reference_njy`` and ``extinction`` (mag per band) of the object; ``luminosity``,
    ``temperature`` are work arrays of GRID points.
    """
    if family == NONE:
        out[:] = 0.0
        return
    if family < RR_LYRAE:
        thermal_grid(family, params, luminosity, temperature)
    walk = 0.0
    for i in range(first, last):
        visit = visits[i]
        b = band[visit]
        if family < RR_LYRAE:
            flux = scale * observed_njy(
                luminosity, temperature, params[6], mjd[visit] - params[7], wavelength_nm[b], redshift, distance_mpc,
                blanket_nm,
            )  # fmt: skip
            out[i - first] = flux * 10.0 ** (-0.4 * extinction[b])
        elif family == NUCLEUS:
            shock = normal_of(seed, key, _WALK, np.uint64(visit))
            if i == first:
                walk = params[1] * shock
            else:
                walk = walk_step(walk, mjd[visit] - mjd[visits[i - 1]], params[0], params[1], shock)
            swing = (params[2] + walk) * (wavelength_nm[b] / 478.0) ** -0.479
            out[i - first] = reference_njy[b] * params[3] * (10.0 ** (-0.4 * swing) - 1.0)
        else:
            out[i - first] = reference_njy[b] * (relative_flux(family, mjd[visit], wavelength_nm[b], params) - 1.0)


@nb.njit(cache=True, nogil=True, error_model="numpy")
def flux_error(true_njy, limit_mag):  # type: ignore[no-untyped-def]
    """Return 1 sigma (nJy): a fifth of the limit, and the calibration error of the flux."""
    sky = 10.0 ** (0.4 * (31.4 - limit_mag)) / 5.0
    return np.sqrt(sky * sky + (CALIBRATION * true_njy) ** 2)


@nb.njit(cache=True, nogil=True, error_model="numpy")
def light_curves(  # type: ignore[no-untyped-def]
    seed, key, family, params, redshift, distance_mpc, blanket_nm, scale, reference_njy, extinction, field,
    trigger_njy, wavelength_nm, visits, first_of_field, mjd, band, limit_mag, limit_shift, offsets,
    out_visit, out_true, out_flux, out_error, out_forced,
):  # fmt: skip
    """Fill the light curves of many objects at every visit of their fields up to a last one.

    ``trigger_njy`` is the true flux at the last visit of the family NONE. ``limit_shift`` (mag) is the detector's.
    Rows of object i are offsets[i]:offsets[i+1].
    """
    luminosity, temperature = np.empty(GRID), np.empty(GRID)
    for i in range(key.size):
        first = first_of_field[field[i]]
        n = offsets[i + 1] - offsets[i]
        rows = slice(offsets[i], offsets[i + 1])
        true_flux(
            seed, key[i], family[i], params[i], redshift[i], distance_mpc[i], blanket_nm[i], scale[i],
            reference_njy[i], extinction[i], wavelength_nm, first, first + n, visits, mjd, band, luminosity,
            temperature, out_true[rows],
        )  # fmt: skip
        if family[i] == NONE and n > 0:
            out_true[offsets[i + 1] - 1] = trigger_njy[i]
        for j in range(n):
            row = offsets[i] + j
            visit = visits[first + j]
            error = flux_error(out_true[row], limit_mag[visit] + limit_shift[i])
            noise = normal_of(seed, key[i], _NOISE, np.uint64(visit))
            own = normal_of(seed, key[i], _FORCED, np.uint64(visit))
            out_visit[row] = visit
            out_error[row] = error
            out_flux[row] = out_true[row] + error * noise
            out_forced[row] = out_true[row] + error * (np.sqrt(1.0 - FORCED_EXTRA**2) * noise + FORCED_EXTRA * own)
