"""A survey with fields, weather and seasons, its unrelated transients, events of every stream, and their scrambles.

Nothing here knows how rates are fitted: counts follow the time since the last visit, the depth, the Galactic latitude
and a random effect of each field, none of which is a factor of the fit as such.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline import coincidence, healpix
from pipeline.coincidence import Compensator, EventStream, Visits
from pipeline.simulate.geometry import ZTF_CAMERA, field_grid, galactic, position_of, to_sky, to_tangent, unit_vector

START_MJD = 58800.0
HALF_SIDE_DEG = 3.43
FIELD_DEG2 = (2 * HALF_SIDE_DEG) ** 2
LEVEL = 0.99
"""Credible level of the searched region."""

Float = NDArray[np.float64]
Int = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Survey:
    """Exposures of whole fields, ordered by time; unrelated transients, ordered by the time they were first seen."""

    field_ra: Float
    field_dec: Float
    field: Int
    mjd: Float
    limit_mag: Float
    ra: Float
    dec: Float
    first_mjd: Float
    visits: Visits
    row: Int  # visit of each transient

    @property
    def span_mjd(self) -> tuple[float, float]:
        return float(self.mjd[0]), float(self.mjd[-1])


@dataclass(frozen=True, eq=False)
class Map:
    """Pixels of one order in the frame of the map, those within LEVEL; ``row`` finds the pixel of a cell."""

    stream: EventStream
    order: int
    cell: Int
    vector: Float
    area_deg2: float
    density: Float
    level: Float


# ------------------------------------------------------------------------------------------------- the survey
def simulate_survey(
    seed: int,
    n_nights: int,
    *,
    order: int = 6,
    per_night: int = 250,
    rate_per_deg2: float = 0.02,
    companions: float = 0.0,
    field_sigma: float = 0.3,
    depth_power: float = 0.4,
) -> Survey:
    """Return a survey of so many nights; ``companions``: mean number of further transients around each one."""
    rng = np.random.default_rng(seed)
    ra, dec = field_grid(ZTF_CAMERA)
    kept = dec > -28
    ra, dec = ra[kept], dec[kept]
    latitude = np.abs(galactic(ra, dec)[1])
    field, mjd, limit = _exposures(rng, ra, latitude, n_nights, per_night)
    gap = _gaps(field, mjd, len(ra))
    effect = np.exp(rng.normal(0.0, field_sigma, len(ra)) - field_sigma**2 / 2)
    stars = 1.0 + 1.5 * np.exp(-latitude / 12.0)
    mean = rate_per_deg2 * FIELD_DEG2 * (0.12 + 1.0 - np.exp(-gap / 4.0)) * 10 ** (depth_power * (limit - 20.5))
    count = rng.poisson(mean * (effect * stars)[field] / (1.0 + companions))
    owner = np.repeat(np.arange(len(field)), count)
    u, v = rng.uniform(-HALF_SIDE_DEG, HALF_SIDE_DEG, (2, len(owner)))
    if companions:
        extra = np.repeat(np.arange(len(owner)), rng.poisson(companions, len(owner)))
        owner = np.concatenate([owner, owner[extra]])
        shift = rng.normal(0.0, 0.3, (2, len(extra)))
        u, v = np.concatenate([u, u[extra] + shift[0]]), np.concatenate([v, v[extra] + shift[1]])
        inside = np.maximum(np.abs(u), np.abs(v)) < HALF_SIDE_DEG
        owner, u, v = owner[inside], u[inside], v[inside]
    by = np.argsort(owner, kind="stable")
    owner, u, v = owner[by], u[by], v[by]
    ra0, dec0 = ra[field[owner]], dec[field[owner]]
    their_ra, their_dec = to_sky(u, v, ra0, dec0)
    visits, row = _measured(order, ra, dec, field, mjd, limit, their_ra, their_dec, mjd[owner])
    return Survey(ra, dec, field, mjd, limit, their_ra, their_dec, mjd[owner], visits, row)


def _exposures(rng, ra, latitude, n_nights, per_night):  # type: ignore[no-untyped-def]
    last = np.full(len(ra), -99.0)
    fields, times, limits = [], [], []
    for night in range(n_nights):
        weather = rng.random()
        if weather < 0.3:
            continue
        share = 1.0 if weather > 0.5 else 0.4
        midnight = (60.0 + 0.9856 * night) % 360
        away = np.abs((ra - midnight + 180) % 360 - 180)
        due = (night - last) * np.where(latitude < 10, 0.3, 1.0) + rng.uniform(0, 1.0, len(ra))
        due[away > 75] = -1
        chosen = np.argsort(-due)[: int(per_night * share)]
        chosen = chosen[due[chosen] > 0]
        last[chosen] = night
        chosen = chosen[np.argsort((ra[chosen] - midnight + 180) % 360)]
        hours = 0.2 + 0.28 * np.arange(len(chosen)) / max(len(chosen), 1)
        clear = rng.normal(0.0, 0.25)
        for visit in range(2):
            fields.append(chosen)
            times.append(START_MJD + night + hours + visit * 0.045)
            limits.append(20.6 - 0.1 * visit + clear + rng.normal(0.0, 0.1, len(chosen)))
    field, mjd, limit = np.concatenate(fields), np.concatenate(times), np.concatenate(limits)
    by = np.argsort(mjd, kind="stable")
    return field[by], mjd[by], limit[by]


def _gaps(field: Int, mjd: Float, n_fields: int) -> Float:
    by = np.lexsort((mjd, field))
    gap = np.diff(mjd[by], prepend=-np.inf)
    gap[np.diff(field[by], prepend=-1) != 0] = 1e3
    out = np.empty(len(mjd))
    out[by] = gap
    return out


def _measured(order, ra, dec, field, mjd, limit, their_ra, their_dec, their_mjd):  # type: ignore[no-untyped-def]
    """Fit the rates as the search does: from exposures, the cells they touched, and the transients themselves."""
    grid = np.linspace(-HALF_SIDE_DEG, HALF_SIDE_DEG, 60)
    u, v = (item.ravel() for item in np.meshgrid(grid, grid))
    inside = [
        np.unique(healpix.ang2pix(order, *to_sky(u, v, *at)), return_counts=True) for at in zip(ra, dec, strict=True)
    ]
    full = len(u) / FIELD_DEG2 * healpix.cell_area_deg2(order)
    sizes = np.array([len(cells) for cells, _ in inside])
    owner = np.repeat(np.arange(len(field)), sizes[field])
    cell = np.concatenate([inside[f][0] for f in field])
    share = np.minimum(np.concatenate([inside[f][1] for f in field]) / full, 1.0)
    visits, of_touch = coincidence.make_visits(order, cell, mjd[owner])
    row = visits.rows(healpix.ang2pix(order, their_ra, their_dec), their_mjd)
    labels = coincidence.visit_labels(visits, of_touch, field[owner], share, limit[owner])
    return coincidence.fit_rates(visits, row, labels), row


# ------------------------------------------------------------------------------------------------- the events
def circle(stream: str, sigma_deg: float, order: int) -> Map:
    """Return an error circle (Fisher 1953) around the pole of the map's frame."""
    reach = 3.2 * sigma_deg
    cells = healpix.cells_of_ranges(healpix.cone_ranges(0.0, 90.0, reach), order)
    ra, dec = healpix.pix2ang(order, cells)
    kappa = 1.0 / np.radians(sigma_deg) ** 2
    return _map(stream, order, cells, kappa * (np.sin(np.radians(dec)) - 1.0), ra, dec)


