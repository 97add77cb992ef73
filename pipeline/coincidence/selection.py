"""Bronze, silver, gold: what is listed, what keeps the counterparts, what is hardly ever wrong."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.coincidence.compensator import Counterpart
from pipeline.errors import InputError

BRONZE, SILVER, GOLD = "bronze", "silver", "gold"

FALSE_GOLD_PER_YEAR = 1.0
"""Chance coincidences a year that may be called gold, all streams of events together, one survey."""

SILVER_RECOVERY = 0.95
"""Share of the counterparts seen by the survey that silver keeps by the model; the promise is 0.9."""

BRONZE_LEVEL = 0.9
"""Credible level within which a candidate is bronze."""


@dataclass(frozen=True)
class EventStream:
    """A stream of events that candidates are compared with.

    Attributes
    ----------
    name : str
        Name of the stream as events carry it.
    kind : str
        "gw", "grb" or "neutrino".
    events_per_year : float
        Events a year: each is one more occasion for a chance coincidence.
    counterpart : Counterpart
        What its optical counterparts are like.
    source : str
        Where the rate comes from.
    """

    name: str
    kind: str
    events_per_year: float
    counterpart: Counterpart
    source: str


_AFTERGLOW = Counterpart(window_day=3.0, half_life_day=0.5)
_KILONOVA = Counterpart(window_day=7.0, half_life_day=2.0)
_SUPERNOVA = Counterpart(window_day=14.0, half_life_day=20.0, onset_day=14.0)

STREAMS = {
    item.name: item
    for item in (
        EventStream(
            "fermi-gbm",
            "grb",
            250.0,
            _AFTERGLOW,
            "240 a year, von Kienlin et al. 2020, ApJ 893, 46, doi:10.3847/1538-4357/ab7a18",
        ),
        EventStream(
            "swift-bat",
            "grb",
            100.0,
            _AFTERGLOW,
            "about 90 a year, Lien et al. 2016, ApJ 829, 7, doi:10.3847/0004-637X/829/1/7",
        ),
        EventStream("integral", "grb", 60.0, _AFTERGLOW, "rate stated by the fink-mm pipeline"),
        EventStream(
            "icecube-gold", "neutrino", 10.0, _SUPERNOVA, "Blaufuss et al. 2019, PoS(ICRC2019)1021, arXiv:1908.04884"
        ),
        EventStream(
            "icecube-bronze", "neutrino", 20.0, _SUPERNOVA, "Blaufuss et al. 2019, PoS(ICRC2019)1021, arXiv:1908.04884"
        ),
        EventStream(
            "lvk", "gw", 100.0, _KILONOVA, "significant public alerts of the fourth run, about two a week, rounded"
        ),
    )
}
"""Streams and their stated rates; change one, and the gold limit moves with their sum."""


_OF_KIND = {"gw": "lvk", "grb": "fermi-gbm", "neutrino": "icecube-bronze"}


def stream_of(name: str, kind: str = "") -> EventStream:
    """Return a declared stream, or one that stands for others of its observatory or kind.

    Parameters
    ----------
    name : str
        Name of the stream. Any of Swift counts as BAT, any other of IceCube as bronze.
    kind : str
        "gw", "grb" or "neutrino", asked where the name says nothing.

    Raises
    ------
    InputError
        Neither says what counterparts to expect.
    """
    if name in STREAMS:
        return STREAMS[name]
    beside = {"swift": "swift-bat", "icecube": "icecube-bronze", "fermi": "fermi-gbm"}.get(name.partition("-")[0])
    found = beside or _OF_KIND.get(kind)
    if found is None:
        raise InputError(f"no counterparts are known of events of stream {name}", mend=f"one of {', '.join(STREAMS)}")
    return STREAMS[found]


def events_per_year() -> float:
    """Return the events a year of all streams together."""
    return sum(stream.events_per_year for stream in STREAMS.values())


def joint_far_per_year(p_chance: ArrayLike) -> NDArray[np.float64]:
    """Return how many events a year, of all streams together, have a chance coincidence at least as good.

    The sum over streams of (events a year) x (p-value), at one p-value for all: shape (n,), NaN stays NaN.
    """
    return np.asarray(p_chance, dtype=np.float64) * events_per_year()


def gold_limit(false_per_year: float = FALSE_GOLD_PER_YEAR) -> float:
    """Return the p-value below which all streams together give so many chance coincidences a year."""
    return false_per_year / events_per_year()


def select(
    is_candidate: ArrayLike,
    credible_level: ArrayLike,
    p_chance: ArrayLike,
    silver_limit: ArrayLike,
    *,
    bronze_level: float = BRONZE_LEVEL,
    false_per_year: float = FALSE_GOLD_PER_YEAR,
) -> NDArray[np.object_]:
    """Return the best selection that each candidate is in.

    Parameters
    ----------
    is_candidate : array_like of bool, shape (n,)
        First seen within the window after the event, no prior activity, no known star or Solar System object.
    credible_level : array_like of float64, shape (n,)
        Level on the event's map.
    p_chance : array_like of float64, shape (n,)
        p-value; NaN where it could not be had.
    silver_limit : array_like of float64, shape (n,) or ()
        p-value that keeps ``SILVER_RECOVERY`` of the event's counterparts.
    bronze_level, false_per_year : float
        See the module's constants.

    Returns
    -------
    numpy.ndarray of object, shape (n,)
        "gold", "silver", "bronze" or None; a gold candidate is silver and bronze as well.
    """
    p, level = np.asarray(p_chance, dtype=np.float64), np.asarray(credible_level, dtype=np.float64)
    candidate = np.asarray(is_candidate, dtype=bool)
    out = np.full(p.shape, None, dtype=object)
    gold = gold_limit(false_per_year)
    out[candidate & (level <= bronze_level)] = BRONZE
    out[candidate & (p <= np.asarray(silver_limit, dtype=np.float64))] = SILVER
    out[candidate & (p <= gold)] = GOLD
    return out
