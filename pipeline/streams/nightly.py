"""Two streams of alerts matched both ways, night by night: two surveys of a root, or one survey of two roots."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.archive import Archive, Selection
from pipeline.errors import InputError
from pipeline.paths import parse_night
from pipeline.schema import column
from pipeline.streams import reading
from pipeline.streams.reading import Progress, Silent
from pipeline.streams.writing import Rows, written_folder
from pipeline.xmatch import Pairs, build_index, within_at

_MOST_NIGHTS_APART = 36_525
FILES = ("forward.parquet", "backward.parquet", "pairs.parquet")

_DIRECTION = pa.schema(
    [
        column("night", pa.int32(), nullable=False, doc="observing night of the alert, YYYYMMDD"),
        column("alert_id", pa.int64(), nullable=False, doc="alert"),
        column("object_key", pa.string(), nullable=False, doc="its object"),
        column("ra", pa.float64(), unit="deg", nullable=False, doc="ICRS right ascension of the alert"),
        column("dec", pa.float64(), unit="deg", nullable=False, doc="ICRS declination of the alert"),
        column("mjd", pa.float64(), unit="d", nullable=False, doc="TAI at mid-exposure"),
        column("other_alert_id", pa.int64(), nullable=False, doc="nearest alert of the other stream"),
        column("other_night", pa.int32(), nullable=False, doc="observing night of that alert"),
        column("other_mjd", pa.float64(), unit="d", nullable=False, doc="its time, TAI"),
        column("separation_arcsec", pa.float64(), unit="arcsec", nullable=False, doc="separation from that alert"),
        column("other_object_key", pa.string(), nullable=False, doc="object of that alert"),
        column("other_n_detections", pa.int32(), nullable=False, doc="detections that its latest alert here tells"),
        column("other_last_mjd", pa.float64(), unit="d", nullable=False, doc="time of its latest alert here, TAI"),
        column("other_last_band", pa.string(), nullable=False, doc="band of that latest alert"),
        column("other_last_mag", pa.float64(), unit="mag", doc="difference magnitude of that latest alert"),
        column("n_other_alerts", pa.int32(), nullable=False, doc="alerts of the other stream within the radius"),
        column("n_other_objects", pa.int32(), nullable=False, doc="objects of the other stream within the radius"),
    ]
)
_PAIRS = pa.schema(
    [
        column("object_key", pa.string(), nullable=False, doc="object of the first stream"),
        column("other_object_key", pa.string(), nullable=False, doc="object of the second stream"),
        column("separation_arcsec", pa.float64(), unit="arcsec", nullable=False, doc="smallest separation of alerts"),
        column("n_alert_pairs", pa.int64(), nullable=False, doc="pairs of alerts within the radius"),
        column("nights", pa.list_(pa.int32()), nullable=False, doc="nights of the first stream with such a pair"),
    ]
)


@dataclass(frozen=True)
class Stream:
    """One survey of one archive."""

    archive: Archive
    survey: str

    @property
    def told(self) -> str:
        """Its name in messages."""
        return f"{self.survey} in {self.archive.root}"


@dataclass(frozen=True)
class Matched:
    """What a match of two streams found.

    Attributes
    ----------
    forward, backward : int
        Alerts of the first stream with one of the second within the radius, and the other way.
    alerts, other_alerts : int
        Alerts that were looked at.
    object_pairs : int
        Pairs of objects.
    nights_alone, other_nights_alone : tuple of int
        Nights of either stream for which the other has no night at all: not consulted, which is not "no match".
    """

    forward: int
    backward: int
    alerts: int
    other_alerts: int
    object_pairs: int
    nights_alone: tuple[int, ...]
    other_nights_alone: tuple[int, ...]


def match_streams(
    first: Stream,
    second: Stream,
    start: int,
    stop: int,
    out: str | Path,
    *,
    radius_arcsec: float = 2.0,
    nights_apart: int = 0,
    look_ahead_day: float = 0.0,
    progress: Progress | None = None,
) -> Matched:
    """Match two streams both ways by night and write ``forward``, ``backward`` and ``pairs`` (Parquet).

    Parameters
    ----------
    first, second : Stream
        What is matched.
    start, stop : int
        First and last night, YYYYMMDD, of the alerts that get a neighbour.
    out : path
        Folder to write.
    radius_arcsec : float
        Largest separation.
    nights_apart : int
        How many days the night of the neighbour may be before or after. Surveys name nights differently: one dark time
        is the UTC date for ZTF and the date of the noon before for Rubin.
    look_ahead_day : float
        How many days later than an alert its neighbour may have been taken; 0 is none, so that what an alert gets was
        known when it came. Pairs of objects are those of all alerts, whichever came first.

    Raises
    ------
    InputError
        The streams are one, a number makes no sense, a survey has none of the nights, or ``out`` cannot be written.
    """
    if first.archive.root == second.archive.root and first.survey == second.survey:
        raise InputError(f"{first.told} would be matched with itself", mend="name another survey or root")
    if not 0.0 < radius_arcsec <= reading.RING_ARCSEC:
        raise InputError(f"a radius of {radius_arcsec:g} arcsec is not above 0 and at most {reading.RING_ARCSEC:g}")
    if not 0 <= nights_apart <= _MOST_NIGHTS_APART or not look_ahead_day >= 0.0:
        raise InputError(f"nights apart are a number from 0 to {_MOST_NIGHTS_APART}, days to look ahead one from 0 on")
    early, late = (_shifted(night, days) for night, days in ((start, -nights_apart), (stop, nights_apart)))
    reading.select(first.archive, first.survey, start, stop)
    selections = [reading.select(item.archive, item.survey, early, late) for item in (first, second)]
    match = _Match(radius_arcsec, nights_apart, look_ahead_day, progress or Silent())
    with written_folder(out, FILES) as folder:
        found = []
        met: list[pa.Table] = []
        held = [item.archive.nights(item.survey) for item in (first, second)]
        for name, mine, other in ((FILES[0], 0, 1), (FILES[1], 1, 0)):
            rows = Rows(folder / name, _DIRECTION)
            nights = [night for night in held[mine] if start <= night <= stop]
            alone = tuple(night for night in nights if not any(match.is_near(night, item) for item in held[other]))
            try:
                seen = match.one_way(name, selections[mine], selections[other], nights, rows, met if not mine else None)
                found.append((rows.rows, seen, alone))
                rows.finish()
            finally:
                rows.abandon()
        object_pairs = _object_pairs(met)
        pairs = Rows(folder / FILES[2], _PAIRS)
        pairs.add(object_pairs)
        pairs.finish()
    return Matched(
        forward=found[0][0],
        backward=found[1][0],
        alerts=found[0][1],
        other_alerts=found[1][1],
        object_pairs=len(object_pairs),
        nights_alone=found[0][2],
        other_nights_alone=found[1][2],
    )


@dataclass(frozen=True)
class _Match:
    radius_arcsec: float
    nights_apart: int
    look_ahead_day: float
    progress: Progress

    def one_way(
        self,
        name: str,
        mine: Selection,
        other: Selection,
        nights: list[int],
        rows: Rows,
        met: list[pa.Table] | None,
    ) -> int:
        """Match some nights of one stream; return how many alerts they have."""
        stage = name.removesuffix(".parquet")
        self.progress.stage(stage, len(nights))
        seen = 0
        for night in nights:
            beside = [part for part in other.parts if self.is_near(night, part.night)]
            these = [part for part in mine.parts if part.night == night]
            parts = reading.touching(these, reading.sky_of_parts(beside, self.radius_arcsec))
            others = reading.touching(beside, reading.sky_of_parts(parts, self.radius_arcsec))
            seen += sum(part.rows for part in these)
            if parts and others:
                alerts = reading.read(mine, parts)
                # In time order, so that of two alerts the one with the larger row is the later.
                theirs = reading.read(other, others).sort_by([("mjd", "ascending"), ("alert_id", "ascending")])
                index, given = build_index(theirs.column("ra").to_numpy(), theirs.column("dec").to_numpy())
                found = within_at(reading.positions_of(alerts), self.radius_arcsec, index)
                pairs = Pairs(found.alert, given[found.row], found.separation_arcsec)
                if met is not None and len(pairs):
                    met.append(_met(night, alerts, theirs, pairs))
                rows.add(self._nearest(alerts, theirs, pairs))
            self.progress.advance(stage)
        return seen

    def is_near(self, night: int, other: int) -> bool:
        """Return whether alerts of two nights are matched."""
        return abs((_date(night) - _date(other)).days) <= self.nights_apart

    def _nearest(self, alerts: pa.Table, theirs: pa.Table, pairs: Pairs) -> pa.Table:
        """Return the matched alerts with what they get of the other stream's alerts that are not too late."""
        mjd, other_mjd = alerts.column("mjd").to_numpy(), theirs.column("mjd").to_numpy()
        known = other_mjd[pairs.row] <= mjd[pairs.alert] + self.look_ahead_day
        alert, row, separation = pairs.alert[known], pairs.row[known], pairs.separation_arcsec[known]
        by = np.lexsort((row, separation, alert))
        alert, row, separation = alert[by], row[by], separation[by]
        first = np.flatnonzero(np.diff(alert, prepend=-1))
        count = np.diff(np.append(first, len(alert)))
        keys = pc.dictionary_encode(theirs.column("object_key").combine_chunks()).indices.to_numpy()
        is_same = keys[row] == np.repeat(keys[row[first]], count)
        latest = np.maximum.reduceat(np.where(is_same, row, -1), first) if len(first) else row
        nearest, last = theirs.take(pa.array(row[first])), theirs.take(pa.array(latest))
        of_alert = alerts.take(pa.array(alert[first]))
        return pa.table(
            [
                *(of_alert.column(name) for name in ("night", "alert_id", "object_key", "ra", "dec", "mjd")),
                *(nearest.column(name) for name in ("alert_id", "night", "mjd")),
                pa.array(separation[first]),
                nearest.column("object_key"),
                *(last.column(name) for name in ("n_detections", "mjd", "band", "diff_mag")),
                pa.array(count.astype(np.int32)),
                pa.array(_distinct(alert, keys[row])[alert[first]]),
            ],
            names=_DIRECTION.names,
        )