def arc(stream: str, radius_deg: float, width_deg: float, spread: float, order: int) -> Map:
    """Return two lobes of unequal weight on a ring around the pole, as two or three detectors give."""
    cells = np.arange(12 << 2 * order)
    ra, dec = healpix.pix2ang(order, cells)
    ring = -0.5 * ((90.0 - dec - radius_deg) / width_deg) ** 2
    lobes = np.log(
        np.exp(spread * (np.cos(np.radians(ra - 60)) - 1)) + 0.6 * np.exp(spread * (np.cos(np.radians(ra - 230)) - 1))
    )
    return _map(stream, order, cells, ring + lobes, ra, dec)


def _map(stream: str, order: int, cells: Int, log_density: Float, ra: Float, dec: Float) -> Map:
    area = healpix.cell_area_deg2(order)
    density = np.exp(log_density)
    density /= density.sum() * area
    by = np.argsort(-density, kind="stable")
    level = np.cumsum(density[by]) * area
    by = by[: np.searchsorted(level, LEVEL) + 1]
    kept = np.sort(by)
    placed = np.empty(len(cells))
    placed[np.argsort(-density, kind="stable")] = level
    return Map(
        coincidence.stream_of(stream),
        order,
        cells[kept],
        unit_vector(ra[kept], dec[kept]),
        area,
        density[kept],
        placed[kept],
    )


