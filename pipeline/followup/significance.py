"""Chance coincidence of what a search found: p-value, joint false-alarm rate, and bronze, silver, gold.

The background is the archive's own: every new transient of the searched nights and of the month before them that passes
the same rules as a candidate, at the visits that the archive's exposures made. The mathematics is in
:mod:`pipeline.coincidence`, its derivation and its measured behaviour in ``docs/significance.md``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline import coincidence, healpix
from pipeline.archive import Archive
from pipeline.coincidence import Compensator, EventStream, Visits
from pipeline.errors import InputError
from pipeline.events import EventStore
from pipeline.paths import parse_night
from pipeline.schema import column
from pipeline.skymap import SkyMap, event_name, levels, searched_areas
from pipeline.skymap.levels import reached_level
from pipeline.skymap.notices import Event
from pipeline.store.root import Root

COLUMNS = pa.schema(
    [
        column(
            "p_chance",
            pa.float64(),
            doc="probability that an unrelated new transient ranks at least as high; null for what is no candidate",
        ),
        column(
            "joint_far_per_year",
            pa.float64(),
            unit="yr-1",
            doc="events a year, of all streams, with a chance coincidence at least as good",
        ),
        column("selection", pa.string(), doc="bronze, silver or gold; null for what is no candidate"),
    ]
)

CELL_ORDER = 6
"""Order of the cells in which visits are counted: 0.84 square degrees, some alerts of every exposure in each."""
EXPOSURE_ORDER = 10
"""Order of the cells by which the archive knows an exposure."""
LEAD_DAYS = 30
"""Days before the searched nights that the background is measured from, too."""
FEWEST_CANDIDATES = 30
"""With fewer in the background, its rate is the stated one."""
MIN_RELIABILITY = 0.55
STAR_SCORE = 0.5
STAR_ARCSEC = 2.0
"""A candidate is on a star if the nearest PS1 source is within this and scores as a star."""

_RULES = (
    *("is_positive", "is_solar_system", "is_injected", "reliability"),
    *("star_score", "star_separation_arcsec", "first_mjd", "first_mjd_is_bound"),
)


@dataclass(frozen=True)
class Background:
    """Unrelated new transients of an archive.

    Attributes
    ----------
    visits : Visits or None
        With measured rates; None where there is too little to measure.
    nights, candidates : int
        Nights it was measured from, and new transients in them.
    area_visits_deg2 : float
        Area of all visits.
    """

    visits: Visits | None
    nights: int
    candidates: int
    area_visits_deg2: float

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON values, the rate stated."""
        is_measured = self.visits is not None
        return {
            "is_measured": is_measured,
            "nights": self.nights,
            "candidates": self.candidates,
            "rate_per_deg2_visit": self.candidates / self.area_visits_deg2 if is_measured else None,
            "rate_per_deg2_day": None if is_measured else coincidence.CANDIDATE_RATE_ZTF,
        }


@dataclass(frozen=True)
class Assessed:
    """A search's table with :data:`COLUMNS`, and what was assumed and expected, as JSON values.

    Attributes
    ----------
    table : pyarrow.Table
        The rows that were given, in their order.
    summary : dict
        ``background``, ``streams`` (events a year), ``gold_p_limit`` and, by event, ``stream``, ``expected`` unrelated
        candidates in contour and window, ``seen_probability`` of the counterpart, ``silver_p_limit`` and ``selected``.
    """

    table: pa.Table
    summary: dict[str, Any]


def add(
    result: pa.Table,
    archive: Archive,
    maps: Sequence[SkyMap],
    start: int | str,
    stop: int | str,
    *,
    credible_level: float = 0.9,
    streams: Mapping[str, str] | None = None,
    release: str = "main",
    survey: str | None = None,
) -> Assessed:
    """Add p-value, joint false-alarm rate and selection to the rows of a search.

    Parameters
    ----------
    result : pyarrow.Table
        Of :func:`pipeline.followup.search`.
    archive, maps, start, stop, release, survey
        As searched.
    credible_level : float
        Of the contour that was searched. Counterparts beyond it are lost to every selection: 0.99 keeps them.
    streams : mapping of str to str, optional
        Stream of each event by its name; "lvk" where it is not told.

    Returns
    -------
    Assessed
        The table with three more columns.

    Raises
    ------
    InputError
        A stream is not known.
    """
    found = {item.event: coincidence.stream_of((streams or {}).get(item.event, "lvk")) for item in maps}
    background = measure(archive, start, stop, release=release, survey=survey)
    p, joint = np.full((2, result.num_rows), np.nan)
    selection = np.full(result.num_rows, None, dtype=object)
    events = []
    names = pc.dictionary_encode(result.column("event")).combine_chunks()
    for skymap in maps:
        rows = np.flatnonzero(pc.equal(names, skymap.event).to_numpy(zero_copy_only=False))
        chance, limit, told = _assess(
            result.take(pa.array(rows)), skymap, found[skymap.event], credible_level, background
        )
        level = result.column("credible_level").to_numpy()[rows]
        p[rows], joint[rows] = chance, coincidence.joint_far_per_year(chance)
        selection[rows] = coincidence.select(~np.isnan(chance), level, chance, limit)
        counts = {name: int((selection[rows] == name).sum()) for name in ("bronze", "silver", "gold")}
        events.append({"event": skymap.event, **told, "selected": counts})
    summary = {
        "background": background.as_dict(),
        "events_per_year": {name: item.events_per_year for name, item in coincidence.STREAMS.items()},
        "gold_p_limit": coincidence.gold_limit(),
        "events": events,
    }
    table = result
    for field, values in zip(COLUMNS, (p, joint, selection), strict=True):
        mask = np.isnan(values) if pa.types.is_floating(field.type) else None
        table = table.append_column(field, pa.array(values, field.type, mask=mask))
    return Assessed(table, summary)