def _distinct(alert: NDArray[np.int64], key: NDArray[np.integer]) -> NDArray[np.int32]:
    """Return how many different keys each alert has, shape (largest alert + 1,)."""
    by = np.lexsort((key, alert))
    is_new = (np.diff(alert[by], prepend=-1) != 0) | (np.diff(key[by], prepend=-1) != 0)
    return np.bincount(alert[by][is_new]).astype(np.int32)


def _met(night: int, alerts: pa.Table, theirs: pa.Table, pairs: Pairs) -> pa.Table:
    """Return the pairs of objects of one night."""
    table = pa.table(
        {
            "object_key": alerts.column("object_key").take(pa.array(pairs.alert)),
            "other_object_key": theirs.column("object_key").take(pa.array(pairs.row)),
            "separation_arcsec": pa.array(pairs.separation_arcsec),
        }
    )
    counted = [("separation_arcsec", "min"), ("separation_arcsec", "count")]
    grouped = table.group_by(["object_key", "other_object_key"], use_threads=False).aggregate(counted)
    return grouped.append_column("night", pa.array(np.full(len(grouped), night, dtype=np.int32)))


def _object_pairs(met: list[pa.Table]) -> pa.Table:
    """Return the pairs of objects of all nights, by their keys."""
    if not met:
        return _PAIRS.empty_table()
    table = pa.concat_tables(met)
    summed = [("separation_arcsec_min", "min"), ("separation_arcsec_count", "sum"), ("night", "list")]
    grouped = table.group_by(["object_key", "other_object_key"], use_threads=False).aggregate(summed)
    named = grouped.select(["object_key", "other_object_key", *(f"{name}_{what}" for name, what in summed)])
    return named.rename_columns(_PAIRS.names).sort_by([("object_key", "ascending"), ("other_object_key", "ascending")])


def _date(night: int) -> datetime.date:
    return datetime.date(night // 10_000, night // 100 % 100, night % 100)


def _shifted(night: int, days: int) -> int:
    moved = _date(parse_night(str(night))) + datetime.timedelta(days=days)
    return int(moved.strftime("%Y%m%d"))
