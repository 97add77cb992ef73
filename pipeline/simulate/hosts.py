"""Hosts, neighbours on the sky, and the merger whose kilonova hides in the night."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.simulate.cadence import Instrument, Visits
from pipeline.simulate.draws import Draws
from pipeline.simulate.objects import Objects, luminosity_distance, njy, redshift_at
from pipeline.simulate.populations import find_peaks

HOSTED = ("sn_ia", "sn_core_collapse", "slsn", "pisn", "kilonova", "tde")


@dataclass(frozen=True)
class Event:
    """A merger a few hours before the night.

    Attributes
    ----------
    name : str
        In the manner of superevents: ``S`` and the date.
    mjd_tai : float
        Time of merger.
    distance_mpc, redshift : float
        Of the host.
    """

    name: str
    mjd_tai: float
    distance_mpc: float
    redshift: float
    key: int = 1

    def adopt(self, o: Objects, chosen: np.ndarray) -> None:
        """Make the ``chosen`` (bool, (n,)) kilonovae counterparts of this merger."""
        rows = np.flatnonzero(chosen)
        o.params[rows, 7] = self.mjd_tai
        o.redshift[rows], o.distance_mpc[rows] = self.redshift, self.distance_mpc
        o.params[rows, 0], o.params[rows, 1], o.params[rows, 2], o.params[rows, 3] = 0.04, 1.6, 0.25 * 2.998e10, 2800.0
        o.link[rows] = 0
        find_peaks(o)


def draw_event(visits: Visits, draws: Draws) -> Event:
    """Return the merger: 3 to 6 hours before the first exposure, as near as GW170817 to three times as far."""
    key = np.array([1])
    before = float(draws.uniform("merger time", key, 3.0, 6.0)[0]) / 24.0
    mjd = float(visits.mjd[visits.tonight[0]]) - before
    comoving = draws.uniform("merger distance", key, 40.0, 110.0)
    redshift = redshift_at(comoving)
    year, month, day = _calendar(mjd)
    letters = "".join(chr(97 + int(c)) for c in draws.integers("merger name", np.repeat(key, 2), 0, 26, np.arange(2)))
    name = f"S{year % 100:02d}{month:02d}{day:02d}{letters}"
    return Event(name, mjd, float(luminosity_distance(redshift)[0]), float(redshift[0]))


def _calendar(mjd: float) -> tuple[int, int, int]:
    stamp = np.datetime64("1858-11-17") + np.timedelta64(int(np.floor(mjd)), "D")
    year, month, day = str(stamp).split("-")
    return int(year), int(month), int(day)


def give_hosts(name: str, o: Objects, instrument: Instrument, draws: Draws) -> None:
    """Give extragalactic transients a host: its magnitudes, size, and where it lies from the transient."""
    if name == "agn":
        o.source_arcsec = draws.uniform("host size", o.key, 0.5, 2.0)
        return
    if name not in HOSTED:
        return
    absolute = np.clip(draws.normal("host magnitude", o.key, -20.3, 1.1), -22.8, -16.5)
    if name == "slsn":
        absolute = absolute + 2.0
    radius_kpc = 4.5 * 10 ** (-0.4 * 0.3 * (absolute + 20.3))
    angular_mpc = o.distance_mpc / (1 + o.redshift) ** 2
    per_kpc = 206.265 / np.maximum(angular_mpc, 1.0)  # arcsec per kpc
    o.source_arcsec = np.clip(radius_kpc * per_kpc, 0.3, 20.0)
    apart = np.sqrt(-2.0 * np.log(draws.uniform("host offset", o.key))) * 0.7 * radius_kpc * per_kpc
    if name == "tde":
        apart = np.abs(draws.normal("host offset", o.key, 0.0, 0.1))
    o.source_sep_arcsec = np.minimum(apart, 25.0)
    o.source_angle = draws.uniform("host angle", o.key, 0.0, 2 * np.pi)
    modulus = 5 * np.log10(o.distance_mpc) + 25
    steps = np.minimum(np.arange(len(instrument.bands)) - (1 if len(instrument.bands) > 2 else 0), 2)
    hue = draws.normal("host colour", o.key, 0.6, 0.12)
    mag = (absolute + modulus)[:, None] + (0.6 - hue[:, None] * steps[None, :])
    o.source_njy = njy(mag + o.extinction)


def give_neighbours(o: Objects, instrument: Instrument, draws: Draws) -> None:
    """Give whatever has no source of its own the nearest unrelated source of the reference image."""
    alone = np.flatnonzero(~np.isfinite(o.source_sep_arcsec))
    keys = o.key[alone]
    o.source_sep_arcsec[alone] = 2.0 + 10.0 * np.sqrt(draws.uniform("neighbour", keys))
    o.source_angle[alone] = draws.uniform("neighbour angle", keys, 0.0, 2 * np.pi)
    faint = float(np.median(instrument.limit_mag)) + 1.5
    mag = instrument.bright_mag + (faint - instrument.bright_mag) * draws.uniform("neighbour mag", keys) ** 0.3
    o.source_njy[alone] = njy(mag)[:, None]
    o.source_arcsec[alone] = np.where(draws.uniform("neighbour kind", keys) < 0.3, 0.8, 0.0)