def _assess(
    rows: pa.Table, skymap: SkyMap, stream: EventStream, credible_level: float, background: Background
) -> tuple[NDArray[np.float64], float, dict[str, Any]]:
    """Return p-values (NaN: no candidate), the silver limit, and what is told of one event."""
    window = stream.counterpart.window_day
    told: dict[str, Any] = {
        "stream": stream.name,
        "window_day": window,
        "is_rate_measured": background.visits is not None,
    }
    if skymap.event_mjd is None:
        unknown = {"expected": None, "seen_probability": None, "silver_p_limit": None}
        return np.full(rows.num_rows, np.nan), 0.0, told | unknown
    delay = rows.column("first_mjd").to_numpy(zero_copy_only=False) - skymap.event_mjd
    has_prior = pc.fill_null(rows.column("has_prior_activity"), False).to_numpy(zero_copy_only=False)
    is_candidate = is_clean(rows) & ~has_prior & (delay > 0) & (delay <= window)
    cells = rows.column("healpix_29").to_numpy()
    if background.visits is None:
        _, area = _contour(skymap, credible_level)
        statistic = coincidence.statistic_uniform(searched_areas(skymap, cells), delay)
        rate = coincidence.CANDIDATE_RATE_ZTF
        chance = coincidence.chance(coincidence.expected_uniform(statistic, rate, area, window))
        expected, seen, limit = rate * area * window, None, 0.0
    else:
        found = expected_of(skymap, stream, credible_level, background.visits)
        row = background.visits.rows(healpix.cell_at(cells, background.visits.order), skymap.event_mjd + delay)
        rank = found.rank_of(levels(skymap, cells)[1], row)
        chance = coincidence.chance(found.expected_at(rank))
        expected, seen = found.total, found.seen
        limit = float(coincidence.chance(found.expected_for_recovery(coincidence.SILVER_RECOVERY)))
    told |= {"expected": expected, "seen_probability": seen, "silver_p_limit": limit}
    return np.where(is_candidate, chance, np.nan), limit, told


def expected_of(skymap: SkyMap, stream: EventStream, credible_level: float, visits: Visits) -> Compensator:
    """Return the expected unrelated candidates of an event within its contour and window, by rank."""
    inside, _ = _contour(skymap, credible_level)
    interval, cell, area = coincidence.pieces_of(skymap.start[inside], skymap.stop[inside], visits.order)
    density = skymap.density_per_deg2[inside][interval]
    event_mjd = np.nan if skymap.event_mjd is None else skymap.event_mjd
    return coincidence.compensate(visits, cell, area, density, event_mjd, stream.counterpart)


def _contour(skymap: SkyMap, credible_level: float) -> tuple[NDArray[np.bool_], float]:
    """Return which intervals lie within a contour, the group of ties that it cuts included, and their area."""
    level = skymap.credible_level
    inside = (level <= reached_level(skymap, credible_level)) & (skymap.density_per_deg2 > 0)
    return inside, float(skymap.area_deg2[inside].sum())


# ------------------------------------------------------------------------------------------------ the background
def is_clean(rows: pa.Table) -> NDArray[np.bool_]:
    """Return which alerts may be of a new transient, shape (n,): one rule for candidates and for the background.

    Brighter than the reference, real, first detected at a known time; no star, no Solar System object, not injected. A
    property that the survey does not give excludes nothing.
    """

    def flags(name: str) -> NDArray[np.bool_]:
        return pc.fill_null(rows.column(name), False).to_numpy(zero_copy_only=False).astype(bool)

    def numbers(name: str) -> NDArray[np.float64]:
        return rows.column(name).cast(pa.float64()).to_numpy(zero_copy_only=False)

    with np.errstate(invalid="ignore"):
        is_star = (numbers("star_score") >= STAR_SCORE) & (numbers("star_separation_arcsec") <= STAR_ARCSEC)
        is_bogus = numbers("reliability") < MIN_RELIABILITY
    is_wrong = is_star | is_bogus | flags("is_solar_system") | flags("is_injected") | flags("first_mjd_is_bound")
    return flags("is_positive") & ~is_wrong & np.isfinite(numbers("first_mjd"))


