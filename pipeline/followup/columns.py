"""What a search adds to an alert, and the times it is computed from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.schema import column
from pipeline.skymap import DEG2_PER_SR, SkyMap
from pipeline.stages.skymap import has_prior_detection

EVENT_COLUMNS = pa.schema(
    [
        column("event", pa.string(), nullable=False, doc="event of the sky map"),
        column(
            "credible_level", pa.float64(), nullable=False, doc="probability of all places at least as dense as this"
        ),
        column(
            "probdensity", pa.float64(), unit="sr-1", nullable=False, doc="probability per steradian, as PROBDENSITY"
        ),
        column(
            "volume_level",
            pa.float64(),
            doc="probability of all places in space at least as dense as the host; null without a distance",
        ),
        column("delay_day", pa.float64(), unit="d", doc="time of this alert minus time of the event"),
        column("first_delay_day", pa.float64(), unit="d", doc="first detection minus time of the event"),
        column(
            "has_prior_detection",
            pa.bool_(),
            doc="first detected before the event; null where a cut history leaves it open",
        ),
        column(
            "has_prior_forced",
            pa.bool_(),
            doc="a forced flux of 5 sigma or more before the event; null where no forced flux was measured before it",
        ),
        column("has_prior_alert", pa.bool_(), doc="an alert of this object before the event, anywhere in the archive"),
        column(
            "has_prior_activity",
            pa.bool_(),
            doc="any of the three; null where none is true and the first detection is not known or open",
        ),
    ]
)


@dataclass(frozen=True)
class Pairs:
    """Alerts within contours: one entry for each alert and event.

    Attributes
    ----------
    skymap, row : numpy.ndarray of int64, shape (n,)
        Number of the map, and row of the table that goes with this.
    credible_level, density_per_deg2 : numpy.ndarray of float64, shape (n,)
        What the map says there.
    """

    skymap: NDArray[np.int64]
    row: NDArray[np.int64]
    credible_level: NDArray[np.float64]
    density_per_deg2: NDArray[np.float64]

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self.row)

    def take(self, chosen: NDArray) -> Pairs:
        """Return the pairs chosen by number or mask."""
        return Pairs(self.skymap[chosen], self.row[chosen], self.credible_level[chosen], self.density_per_deg2[chosen])


@dataclass(frozen=True)
class Forced:
    """Forced photometry of some alerts: times of the first flux, TAI, shape (n,) each; infinite where there is none.

    Attributes
    ----------
    measured, significant : numpy.ndarray of float64
        Of any measured flux, and of one that is significant.
    """

    measured: NDArray[np.float64]
    significant: NDArray[np.float64]


def join_forced(many: Sequence[Forced]) -> Forced:
    """Return all in one, one after the other."""
    none = [np.zeros(0)]
    return Forced(
        np.concatenate(none + [item.measured for item in many]),
        np.concatenate(none + [item.significant for item in many]),
    )


def join_pairs(many: Sequence[Pairs]) -> Pairs:
    """Return all pairs in one; rows must already count in one common table."""
    none = np.zeros(0, dtype=np.int64)
    if not many:
        return Pairs(none, none, np.zeros(0), np.zeros(0))
    return Pairs(
        np.concatenate([item.skymap for item in many]),
        np.concatenate([item.row for item in many]),
        np.concatenate([item.credible_level for item in many]),
        np.concatenate([item.density_per_deg2 for item in many]),
    )


def event_times(maps: Sequence[SkyMap]) -> NDArray[np.float64]:
    """Return the time of each event, TAI, shape (k,); NaN where its map tells none."""
    return np.array([np.nan if item.event_mjd is None else item.event_mjd for item in maps], dtype=np.float64)


def event_columns(
    alerts: pa.Table,
    maps: Sequence[SkyMap],
    pairs: Pairs,
    volume_level: NDArray[np.float64],
    forced: Forced,
    first_alert_mjd: NDArray[np.float64],
) -> list[pa.Array]:
    """Return the columns of :data:`EVENT_COLUMNS`, one entry a pair.

    Parameters
    ----------
    alerts : pyarrow.Table
        ``mjd``, ``first_mjd`` and ``first_mjd_is_bound`` of each row, (m,).
    maps : sequence of SkyMap
        The maps that ``pairs`` number.
    pairs : Pairs
        Which alert, which event; (n,).
    volume_level : numpy.ndarray, shape (n,)
        Of each pair; NaN where there is none.
    forced : Forced
        Of each row, (m,).
    first_alert_mjd : numpy.ndarray, shape (m,)
        First alert of the object in the archive, of each row; infinite for none.
    """
    times = event_times(maps)[pairs.skymap]
    event_mjd = pa.array(times, mask=np.isnan(times))
    rows = pa.array(pairs.row)
    first_mjd = alerts.column("first_mjd").take(rows)
    detected = has_prior_detection(first_mjd, alerts.column("first_mjd_is_bound").take(rows), event_mjd)
    significant = pa.array(forced.significant[pairs.row] < times, mask=~(forced.measured[pairs.row] < times))
    alerted = pc.less(pa.array(first_alert_mjd[pairs.row]), event_mjd)
    names = pa.array([item.event for item in maps], pa.string())
    return [
        names.take(pa.array(pairs.skymap)),
        pa.array(pairs.credible_level),
        pa.array(pairs.density_per_deg2 * DEG2_PER_SR),
        pa.array(volume_level, mask=np.isnan(volume_level)),
        pc.subtract(alerts.column("mjd").take(rows), event_mjd),
        pc.subtract(first_mjd, event_mjd),
        detected,
        significant,
        alerted,
        # Without forced photometry nothing was seen there; a cut history may well have shown something.
        pc.or_kleene(detected, pc.or_(pc.fill_null(significant, False), alerted)),
    ]
