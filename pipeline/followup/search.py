"""The search of an archive for alerts within contours: any range of nights, any number of maps, one pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline import surveys
from pipeline.archive import Archive
from pipeline.archive.pruning import Part
from pipeline.errors import InputError
from pipeline.followup.columns import EVENT_COLUMNS, Forced, Pairs, event_columns, event_times, join_forced, join_pairs
from pipeline.followup.hosts import hosts_of, luminosities_of, pair_volume_levels
from pipeline.followup.prior import first_alert_mjd, objects_of
from pipeline.followup.progress import Progress, Silent
from pipeline.followup.reading import Contour, Touch, contour, forced_of, pairs_of, science_rows
from pipeline.luminosity import Passband
from pipeline.night import date_number
from pipeline.paths import parse_night
from pipeline.skymap import SkyMap
from pipeline.stages.luminosity import Dust

if TYPE_CHECKING:
    from pipeline.catalogs import Catalog

_STAGE = "parts"


@dataclass(frozen=True)
class Search:
    """What to look for.

    Attributes
    ----------
    maps : sequence of SkyMap
        Sky maps, no two of one event.
    start, stop : int or str
        First and last night, both included.
    credible_level : float
        Of the contour, above 0 and up to 1.
    window_day : tuple of float, optional
        Days before and after the event within which an alert counts.
    host : bool
        Add host galaxies, and the level in space.
    catalogs : sequence of Catalog
        Built catalogs with hosts; without any, the host columns of the release are taken.
    luminosity : bool
        Add luminosities at the host's distance.
    dust : Dust, optional
        Map of the dust of the Milky Way that luminosities are corrected with.
    release, survey : str, optional
        Release of the science dataset; survey, needed if the archive holds several.
    """

    maps: Sequence[SkyMap]
    start: int | str
    stop: int | str
    credible_level: float = 0.9
    window_day: tuple[float, float] | None = None
    host: bool = False
    catalogs: Sequence[Catalog] = ()
    luminosity: bool = False
    dust: Dust | None = None
    release: str = "main"
    survey: str | None = None

    @property
    def nights(self) -> str:
        """The range of nights as the archive takes it."""
        return f"{parse_night(self.start)}:{parse_night(self.stop)}"

    def check(self) -> None:
        """Raise :class:`InputError` where it cannot be done."""
        if not self.maps:
            raise InputError("no sky map is given", mend="name a FITS file, a notice or an event of the store")
        if not 0 < self.credible_level <= 1:
            raise InputError(
                f"credible level {self.credible_level:g} is not above 0 and up to 1", mend="give for example 0.9"
            )
        if parse_night(self.start) > parse_night(self.stop):
            raise InputError(f"{self.start} is after {self.stop}", mend="give the first night, then the last")
        check_events(self.maps)
        timeless = [item.event for item in self.maps if item.event_mjd is None]
        if self.window_day is not None and timeless:
            raise InputError(
                f"the map of {timeless[0]} tells no time of its event", mend="leave --window out, or search it alone"
            )
        if self.window_day is not None and not (np.isfinite(self.window_day).all() and sum(self.window_day) >= 0):
            raise InputError(
                f"window {self.window_day[0]:g} {self.window_day[1]:g} is empty", mend="give days before and after"
            )


@dataclass(frozen=True)
class Found:
    """What a search found, and what it read for that.

    Attributes
    ----------
    table : pyarrow.Table
        One row for each alert and event, by (event, mjd, alert_id): the science columns, then those of
        :data:`pipeline.followup.columns.EVENT_COLUMNS`, then hosts and luminosities where asked for.
    nights, parts : int
        Nights and parts of the range.
    nights_opened, parts_opened : int
        Those of which at least the cells were read.
    parts_found : int
        Parts that had a row.
    """

    table: pa.Table
    nights: int
    parts: int
    nights_opened: int
    parts_opened: int
    parts_found: int


@dataclass
class _Gathered:
    """Rows of parts, one after the other, and the pairs and times that go with them."""

    tables: list[pa.Table] = field(default_factory=list)
    pairs: list[Pairs] = field(default_factory=list)
    forced: list[Forced] = field(default_factory=list)
    rows: int = 0

    def add(self, part: Part, pairs: Pairs, schema: pa.Schema, *, is_timed: bool) -> None:
        rows, place = np.unique(pairs.row, return_inverse=True)
        table = science_rows(part, rows, schema)
        never = np.full(len(rows), np.inf)
        self.forced.append(forced_of(part, rows, table.column("alert_id")) if is_timed else Forced(never, never))
        table = table.append_column(pa.field("night", pa.int32()), pa.array(np.full(len(rows), part.night, np.int32)))
        self.tables.append(table)
        self.pairs.append(Pairs(pairs.skymap, place + self.rows, pairs.credible_level, pairs.density_per_deg2))
        self.rows += len(rows)


def search(
    archive: Archive,
    maps: Sequence[SkyMap],
    start: int | str,
    stop: int | str,
    *,
    progress: Progress | None = None,
    **options: Any,
) -> pa.Table:
    """Return the alerts within contours of sky maps, one row for each alert and event.

    Parameters
    ----------
    archive : Archive
        The archive.
    maps, start, stop, **options
        As of :class:`Search`: ``credible_level``, ``window_day``, ``host``, ``catalogs``, ``luminosity``, ``dust``,
        ``release``, ``survey``.
    progress : Progress, optional
        Is told how far it is.

    Returns
    -------
    pyarrow.Table
        See :class:`Found`.

    Raises
    ------
    InputError
        What is asked for cannot be done: no such nights, survey or release, a level outside (0, 1].
    """
    return find(archive, Search(maps, start, stop, **options), progress).table


def find(archive: Archive, asked: Search, progress: Progress | None = None) -> Found:
    """Search, and tell what was read; see :func:`search`."""
    progress = progress or Silent()
    asked.check()
    selection = archive.science(asked.nights, release=asked.release, survey=asked.survey)
    nights = _nights(archive, asked)
    schema = pa.schema([item for item in selection.full_schema if item.name not in (*EVENT_COLUMNS.names, "night")])
    contours = [contour(item, asked.credible_level, asked.window_day) for item in asked.maps]
    gathered = _Gathered()
    opened = _gather(selection.parts, contours, schema, gathered, progress)
    pairs = join_pairs(gathered.pairs)
    alerts = pa.concat_tables(gathered.tables) if gathered.tables else _no_rows(schema)
    first_alert = _first_alerts(archive, asked, alerts, pairs, progress)
    forced = join_forced(gathered.forced)
    passbands = surveys.get(opened[0].survey).passbands if opened else {}
    table = _assemble(asked, alerts, pairs, forced, first_alert, passbands)
    return Found(
        table=table,
        nights=len(nights),
        parts=sum(len(archive.ledger(night, asked.survey)["parts"]) for night in nights),
        nights_opened=len({part.night for part in opened}),
        parts_opened=len(opened),
        parts_found=len(gathered.tables),
    )


def check_events(maps: Sequence[SkyMap]) -> None:
    """Raise :class:`InputError` where two maps have one name: their rows could not be told apart."""
    names = [item.event for item in maps]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"two maps are of event {twice[0]}", mend="name one yourself: NAME=FILE")


def _nights(archive: Archive, asked: Search) -> list[int]:
    first, last = parse_night(asked.start), parse_night(asked.stop)
    return [night for night in archive.nights(asked.survey) if first <= night <= last]


def _no_rows(schema: pa.Schema) -> pa.Table:
    return schema.append(pa.field("night", pa.int32())).empty_table()


def _gather(
    parts: Sequence[Part], contours: Sequence[Contour], schema: pa.Schema, gathered: _Gathered, progress: Progress
) -> list[Part]:
    """Read the rows within the contours; returns the parts that were opened."""
    touch = Touch(contours)
    touched = [(part, numbers) for part in parts if len(numbers := touch(part))]
    is_timed = any(item.skymap.event_mjd is not None for item in contours)
    progress.stage(_STAGE, len(touched))
    for part, numbers in touched:
        pairs = pairs_of(part, contours, numbers)
        if len(pairs):
            gathered.add(part, pairs, schema, is_timed=is_timed)
        progress.advance(_STAGE)
    return [part for part, _ in touched]


def _first_alerts(
    archive: Archive, asked: Search, alerts: pa.Table, pairs: Pairs, progress: Progress
) -> NDArray[np.float64]:
    """Return the time of the first alert of each row's object, anywhere in the archive before the events."""
    times = event_times(asked.maps)
    if not len(pairs) or np.isnan(times).all():
        return np.full(alerts.num_rows, np.inf)
    first, last = np.full(alerts.num_rows, np.inf), np.full(alerts.num_rows, -np.inf)
    of_pair = times[pairs.skymap]
    np.minimum.at(first, pairs.row, np.where(np.isnan(of_pair), np.inf, of_pair))
    np.maximum.at(last, pairs.row, np.where(np.isnan(of_pair), -np.inf, of_pair))
    objects, number = objects_of(alerts.column("object_key"), alerts.column("healpix_29").to_numpy(), first, last)
    # A night's date is within a day of its times, whatever its survey counts by.
    newest = int(date_number(np.nanmax(times) + 2.0))
    earlier = [night for night in archive.nights(asked.survey) if night <= newest]
    parts = archive.alerts(earlier, survey=asked.survey).parts
    return first_alert_mjd(parts, objects, progress)[number]


