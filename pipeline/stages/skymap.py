"""Alerts on one sky map: credible level, probability density, time since the event, prior activity."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.schema import column, from_columns
from pipeline.skymap import SkyMap, levels

VERSION = 1
REQUIRES = ("healpix_29", "mjd", "first_mjd", "first_mjd_is_bound")


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
            f"{prefix}_has_prior_activity",
            pa.bool_(),
            doc=f"first detected before {event}; null where a cut history leaves it open",
        ),
    ]


def match(alerts: pa.Table, skymap: SkyMap) -> pa.Table:
    """Look every alert up on the map.

    Parameters
    ----------
    alerts : pyarrow.Table
        ``healpix_29``, ``mjd``, ``first_mjd`` (TAI) and ``first_mjd_is_bound``; any number of rows.
    skymap : SkyMap
        The map. Without an event time, delays and prior activity are null.

    Returns
    -------
    pyarrow.Table
        The columns of :func:`produces`, same rows.
    """
    cells = alerts.column("healpix_29").to_numpy()
    level, density = levels(skymap, cells)
    nowhere = np.asarray(cells) < 0
    event_mjd = pa.scalar(skymap.event_mjd, pa.float64())  # null where the map tells no time
    first_mjd = alerts.column("first_mjd")
    was_active = pc.less(first_mjd, event_mjd)
    # A cut history proves activity before the event, never its absence: the first detection may be earlier still.
    is_open = pc.and_(pc.fill_null(alerts.column("first_mjd_is_bound"), False), pc.invert(was_active))
    prefix = f"skymap_{skymap.event}"
    return from_columns(
        {
            f"{prefix}_credible_level": pa.array(level, mask=nowhere),
            f"{prefix}_density_per_deg2": pa.array(density, mask=nowhere),
            f"{prefix}_delay_day": pc.subtract(alerts.column("mjd"), event_mjd),
            f"{prefix}_first_delay_day": pc.subtract(first_mjd, event_mjd),
            f"{prefix}_has_prior_activity": pc.if_else(is_open, pa.scalar(None, pa.bool_()), was_active),
        },
        pa.schema(produces(skymap)),
    )