def measure(
    archive: Archive, start: int | str, stop: int | str, *, release: str = "main", survey: str | None = None
) -> Background:
    """Measure the rate of unrelated new transients, visit by visit, from an archive's own nights.

    Parameters
    ----------
    archive : Archive
        The archive.
    start, stop : int or str
        First and last night searched; the ``LEAD_DAYS`` before them are taken, too.
    release, survey
        As searched.
    """
    first, last = parse_night(start), parse_night(stop)
    lead = int(f"{datetime.strptime(str(first), '%Y%m%d') - timedelta(days=LEAD_DAYS):%Y%m%d}")
    nights = [night for night in archive.nights(survey) if lead <= night <= last]
    if not nights:
        return Background(None, 0, 0, 0.0)
    exposures = archive.exposures(nights, survey=survey).to_arrow()
    exposure, cell, share = _touches(exposures)
    mjd, limit = (exposures.column(name).to_numpy()[exposure] for name in ("mjd", "limit_mag"))
    field = pc.fill_null(exposures.column("field"), -1).to_numpy().astype(np.int64)[exposure]
    visits, row = coincidence.make_visits(CELL_ORDER, cell, mjd)
    seen = _first_seen(archive, nights, visits, float(mjd.min(initial=np.inf)), release, survey)
    area = len(visits.key) * healpix.cell_area_deg2(CELL_ORDER)
    if len(seen) < FEWEST_CANDIDATES:
        return Background(None, len(nights), len(seen), area)
    labels = coincidence.visit_labels(visits, row, field, share, limit)
    return Background(coincidence.fit_rates(visits, seen, labels), len(nights), len(seen), area)


def _touches(exposures: pa.Table) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Return exposure, cell and the share of the cell that its field covers, once for each pair.

    The archive knows an exposure by the small cells that its alerts touch; what a field covers of a cell is taken from
    all that any of its exposures touched there, beside all that any field did.
    """
    lists = exposures.column("cells").combine_chunks()
    small = lists.flatten().to_numpy()
    parent = np.repeat(np.arange(len(lists), dtype=np.int64), np.diff(lists.offsets.to_numpy()))
    number = np.unique(pc.fill_null(exposures.column("field"), -1).to_numpy(), return_inverse=True)[1].astype(np.int64)
    cells, place = np.unique(small, return_inverse=True)
    per_field = np.unique(number[parent] * len(cells) + place)  # each small cell once for each field
    large, index = np.unique(cells >> 2 * (EXPOSURE_ORDER - CELL_ORDER), return_inverse=True)
    width = max(len(large), 1)
    of_pair, count = np.unique(
        per_field // max(len(cells), 1) * width + index[per_field % max(len(cells), 1)], return_counts=True
    )
    share = count / np.bincount(index, minlength=width)[of_pair % width]
    pairs = np.unique(parent * width + index[place])
    exposure, at = pairs // width, pairs % width
    return exposure, large[at], share[np.searchsorted(of_pair, number[exposure] * width + at)]


def _first_seen(
    archive: Archive, nights: Sequence[int], visits: Visits, begin_mjd: float, release: str, survey: str | None
) -> NDArray[np.int64]:
    """Return the visit at which each new transient of the nights was first seen; each object once."""
    columns = ["object_key", "healpix_29", "mjd", *_RULES]
    where = (pc.field("first_mjd") >= begin_mjd) & pc.field("is_positive") & ~pc.field("is_solar_system")
    selected = archive.science(nights, columns=columns, where=where, release=release, survey=survey).to_arrow()
    selected = selected.filter(pa.array(is_clean(selected)))
    selected = selected.sort_by([("mjd", "ascending")])
    number = pc.dictionary_encode(selected.column("object_key")).combine_chunks().indices.to_numpy()
    first = selected.take(pa.array(np.unique(number, return_index=True)[1]))
    cell = healpix.cell_at(first.column("healpix_29").to_numpy(), CELL_ORDER)
    row = visits.rows(cell, first.column("first_mjd").to_numpy())
    return row[row >= 0]


def streams_known(root: Root, maps: Sequence[SkyMap], notices: Mapping[str, Event] | None = None) -> dict[str, str]:
    """Return the declared stream of each event that a notice tells of, by the event's name on its map.

    ``notices`` are those given as files; the others are the newest that the archive has. Events of which there is none,
    and those of streams without counterparts, are left out.
    """
    store = EventStore(root)
    stored = {event_name(name): name for name in store.names()}
    found = {}
    for skymap in maps:
        event = (notices or {}).get(skymap.event)
        if event is None and skymap.event in stored:
            event = store.versions(stored[skymap.event])[-1].event
        if event is not None:
            with suppress(InputError):
                found[skymap.event] = coincidence.stream_of(event.stream, event.kind).name
    return found
