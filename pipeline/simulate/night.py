"""The plan of a simulated night: its exposures, its objects and which of them alert where.

The plan is a pure function of (night, survey, number of alerts, seed); packets are then made from any slice of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.errors import InputError
from pipeline.simulate.cadence import INSTRUMENTS, Instrument, Visits, jd_of_night, schedule
from pipeline.simulate.draws import Draws
from pipeline.simulate.geometry import ecliptic, galactic, reddening
from pipeline.simulate.hosts import Event, draw_event, give_hosts, give_neighbours
from pipeline.simulate.lightcurves import light_curves
from pipeline.simulate.movers import artefacts, asteroids, glints, pairs_tonight, random_place
from pipeline.simulate.objects import Objects
from pipeline.simulate.populations import CLASSES, CODES, RECIPES, Trial
from pipeline.simulate.variables import NUCLEUS

KEY_STEP = 100_000_000
ATTEMPTS = 60

LEAST_ALERTS = 4 * len(CLASSES)
"""Fewer cannot hold every class."""


@dataclass(frozen=True)
class Night:
    """A planned night.

    ``alert_object`` and ``alert_visit`` (n_alerts,) point into ``objects`` and ``visits``, in exposure order;
    ``alert_number`` counts the alerts of one exposure and detector from 1. ``index_key`` (n_alerts,), sorted, is object
    times number of visits plus visit, and ``index_row`` the alert of each.
    """

    night: int
    seed: int
    instrument: Instrument
    visits: Visits
    objects: Objects
    alert_object: np.ndarray
    alert_visit: np.ndarray
    alert_number: np.ndarray
    index_key: np.ndarray
    index_row: np.ndarray
    event: Event
    bodies: dict[str, dict[str, np.ndarray]]

    def numbers_of(self, objects: np.ndarray, visit: np.ndarray, otherwise: np.ndarray) -> np.ndarray:
        """Return ``alert_number`` of the alerts of ``objects`` (rows) at ``visit``, shape (n,).

        ``otherwise`` (n,) stands where there is no such alert; it is raised by 1,000 in exposures of this night, whose
        small numbers are taken.
        """
        wanted = objects * self.visits.jd.size + visit
        place = np.minimum(np.searchsorted(self.index_key, wanted), self.index_key.size - 1)
        spare = otherwise + np.where(self.visits.is_tonight[visit], 1000, 0)
        return np.where(self.index_key[place] == wanted, self.alert_number[self.index_row[place]], spare)

    @property
    def draws(self) -> Draws:
        """The random numbers of this night."""
        return Draws(self.seed)


def targets(n_alerts: int, weights: dict[str, float] | None = None) -> dict[str, int]:
    """Return how many alerts of each class a night of ``n_alerts`` holds; the sum is exact.

    Parameters
    ----------
    n_alerts : int
        At least one of each class.
    weights : dict of str to float, optional
        Shares that replace the realistic ones (for training sets); classes left out keep their floor.
    """
    shares = {kind.name: kind.share for kind in CLASSES}
    if weights is not None:
        unknown = sorted(set(weights) - set(shares))
        if unknown:
            raise InputError(f"no such class: {', '.join(unknown)}", mend="classes: " + ", ".join(shares))
        total = sum(weights.values())
        shares = {name: weights.get(name, 0.0) / total for name in shares}
    if n_alerts < LEAST_ALERTS:
        raise InputError(f"{n_alerts} alerts cannot hold every class", mend=f"ask for at least {LEAST_ALERTS}")
    fill = min(1.0, n_alerts / 1000.0)
    counts = {k.name: max(round(shares[k.name] * n_alerts), int(np.ceil(k.floor * fill))) for k in CLASSES}
    excess = sum(counts.values()) - n_alerts
    while excess:
        largest = max(counts, key=lambda name: counts[name])
        step = excess if excess < 0 else min(excess, max(counts[largest] // 2, 1))
        counts[largest] -= step
        excess -= step
    return counts


def field_weights(visits: Visits, sky: str) -> np.ndarray:
    """Return how likely an object of a part of the sky lies in each exposure of the night, shape (n_tonight,)."""
    field = visits.field[visits.tonight]
    ra, dec = visits.field_ra[field], visits.field_dec[field]
    if sky == "galactic":
        return np.exp(-np.abs(galactic(ra, dec)[1]) / 18.0) + 0.03
    if sky == "extragalactic":
        return 1.0 / (1.0 + np.exp(-(np.abs(galactic(ra, dec)[1]) - 15.0) / 4.0)) + 1e-3
    if sky == "ecliptic":
        return np.exp(-np.abs(ecliptic(ra, dec)[1]) / 12.0) + 0.002
    return np.ones(field.size)


def plan_night(survey: str, night: int, n_alerts: int, seed: int, weights: dict[str, float] | None = None) -> Night:
    """Plan a night of exactly ``n_alerts`` alerts.

    Raises
    ------
    InputError
        The survey, the date or the number cannot be simulated.
    """
    if survey not in INSTRUMENTS:
        raise InputError(f"survey {survey} cannot be simulated", mend="choose " + " or ".join(INSTRUMENTS))
    instrument = INSTRUMENTS[survey]
    jd_of_night(night)
    draws = Draws(seed)
    counts = targets(n_alerts, weights)
    visits = schedule(instrument, night, n_alerts, draws)
    event = draw_event(visits, draws)
    parts: list[Objects] = []
    places: list[np.ndarray] = []
    bodies: dict[str, dict[str, np.ndarray]] = {}
    lacking = 0
    for kind in sorted(CLASSES, key=lambda kind: kind.name == "rr_lyrae"):
        wanted = counts[kind.name] + (lacking if kind.name == "rr_lyrae" else 0)
        objects, visit, orbit = _class_alerts(kind.name, kind.sky, wanted, instrument, visits, event, draws)
        lacking += wanted - visit.size
        parts.append(objects)
        places.append(visit)
        if orbit:
            bodies[kind.name] = orbit
    return _arrange(night, seed, instrument, visits, event, bodies, parts, places, draws)


def _arrange(
    night: int,
    seed: int,
    instrument: Instrument,
    visits: Visits,
    event: Event,
    bodies: dict[str, dict[str, np.ndarray]],
    parts: list[Objects],
    places: list[np.ndarray],
    draws: Draws,
) -> Night:
    """Join the classes and number the alerts in exposure order."""
    # rows are alerts here; an object that alerts twice stands twice and is folded by its key
    rows, visit = Objects.concatenate(parts), np.concatenate(places)
    _, representative, alert_object = np.unique(rows.key, return_index=True, return_inverse=True)
    objects = rows.take(representative)
    objects.extinction = reddening(objects.ra, objects.dec)[:, None] * instrument.extinction[None, :]
    give_neighbours(objects, instrument, draws)
    order = np.lexsort((draws.uniform("order", rows.key), rows.detector, visit))
    alert_object, visit, detector = alert_object[order], visit[order], rows.detector[order]
    exposure = visit * 1000 + detector
    starts = np.flatnonzero(np.r_[True, np.diff(exposure) != 0])
    number = np.arange(exposure.size) - np.repeat(starts, np.diff(np.r_[starts, exposure.size])) + 1
    key = alert_object * visits.jd.size + visit
    index = np.argsort(key)
    return Night(
        night, seed, instrument, visits, objects, alert_object, visit, number, key[index], index, event, bodies
    )


def _class_alerts(
    name: str, sky: str, wanted: int, instrument: Instrument, visits: Visits, event: Event, draws: Draws
) -> tuple[Objects, np.ndarray, dict[str, np.ndarray]]:
    """Return at most ``wanted`` alerts of one class: their objects, their visits, and the orbits if they move."""
    key0 = (CODES[name] + 1) * KEY_STEP
    weights = field_weights(visits, sky)
    trigger = visits.tonight[draws.choice("trigger", key0 + np.arange(wanted), weights)]
    orbit: dict[str, np.ndarray] = {}
    if name.startswith("asteroid"):
        count = 1 if name == "asteroid_interstellar" else wanted
        objects, visit, orbit = asteroids(name, count, key0, trigger[:count], instrument, visits, draws)
    elif name == "satellite_glint":
        objects, visit = glints(wanted, key0, instrument, visits, draws, weights)
    elif name == "bogus":
        objects, visit = artefacts(wanted, key0, trigger, instrument, visits, draws)
    else:
        objects, visit = _standing(name, key0, trigger, instrument, visits, event, draws)
    if name.startswith("asteroid"):
        found = significance(objects, visit, visits, instrument, draws) >= 5.0
        objects, visit = objects.take(found), visit[found]
    return objects.take(np.arange(visit.size) < wanted), visit[:wanted], orbit


def _standing(
    name: str, key0: int, trigger: np.ndarray, instrument: Instrument, visits: Visits, event: Event, draws: Draws
) -> tuple[Objects, np.ndarray]:
    """Draw objects that stay at their place until each is detected at its trigger; return all alerts of the night."""
    keys = key0 + np.arange(trigger.size)
    done: list[Objects] = []
    pending = np.arange(trigger.size)
    for attempt in range(ATTEMPTS):
        if not pending.size:
            break
        drawn = _draw(name, keys[pending], trigger[pending], attempt, instrument, visits, event, draws)
        snr = significance(drawn, trigger[pending], visits, instrument, draws)
        found = np.abs(snr) >= 5.0
        done.append(drawn.take(np.flatnonzero(found)))
        pending = pending[~found]
    objects = Objects.concatenate(done)
    objects = objects.take(np.argsort(objects.key, kind="stable"))
    first = trigger[objects.key - key0]
    body, visit = pairs_tonight(visits, objects.field)
    seen = np.abs(significance(objects.take(body), visit, visits, instrument, draws)) >= 5.0
    seen |= visit == first[body]
    return objects.take(body[seen]), visit[seen]


def _draw(
    name: str,
    keys: np.ndarray,
    trigger: np.ndarray,
    attempt: int,
    instrument: Instrument,
    visits: Visits,
    event: Event,
    draws: Draws,
) -> Objects:
    o = Objects.blank(keys, CODES[name], len(instrument.bands))
    o.field = visits.field[trigger]
    random_place(o, instrument, visits, draws)
    o.extinction = reddening(o.ra, o.dec)[:, None] * instrument.extinction[None, :]
    attempts = np.full(keys.size, attempt)
    reach = 0.93 ** np.maximum(attempts - 4, 0)
    trial = Trial(draws, keys, attempts, visits.mjd[trigger], instrument, reach)
    RECIPES[name](o, trial)
    if name == "kilonova":
        event.adopt(o, keys - (CODES[name] + 1) * KEY_STEP == 0)
    give_hosts(name, o, instrument, draws)
    return o


def significance(o: Objects, visit: np.ndarray, visits: Visits, instrument: Instrument, draws: Draws) -> np.ndarray:
    """Return measured flux over its error of each object at one visit, shape (n,)."""
    if o.key.size and o.family[0] == NUCLEUS:  # a random walk needs all its past
        table, first = visits.of_field, visits.first
    else:
        tonight = visits.is_tonight[visits.of_field]
        table = visits.of_field[tonight]
        first = np.r_[0, np.cumsum(tonight)][visits.first]
    curve = curves(o, visit, visits, instrument, draws, table, first)
    last = curve["offsets"][1:] - 1
    return curve["flux"][last] / curve["error"][last]


def curves(
    o: Objects,
    stop: np.ndarray,
    visits: Visits,
    instrument: Instrument,
    draws: Draws,
    table: np.ndarray | None = None,
    first: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Return light curves of ``o`` up to and with the visits ``stop``.

    Returns
    -------
    dict of str to numpy.ndarray
        ``offsets`` (n+1,); ``visit, true, flux, error, forced`` (points,), fluxes in nJy.
    """
    table = visits.of_field if table is None else table
    first = visits.first if first is None else first
    rank = np.zeros(visits.jd.size, np.int64)
    rank[table] = np.arange(table.size)
    count = rank[stop] - first[o.field] + 1
    offsets = np.r_[0, np.cumsum(count)]
    points = int(offsets[-1])
    out = {name: np.zeros(points) for name in ("true", "flux", "error", "forced")}
    number = np.zeros(points, np.int64)
    light_curves(
        draws.seed, o.key.view(np.uint64), o.family, o.params, o.redshift, o.distance_mpc, o.blanket_nm, o.scale,
        o.reference_njy, o.extinction, o.field, o.trigger_njy, instrument.wavelength_nm, table, first, visits.mjd,
        visits.band, visits.limit_mag, o.limit_shift, offsets, number, out["true"], out["flux"], out["error"],
        out["forced"],
    )  # fmt: skip
    return {"offsets": offsets, "visit": number, **out}
