"""Alerts on one sky map: credible level, density, time since the event, what was there before, level in volume."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline import cosmology, lightcurve
from pipeline.schema import column, from_columns
from pipeline.skymap import SkyMap, levels, volume_levels

VERSION = 2
REQUIRES = ("healpix_29", "mjd", "first_mjd", "first_mjd_is_bound", "light_curve")
HOST_REQUIRES = ("host_distance_mpc", "host_distance_err_mpc")
FORCED_SIGMA = 5.0
"""A forced flux of at least so many standard deviations, of either sign, is activity."""


def requires(skymap: SkyMap, *, has_host: bool) -> tuple[str, ...]:
    """Return the columns that a match with this map reads: the host's too, where there are hosts and distances."""
    return (*REQUIRES, *HOST_REQUIRES) if has_host and skymap.has_distance else REQUIRES


def produces(skymap: SkyMap) -> list[pa.Field]:
    """Return the columns that a match with this map adds, ``skymap_<event>_*``."""
    prefix, event = f"skymap_{skymap.event}", skymap.event
    return [
        column(
            f"{prefix}_credible_level",
            pa.float64(),
            doc=f"probability of all places at least as dense on the map of {event}; 1 where its density is 0",
        ),
        column(
            f"{prefix}_density_per_deg2", pa.float64(), unit="deg-2", doc=f"probability density of {event} per deg2"
        ),
        column(f"{prefix}_delay_day", pa.float64(), unit="d", doc=f"time of this alert minus time of {event}"),
        column(f"{prefix}_first_delay_day", pa.float64(), unit="d", doc=f"first detection minus time of {event}"),
        column(
            f"{prefix}_has_prior_detection",
            pa.bool_(),
            doc=f"first detected before {event}; null where a cut history leaves it open",
        ),
        column(
            f"{prefix}_has_prior_forced",
            pa.bool_(),
            doc=f"a forced flux of 5 sigma or more before {event}; null where no forced flux was measured before it",
        ),
        column(
            f"{prefix}_volume_level",
            pa.float64(),
            doc=f"credible level of the host's place and distance in the volume of {event}; null without either",
        ),
    ]


def match(alerts: pa.Table, skymap: SkyMap) -> pa.Table:
    """Look every alert up on the map.

    Parameters
    ----------
    alerts : pyarrow.Table
        ``healpix_29``, ``mjd``, ``first_mjd`` (TAI), ``first_mjd_is_bound``, ``light_curve`` and, for the level in
        volume, ``host_distance_mpc`` and ``host_distance_err_mpc`` (luminosity distance); any number of rows.
    skymap : SkyMap
        The map. Without an event time, delays and prior activity are null; without distances, the level in volume is.

    Returns
    -------
    pyarrow.Table
        The columns of :func:`produces`, same rows.
    """
    cells = np.asarray(alerts.column("healpix_29").to_numpy())
    level, density = levels(skymap, cells)
    nowhere = cells < 0
    event_mjd = pa.scalar(skymap.event_mjd, pa.float64())  # null where the map tells no time
    first_mjd = alerts.column("first_mjd")
    prefix = f"skymap_{skymap.event}"
    return from_columns(
        {
            f"{prefix}_credible_level": pa.array(level, mask=nowhere),
            f"{prefix}_density_per_deg2": pa.array(density, mask=nowhere),
            f"{prefix}_delay_day": pc.subtract(alerts.column("mjd"), event_mjd),
            f"{prefix}_first_delay_day": pc.subtract(first_mjd, event_mjd),
            f"{prefix}_has_prior_detection": has_prior_detection(
                first_mjd, alerts.column("first_mjd_is_bound"), event_mjd
            ),
            f"{prefix}_has_prior_forced": has_prior_forced(alerts.column("light_curve"), skymap.event_mjd),
            f"{prefix}_volume_level": _volume_level(alerts, skymap, cells),
        },
        pa.schema(produces(skymap)),
    )


def has_prior_detection(first_mjd: pa.ChunkedArray, is_bound: pa.ChunkedArray, event_mjd: pa.Scalar) -> pa.ChunkedArray:
    """Return whether the first detection was before the event; null where it is not known or the history is cut."""
    was_active = pc.less(first_mjd, event_mjd)
    # A cut history proves activity before the event, never its absence: the first detection may be earlier still.
    is_open = pc.and_(pc.fill_null(is_bound, False), pc.invert(was_active))
    return pc.if_else(is_open, pa.scalar(None, pa.bool_()), was_active)


def has_prior_forced(light_curve: pa.ChunkedArray | pa.Array, event_mjd: float | None) -> pa.Array:
    """Return whether any forced flux before the event is at least 5 sigma from 0.

    Parameters
    ----------
    light_curve : pyarrow array, (n,)
        Light curves; only forced photometry with a flux and an error counts.
    event_mjd : float or None
        Time of the event, TAI.

    Returns
    -------
    pyarrow.BooleanArray, (n,)
        True; False where forced fluxes were measured before the event and none is significant; null where none was
        measured before it, or it has no time: nothing is known then.
    """
    ends = lightcurve.offsets(light_curve)
    if event_mjd is None:
        return pa.nulls(len(ends) - 1, pa.bool_())
    mjd, flux, error = (
        lightcurve.floats(lightcurve.elements(light_curve, name)) for name in ("mjd", "flux_njy", "flux_err_njy")
    )
    with np.errstate(invalid="ignore"):
        before = lightcurve.booleans(lightcurve.elements(light_curve, "is_forced")) & (mjd < event_mjd)
        before &= np.isfinite(flux) & (error > 0)
        significant = before & (np.abs(flux) >= FORCED_SIGMA * error)
    measured, active = lightcurve.count(ends, before), lightcurve.count(ends, significant)
    return pa.array(active > 0, mask=measured == 0)


def _volume_level(alerts: pa.Table, skymap: SkyMap, cells: NDArray[np.int64]) -> pa.Array:
    if not skymap.has_distance or not set(HOST_REQUIRES) <= set(alerts.column_names):
        return pa.nulls(alerts.num_rows, pa.float64())
    distance, error = (lightcurve.floats(alerts.column(name)) for name in HOST_REQUIRES)
    level = volume_levels(skymap, cells, distance, distance_errors_mpc(distance, error))
    return pa.array(level, mask=np.isnan(level))


def distance_errors_mpc(distance_mpc: NDArray[np.float64], error_mpc: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return errors of hosts' luminosity distances; where none is known, what 300 km/s of peculiar velocity make.

    Shape (n,); NaN where the distance is.
    """
    known = np.isfinite(distance_mpc) & (distance_mpc > 0)
    z = cosmology.redshift_at_luminosity_distance(np.where(known, distance_mpc, 1.0))
    step = (1.0 + z) * cosmology.PECULIAR_VELOCITY_KM_S / cosmology.SPEED_OF_LIGHT_KM_S
    peculiar = (cosmology.luminosity_distance_mpc(z + step) - cosmology.luminosity_distance_mpc(z)).astype(np.float64)
    return np.where(known, np.where(np.isnan(error_mpc), peculiar, error_mpc), np.nan)