def event_maps() -> list[Map]:
    """Return one event of each stream, and of mergers a narrow and a wide one."""
    return [
        circle("fermi-gbm", 4.7, 7),
        circle("swift-bat", 0.023, 14),
        circle("integral", 0.023, 14),
        circle("icecube-gold", 0.46, 10),
        circle("icecube-bronze", 0.7, 10),
        arc("lvk", 35.0, 2.0, 6.0, 7),
        arc("lvk", 20.0, 0.9, 18.0, 8),
    ]


def rotation(rng: np.random.Generator) -> Float:
    """Return a random rotation, uniform over all of them (from a unit quaternion)."""
    q = rng.normal(size=4)
    w, x, y, z = q / np.linalg.norm(q)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


# ------------------------------------------------------------------------------------------------- a scramble
def placed(survey: Survey, sky: Map, turn: Float, event_mjd: float) -> Compensator:
    """Return the expected numbers of the map turned by ``turn``, an event at this time."""
    ra, dec = position_of(sky.vector @ turn.T)
    cell = healpix.ang2pix(survey.visits.order, ra, dec)
    area = np.full(len(cell), sky.area_deg2)
    return coincidence.compensate(survey.visits, cell, area, sky.density, event_mjd, sky.stream.counterpart)


def pixel_of(sky: Map, turn: Float, ra: Float, dec: Float) -> Int:
    """Return the map's pixel of each position, turned back into the frame of the map; -1 outside the region."""
    cell = healpix.ang2pix(sky.order, *position_of(unit_vector(ra, dec) @ turn))
    at = np.minimum(np.searchsorted(sky.cell, cell), len(sky.cell) - 1)
    return np.where(sky.cell[at] == cell, at, -1)


def best_p(survey: Survey, sky: Map, turn: Float, event_mjd: float, expected: Compensator) -> float:
    """Return the p-value of the best unrelated transient; NaN where there is none."""
    window = sky.stream.counterpart.window_day
    low, high = np.searchsorted(survey.first_mjd, [event_mjd, event_mjd + window], side="right")
    pixel = pixel_of(sky, turn, survey.ra[low:high], survey.dec[low:high])
    inside = np.flatnonzero(pixel >= 0)
    rank = expected.rank_of(sky.density[pixel[inside]], survey.row[low + inside])
    rank = rank[~np.isnan(rank)]
    return float(coincidence.chance(expected.expected_at(rank.max()))) if len(rank) else np.nan


@dataclass(frozen=True)
class Scrambled:
    """Of every scramble: stream, p-value of the best (NaN: none), expected number in all; shape (n,)."""

    stream: NDArray[np.object_]
    p: Float
    total: Float

    @property
    def conditional(self) -> Float:
        """p-values of events that have a candidate, given that they have: uniform."""
        return (self.p / coincidence.chance(self.total))[~np.isnan(self.p)]


def scramble(survey: Survey, maps: list[Map], times: int, seed: int) -> Scrambled:
    """Shift the time of every event and turn its map, so many times."""
    rng = np.random.default_rng(seed)
    begin, end = survey.span_mjd
    streams, p, total = [], [], []
    for _ in range(times):
        for sky in maps:
            turn = rotation(rng)
            event_mjd = rng.uniform(begin + 30.0, end - sky.stream.counterpart.window_day)
            expected = placed(survey, sky, turn, event_mjd)
            streams.append(sky.stream.name)
            total.append(expected.total)
            p.append(best_p(survey, sky, turn, event_mjd, expected) if expected.total else np.nan)
    return Scrambled(np.array(streams, dtype=object), np.array(p), np.array(total))


