"""What explodes, varies and moves: parameters of each class of object, drawn for a trigger at a given time.

Rates, sizes and luminosities are of the right order, not a survey model: interesting classes have floors so that each
night holds some of every class (:data:`CLASSES`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pipeline.simulate import transients as tr
from pipeline.simulate import variables as var
from pipeline.simulate.cadence import Instrument
from pipeline.simulate.draws import Draws
from pipeline.simulate.objects import Objects, luminosity_distance, njy, redshift_at


@dataclass(frozen=True)
class Kind:
    """A class of object.

    Attributes
    ----------
    share : float
        Share of a night's alerts.
    floor : int
        Least number of alerts in a night of 1,000 or more.
    sky : str
        ``galactic`` (towards the plane), ``extragalactic`` (away from it), ``ecliptic`` or ``any``.
    """

    name: str
    share: float
    floor: int
    sky: str


CLASSES = (
    Kind("sn_ia", 0.045, 12, "extragalactic"),
    Kind("sn_core_collapse", 0.025, 10, "extragalactic"),
    Kind("slsn", 0.003, 5, "extragalactic"),
    Kind("pisn", 0.0005, 3, "extragalactic"),
    Kind("kilonova", 0.0005, 4, "extragalactic"),
    Kind("tde", 0.003, 6, "extragalactic"),
    Kind("agn", 0.10, 20, "extragalactic"),
    Kind("rr_lyrae", 0.15, 20, "galactic"),
    Kind("eclipsing_binary", 0.15, 20, "galactic"),
    Kind("dwarf_nova", 0.015, 8, "galactic"),
    Kind("microlensing", 0.003, 5, "galactic"),
    Kind("m_dwarf_flare", 0.006, 6, "galactic"),
    Kind("fading_ir_excess", 0.004, 5, "galactic"),
    Kind("asteroid_known", 0.25, 20, "ecliptic"),
    Kind("asteroid_unknown", 0.05, 10, "ecliptic"),
    Kind("asteroid_interstellar", 0.0, 2, "ecliptic"),
    Kind("satellite_glint", 0.03, 16, "any"),
    Kind("bogus", 0.15, 20, "any"),
)
"""Every class, in the order of its code."""

CODES = {kind.name: code for code, kind in enumerate(CLASSES)}


@dataclass(frozen=True)
class Trial:
    """One attempt at drawing objects: whose, when they must trigger, how far they may be.

    ``reach`` (n,) in (0, 1] shrinks with each failed attempt, so that every object is in the end detected.
    """

    draws: Draws
    keys: np.ndarray
    attempt: np.ndarray
    mjd: np.ndarray
    instrument: Instrument
    reach: np.ndarray

    def uniform(self, name: str, low: float = 0.0, high: float = 1.0) -> np.ndarray:
        """Return uniform numbers, shape (n,)."""
        return self.draws.uniform(name, self.keys, low, high, self.attempt)

    def log_uniform(self, name: str, low: float, high: float) -> np.ndarray:
        """Return log-uniform numbers, shape (n,)."""
        return self.draws.log_uniform(name, self.keys, low, high, self.attempt)

    def normal(self, name: str, mean: float = 0.0, sigma: float = 1.0) -> np.ndarray:
        """Return normal numbers, shape (n,)."""
        return self.draws.normal(name, self.keys, mean, sigma, self.attempt)


def _at_distance(o: Objects, t: Trial, typical_mag: float) -> None:
    """Place ``o`` uniformly in comoving volume, as far as an object of ``typical_mag`` is seen."""
    limit = float(np.median(t.instrument.limit_mag))
    far = min(10 ** ((limit - typical_mag) / 5.0 - 5.0), 4000.0)
    comoving = np.maximum(far * t.reach * t.uniform("distance") ** (1 / 3), 5.0)
    o.redshift = redshift_at(comoving)
    o.distance_mpc = luminosity_distance(o.redshift)


def _explode(o: Objects, t: Trial, youngest: float, oldest: float) -> None:
    """Set the explosion so that the age at the trigger lies between the two (observer's days); then find the peak."""
    o.params[:, 7] = t.mjd - t.uniform("age", youngest, oldest)
    find_peaks(o)


def find_peaks(o: Objects) -> None:
    """Set ``peak_abs_mag`` (rest 478 nm) and ``peak_mjd`` of exploding ``o``."""
    when = np.empty(o.key.size)
    tr.peaks(o.family, o.params, 478.0, o.blanket_nm, o.peak_abs_mag, when)
    o.peak_abs_mag = o.peak_abs_mag - 2.5 * np.log10(o.scale)
    o.peak_mjd = o.params[:, 7] + when * (1 + o.redshift)


def _sn_ia(o: Objects, t: Trial) -> None:
    """Set 56Ni in 1.4 Msun; the peak magnitude after Tripp 1998, by stretch and colour."""
    stretch = np.clip(t.normal("stretch", 0.0, 0.1), -0.25, 0.25)
    colour = t.normal("colour", 0.0, 0.08)
    o.family[:], o.blanket_nm[:] = tr.NI56, 400.0
    nickel = 0.6 * (1 + 1.2 * stretch)
    for slot, values in enumerate(
        (nickel, 13.0 * (1 + stretch), t.normal("velocity", 1.1e9, 5e7), 4800.0, 40.0, 0, 250)
    ):
        o.params[:, slot] = values
    _at_distance(o, t, -18.6)
    _explode(o, t, 3.0, 70.0)
    wanted = -19.25 - 1.4 * stretch + 3.0 * colour + t.normal("scatter", 0.0, 0.1)
    o.scale = 10 ** (-0.4 * (wanted - o.peak_abs_mag))
    o.peak_abs_mag = wanted


def _core_collapse(o: Objects, t: Trial) -> None:
    """Give two in three a hydrogen plateau (Popov), the others only 56Ni."""
    plateau = t.uniform("plateau") < 0.67
    o.family[:] = np.where(plateau, tr.PLATEAU, tr.NI56)
    o.blanket_nm[:] = 350.0
    velocity = t.log_uniform("velocity", 3.5e8, 6.5e8)
    nickel = t.log_uniform("nickel", 0.02, 0.3)
    with_hydrogen = (0.3 * nickel, t.uniform("time", 70, 95), velocity, 5800.0, 0.0, t.uniform("onset", 18, 30))
    without = (nickel, t.uniform("time", 8, 16), 2 * velocity, 4800.0, 110.0, 0.0)
    for slot in range(6):
        o.params[:, slot] = np.where(plateau, with_hydrogen[slot], without[slot])
    o.params[:, 6] = 250.0
    _at_distance(o, t, -17.0)
    _explode(o, t, 2.0, 100.0)


def _slsn(o: Objects, t: Trial) -> None:
    """Set a magnetar of 1.5 to 4 ms in a few solar masses of ejecta."""
    o.family[:], o.blanket_nm[:] = tr.MAGNETAR, 320.0
    columns = (
        t.uniform("spin", 1.5, 4.0), t.uniform("time", 25, 60), t.normal("velocity", 1.1e9, 1e8), 6500.0, 300.0,
        t.log_uniform("field", 0.6, 3.0), 400.0,
    )  # fmt: skip
    for slot, values in enumerate(columns):
        o.params[:, slot] = values
    _at_distance(o, t, -20.6)
    _explode(o, t, 10.0, 160.0)


def _pisn(o: Objects, t: Trial) -> None:
    """Set 5 to 30 solar masses of 56Ni and a diffusion time of months."""
    o.family[:], o.blanket_nm[:] = tr.NI56, 380.0
    columns = (
        t.log_uniform("nickel", 5, 30),
        t.uniform("time", 80, 130),
        t.normal("velocity", 1e9, 1e8),
        5000.0,
        0,
        0,
        600,
    )
    for slot, values in enumerate(columns):
        o.params[:, slot] = values
    _at_distance(o, t, -20.0)
    _explode(o, t, 20.0, 250.0)


def _kilonova(o: Objects, t: Trial) -> None:
    """Set 0.01 to 0.05 solar masses of r-process ejecta, lanthanide-poor to lanthanide-rich."""
    o.family[:] = tr.R_PROCESS
    time = t.log_uniform("time", 1.2, 5.0)
    columns = (
        t.log_uniform("ejecta", 0.01, 0.05), time, t.uniform("velocity", 0.12, 0.3) * 2.998e10,
        np.where(time < 2.5, 2800.0, 2200.0), 0, 0, 30.0,
    )  # fmt: skip
    for slot, values in enumerate(columns):
        o.params[:, slot] = values
    _at_distance(o, t, -15.5)
    _explode(o, t, 0.15, 4.0)


def _tde(o: Objects, t: Trial) -> None:
    """Set a nuclear flare of 1e43.6 to 1e44.8 erg/s at 15 to 35 kK."""
    o.family[:] = tr.FALLBACK
    columns = (
        t.log_uniform("power", 4e43, 6e44), t.uniform("time", 5, 30), 0, t.uniform("kelvin", 15e3, 35e3), 0,
        t.uniform("peak", 12, 40), 700.0,
    )  # fmt: skip
    for slot, values in enumerate(columns):
        o.params[:, slot] = values
    _at_distance(o, t, -19.3)
    _explode(o, t, 12.0, 150.0)


def _agn(o: Objects, t: Trial) -> None:
    """Set a damped random walk in the nucleus, diluted by the host."""
    o.family[:] = var.NUCLEUS
    o.redshift = t.log_uniform("redshift", 0.02, 1.8)
    o.distance_mpc = luminosity_distance(o.redshift)
    columns = (
        t.log_uniform("tau", 60, 900),
        t.log_uniform("sigma", 0.06, 0.35),
        t.normal("since", 0.0, 0.15),
        t.uniform("share", 0.4, 1.0),
    )
    for slot, values in enumerate(columns):
        o.params[:, slot] = values
    _as_source(o, t, 0.25)


def _as_source(o: Objects, t: Trial, colour: float) -> None:
    """Give ``o`` a reference source at its own place, ``colour`` magnitudes a band redder towards the red."""
    bright, faint = t.instrument.bright_mag, float(np.median(t.instrument.limit_mag)) + 0.3
    mag = bright + (faint - bright) * t.reach * t.uniform("mag") ** 0.6
    steps = np.arange(len(t.instrument.bands)) - 1 if len(t.instrument.bands) > 2 else np.arange(2)
    hue = colour + 0.1 * t.normal("hue")
    o.reference_njy = njy(mag[:, None] - hue[:, None] * np.minimum(steps, 2)[None, :])
    o.source_njy = o.reference_njy.copy()
    o.source_sep_arcsec = np.abs(t.normal("source offset", 0.0, 0.12)) * t.instrument.seeing_arcsec / 2.0


def _rr_lyrae(o: Objects, t: Trial) -> None:
    """Set periods and amplitudes on the ab locus of the Bailey diagram; a quarter first-overtone."""
    o.family[:] = var.RR_LYRAE
    overtone = t.uniform("overtone") < 0.25
    period = np.where(overtone, t.uniform("period", 0.25, 0.42), np.clip(t.normal("period", 0.56, 0.07), 0.42, 0.85))
    amplitude = np.where(
        overtone, t.uniform("amplitude", 0.4, 0.65), 1.1 - 2.6 * (period - 0.55) + t.normal("amplitude", 0, 0.1)
    )
    for slot, values in enumerate(
        (period, t.mjd - period * t.uniform("phase"), np.clip(amplitude, 0.25, 1.5), overtone)
    ):
        o.params[:, slot] = values
    o.period_days = period
    _as_source(o, t, 0.25)


def _eclipsing(o: Objects, t: Trial) -> None:
    """Set two uniform discs seen near edge-on."""
    o.family[:] = var.ECLIPSING
    r1 = t.uniform("radius", 0.12, 0.45)
    hot = t.uniform("kelvin", 4500, 9000)
    columns = (
        t.log_uniform("period", 0.22, 8.0), t.mjd, r1, r1 * t.uniform("ratio", 0.5, 1.0),
        t.uniform("cosine", 0.0, 0.15), hot, hot * t.uniform("cool", 0.6, 1.0),
    )  # fmt: skip
    for slot, values in enumerate(columns):
        o.params[:, slot] = values
    o.params[:, 1] = t.mjd - o.params[:, 0] * t.uniform("phase", -0.06, 0.06)
    o.period_days = o.params[:, 0].copy()
    _as_source(o, t, 0.35)


def _dwarf_nova(o: Objects, t: Trial) -> None:
    """Set outbursts of 2.5 to 6 mag every 20 to 300 days."""
    o.family[:] = var.DWARF_NOVA
    rise, plateau = t.uniform("rise", 0.5, 1.5), t.uniform("plateau", 2, 10)
    columns = (
        t.log_uniform("recurrence", 20, 300), t.mjd - t.uniform("age", 0.3, 1.0) * (rise + plateau),
        t.uniform("amplitude", 2.5, 6.0), rise, plateau, t.uniform("decay", 1.5, 3.0),
    )  # fmt: skip
    for slot, values in enumerate(columns):
        o.params[:, slot] = values
    o.period_days = o.params[:, 0].copy()
    _as_source(o, t, 0.2)
    o.reference_njy *= 0.2
    o.source_njy *= 0.2


def _microlensing(o: Objects, t: Trial) -> None:
    """Set a point lens before a star, partly blended."""
    o.family[:] = var.MICROLENSING
    einstein = t.log_uniform("einstein", 10, 70)
    columns = (
        einstein,
        t.mjd - einstein * t.uniform("phase", -0.7, 1.0),
        t.log_uniform("impact", 0.05, 0.8),
        t.uniform("blend", 0.6, 1.0),
    )
    for slot, values in enumerate(columns):
        o.params[:, slot] = values
    o.peak_mjd = o.params[:, 1].copy()
    _as_source(o, t, 0.6)


def _flare(o: Objects, t: Trial) -> None:
    """Set a flare of minutes to hours on a red dwarf."""
    o.family[:] = var.FLARE
    width = t.log_uniform("width", 0.005, 0.08)
    columns = (
        width,
        t.mjd - width * t.uniform("phase", -0.5, 2.0),
        t.log_uniform("amplitude", 0.5, 30),
        t.uniform("kelvin", 2900, 3600),
    )
    for slot, values in enumerate(columns):
        o.params[:, slot] = values
    o.peak_mjd = o.params[:, 1].copy()
    _as_source(o, t, 1.3)


def _obscured(o: Objects, t: Trial) -> None:
    """Set a star fading behind its own dust, which shines in the infrared."""
    o.family[:] = var.OBSCURED
    columns = (
        t.uniform("condense", 15, 90),
        t.mjd - t.uniform("age", 20, 200),
        t.uniform("depth", 0.8, 5.0),
        t.log_uniform("disperse", 300, 3000),
    )
    for slot, values in enumerate(columns):
        o.params[:, slot] = values
    _as_source(o, t, 0.7)


RECIPES: dict[str, Callable[[Objects, Trial], None]] = {
    "sn_ia": _sn_ia,
    "sn_core_collapse": _core_collapse,
    "slsn": _slsn,
    "pisn": _pisn,
    "kilonova": _kilonova,
    "tde": _tde,
    "agn": _agn,
    "rr_lyrae": _rr_lyrae,
    "eclipsing_binary": _eclipsing,
    "dwarf_nova": _dwarf_nova,
    "microlensing": _microlensing,
    "m_dwarf_flare": _flare,
    "fading_ir_excess": _obscured,
}
"""How to draw each class that stays at its place; the moving and the false are in :mod:`pipeline.simulate.movers`."""