def _assemble(
    asked: Search,
    alerts: pa.Table,
    pairs: Pairs,
    forced: Forced,
    first_alert: NDArray[np.float64],
    passbands: Mapping[str, Passband],
) -> pa.Table:
    """Return the result: alerts repeated by event, hosts and levels added, in order."""
    added = hosts_of(alerts, asked.catalogs) if asked.host or asked.luminosity else pa.table({})
    if asked.luminosity:
        made = luminosities_of(alerts, added, passbands, asked.dust)
        added = pa.table([*added.columns, *made.columns], schema=pa.schema([*added.schema, *made.schema]))
    volume = pair_volume_levels(asked.maps, pairs, alerts, added)
    events = event_columns(alerts, asked.maps, pairs, volume, forced, first_alert)
    rows = pa.array(pairs.row)
    kept = [name for name in alerts.column_names if name not in added.column_names]
    columns = {name: alerts.column(name).take(rows) for name in kept}
    fields = [alerts.schema.field(name) for name in kept]
    columns |= dict(zip(EVENT_COLUMNS.names, events, strict=True))
    columns |= {name: added.column(name).take(rows) for name in added.column_names}
    table = pa.table(list(columns.values()), schema=pa.schema([*fields, *EVENT_COLUMNS, *added.schema]))
    order = pc.sort_indices(table, [("event", "ascending"), ("mjd", "ascending"), ("alert_id", "ascending")])
    return table.take(order)