# ------------------------------------------------------------------------------------------------- counterparts
def brightness(rng: np.random.Generator, kind: str, delay_day: Float) -> Float:
    """Return magnitudes of one counterpart: a fading afterglow, a kilonova, or a supernova that comes up."""
    with np.errstate(divide="ignore"):
        if kind == "grb":
            return rng.normal(17.5, 1.5) + 2.5 * rng.normal(1.1, 0.2) * np.log10(np.maximum(delay_day * 24, 0.02))
        if kind == "gw":
            modulus = 5 * np.log10(rng.uniform(40, 160) * 1e5)
            return rng.normal(-15.8, 0.6) + modulus + rng.uniform(0.4, 1.0) * np.maximum(delay_day - 0.6, 0.0)
        rise = np.maximum(delay_day - rng.uniform(-5, 5), 0.01)
        return rng.normal(18.8, 0.8) + np.maximum(2.5 * np.log10((12.0 / rise) ** 2), 0.0)


def plant(survey: Survey, maps: list[Map], wanted: int, seed: int) -> tuple[NDArray[np.object_], list[object]]:
    """Draw events and counterparts anywhere on the whole map until so many are seen by the survey in the window.

    Returns the stream and the selection of each that was seen. A place outside the searched region counts as lost.
    """
    rng = np.random.default_rng(seed)
    begin, end = survey.span_mjd
    streams, chosen = [], []
    while len(chosen) < wanted:
        sky = maps[rng.integers(len(maps))]
        turn, event_mjd = rotation(rng), rng.uniform(begin + 30.0, end - sky.stream.counterpart.window_day)
        mass = np.cumsum(sky.density) * sky.area_deg2
        lot = rng.random()
        is_lost = lot > mass[-1]  # beyond the region: where in particular decides nothing but whether it is seen
        pixel = min(int(np.searchsorted(mass, lot * (mass[-1] if is_lost else 1.0))), len(mass) - 1)
        inner = (sky.cell[pixel] << 2 * (29 - sky.order)) + rng.integers(0, 1 << 2 * (29 - sky.order))
        vector = unit_vector(*healpix.pix2ang(29, np.array([inner]))) @ turn.T
        ra, dec = position_of(vector)
        first = first_seen_mjd(survey, rng, sky.stream.kind, float(ra[0]), float(dec[0]), event_mjd)
        if first is None or first > event_mjd + sky.stream.counterpart.window_day:
            continue
        streams.append(sky.stream.name)
        if is_lost:
            chosen.append(None)
            continue
        expected = placed(survey, sky, turn, event_mjd)
        row = survey.visits.rows(healpix.ang2pix(survey.visits.order, ra, dec), np.array([first]))
        p = coincidence.chance(expected.expected_at(expected.rank_of(sky.density[[pixel]], row)))
        limit = coincidence.chance(expected.expected_for_recovery(coincidence.SILVER_RECOVERY))
        chosen += coincidence.select([True], sky.level[[pixel]], p, limit).tolist()
    return np.array(streams, dtype=object), chosen


def first_seen_mjd(survey: Survey, rng, kind: str, ra: float, dec: float, event_mjd: float) -> float | None:  # type: ignore[no-untyped-def]
    """Return when the survey first sees a counterpart at this place; None where it never does."""
    u, v = to_tangent(ra, dec, survey.field_ra, survey.field_dec)
    fields = np.flatnonzero((np.abs(u) < HALF_SIDE_DEG) & (np.abs(v) < HALF_SIDE_DEG))
    low, high = np.searchsorted(survey.mjd, [event_mjd, event_mjd + 15.0], side="right")
    looks = low + np.flatnonzero(np.isin(survey.field[low:high], fields))
    seen = looks[brightness(rng, kind, survey.mjd[looks] - event_mjd) < survey.limit_mag[looks]]
    return float(survey.mjd[seen[0]]) if len(seen) else None
