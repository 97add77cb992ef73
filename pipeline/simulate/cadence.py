"""When, where and how deep: the exposures of the simulated night and of the months before it."""

from __future__ import annotations

from dataclasses import dataclass

import erfa
import numpy as np

from pipeline.errors import InputError
from pipeline.simulate.draws import Draws
from pipeline.simulate.geometry import RUBIN_CAMERA, ZTF_CAMERA, Camera, altitude, field_grid, sun_altitude


@dataclass(frozen=True)
class Instrument:
    """What the simulator must know of a survey.

    Attributes
    ----------
    wavelength_nm, extinction, limit_mag, zero_point_mag : numpy.ndarray, shape (n_bands,)
        Effective wavelength, A/E(B-V) (Schlafly & Finkbeiner 2011, doi:10.1088/0004-637X/737/2/103), median 5 sigma
        limit, and magnitude of 1 DN.
    """

    name: str
    camera: Camera
    bands: tuple[str, ...]
    wavelength_nm: np.ndarray
    extinction: np.ndarray
    limit_mag: np.ndarray
    zero_point_mag: np.ndarray
    seeing_arcsec: float
    nightly_bands: tuple[int, ...]
    exposure_sec: float
    period_sec: float
    revisit_days: float
    history_days: float
    day_start: float
    bright_mag: float
    stamp_px: int
    stamp_scale_arcsec: float


ZTF = Instrument(
    "ztf", ZTF_CAMERA, ("g", "r"), np.array([474.6, 636.6]), np.array([3.303, 2.285]), np.array([20.7, 20.5]),
    np.array([26.20, 26.25]), 2.0, (0, 1), 30.0, 40.0, 2.0, 110.0, 0.0, 14.5, 63, 1.0125,
)  # fmt: skip
RUBIN = Instrument(
    "lsst", RUBIN_CAMERA, ("u", "g", "r", "i", "z", "y"), np.array([368.0, 478.0, 622.0, 754.0, 869.0, 971.0]),
    np.array([4.145, 3.237, 2.273, 1.684, 1.323, 1.088]), np.array([23.7, 24.6, 24.2, 23.8, 23.2, 22.3]),
    np.full(6, 31.4), 0.9, (1, 2, 3, 4, 2, 0, 3, 5), 30.0, 38.0, 4.0, 150.0, 0.5, 17.5, 31, 0.2,
)  # fmt: skip
INSTRUMENTS = {"ztf": ZTF, "lsst": RUBIN}


@dataclass(frozen=True)
class Visits:
    """Exposures, ordered by start; every array has the shape (n_visits,).

    ``field`` is a row of ``field_ra, field_dec``; ``of_field[first[f]:first[f+1]]`` are the visits of field f in order.
    """

    field: np.ndarray
    jd: np.ndarray
    mjd: np.ndarray
    band: np.ndarray
    limit_mag: np.ndarray
    seeing_arcsec: np.ndarray
    is_tonight: np.ndarray
    field_ra: np.ndarray
    field_dec: np.ndarray
    field_number: np.ndarray
    of_field: np.ndarray
    first: np.ndarray

    @property
    def tonight(self) -> np.ndarray:
        """Numbers of the night's exposures."""
        return np.flatnonzero(self.is_tonight)


def jd_of_night(night: int) -> float:
    """Return the Julian date of 0 h UTC of a night YYYYMMDD."""
    year, month, day = night // 10000, night // 100 % 100, night % 100
    try:
        zero, modified = erfa.cal2jd(year, month, day)
    except erfa.ErfaError as error:
        raise InputError(f"{night} is not a date YYYYMMDD") from error
    return float(zero + modified)


def tai_minus_utc_days(jd_utc: float) -> float:
    """Return TAI - UTC in days on the night (one value: no simulated night crosses a leap second)."""
    tai1, tai2 = erfa.utctai(jd_utc, 0.0)
    return float((tai1 - jd_utc) + tai2)


def schedule(instrument: Instrument, night: int, n_alerts: int, draws: Draws) -> Visits:
    """Lay out the night's exposures and the history of their fields.

    The night has between 24 and 700 exposures, one for each 20 alerts, about local midnight. Fields high in the sky
    are visited twice, in two bands, within the night; before, every ``revisit_days`` unless clouded out (one night in
    four). Limits follow the Moon's phase, the air mass and the seeing.

    Returns
    -------
    Visits
        History and night together.
    """
    camera = instrument.camera
    zero = jd_of_night(night)
    clock = zero + instrument.day_start + np.arange(0, 1440) / 1440.0
    dark = clock[sun_altitude(clock, camera) < -14.0]
    slots = int((dark[-1] - dark[0]) * 86400.0 / instrument.period_sec)
    n_exposures = min(int(np.clip(n_alerts / 20, 24, 700)), slots)
    n_fields = n_exposures // 2
    period = instrument.period_sec / 86400.0
    beginning = 0.5 * (dark[0] + dark[-1]) - n_fields * period
    grid_ra, grid_dec = field_grid(camera)
    chosen, start, again = _choose_fields(instrument, grid_ra, grid_dec, beginning, n_fields, draws)
    bands = np.array(instrument.nightly_bands)
    rows, lit = np.arange(n_fields), np.ones(n_fields, bool)
    first_band = draws.integers("first band", chosen, 0, bands.size)
    tonight = [(rows, start, bands[first_band], lit), (rows, again, bands[(first_band + 1) % bands.size], lit)]
    past = _history(instrument, chosen, start, bands, draws)
    joined = [np.concatenate(column) for column in zip(*tonight, *past, strict=True)]
    order = np.lexsort((joined[0], joined[1]))
    field, jd, band, is_tonight = (column[order] for column in joined)
    jd = np.floor(jd * 1e5) / 1e5 + 1e-7  # five digits of the day name an exposure: none lies on a boundary
    key = chosen[field] * 100_000_000 + np.round((jd - zero + 1000.0) * 1e4).astype(np.int64)
    limit, seeing = _conditions(instrument, grid_ra[chosen][field], grid_dec[chosen][field], jd, band, key, draws)
    by_field = np.argsort(field, kind="stable")
    mid = jd - 2400000.5 + tai_minus_utc_days(zero) + instrument.exposure_sec / 172800.0
    first = np.searchsorted(field[by_field], np.arange(n_fields + 1))
    ra, dec = grid_ra[chosen], grid_dec[chosen]
    return Visits(field, jd, mid, band, limit, seeing, is_tonight, ra, dec, chosen, by_field, first)


BLOCK = 60
"""Fields visited in one band before they are visited again in the next."""


def _choose_fields(
    instrument: Instrument, ra: np.ndarray, dec: np.ndarray, beginning: float, n_fields: int, draws: Draws
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return field numbers and the times of their two visits, block by block, among the fields then high in the sky."""
    period = instrument.period_sec / 86400.0
    free = np.ones(ra.size, bool)
    chosen: list[np.ndarray] = []
    for block in range(0, n_fields, BLOCK):
        size = min(BLOCK, n_fields - block)
        high = altitude(ra, dec, beginning + (2 * block + size) * period, instrument.camera)
        rank = np.argsort(np.where(free, -high, np.inf), kind="stable")
        pool = rank[: max(size, min(4 * size, int((free & (high > 40.0)).sum())))]
        picked = pool[np.argsort(draws.uniform("field order", pool), kind="stable")[:size]]
        picked = picked[np.argsort(ra[picked], kind="stable")]
        free[picked] = False
        chosen.append(picked)
    rows = np.arange(n_fields)
    number = rows // BLOCK
    start = beginning + (2 * number * BLOCK + rows % BLOCK) * period
    return np.concatenate(chosen), start, start + np.minimum(BLOCK, n_fields - number * BLOCK) * period


def _history(
    instrument: Instrument, chosen: np.ndarray, tonight: np.ndarray, bands: np.ndarray, draws: Draws
) -> list[tuple[np.ndarray, ...]]:
    """Return (field row, jd, band, False) of the visits of the months before, one tuple per visited night."""
    past: list[tuple[np.ndarray, ...]] = []
    rows = np.arange(chosen.size)
    steps = int(instrument.history_days / instrument.revisit_days)
    for step in range(1, steps + 1):
        shift = np.round(step * instrument.revisit_days) + draws.integers("night shift", chosen, -1, 2, counter=step)
        clear = draws.uniform("clouds", chosen, counter=step) > 0.25
        start = tonight - shift * 0.99727
        start += draws.uniform("visit start", chosen, -0.03, 0.03, counter=step)
        later = start + draws.uniform("second visit", chosen, 0.02, 0.07, counter=step)
        first_band = draws.integers("past band", chosen, 0, bands.size, counter=step)
        second = clear & (draws.uniform("pair", chosen, counter=step) < 0.7)
        unlit = np.zeros(chosen.size, bool)
        past.append((rows[clear], start[clear], bands[first_band][clear], unlit[clear]))
        past.append((rows[second], later[second], bands[(first_band + 1) % bands.size][second], unlit[second]))
    return past


def _conditions(
    instrument: Instrument,
    ra: np.ndarray,
    dec: np.ndarray,
    jd: np.ndarray,
    band: np.ndarray,
    key: np.ndarray,
    draws: Draws,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the 5 sigma limit and the seeing of exposures, shape (n,)."""
    air_mass = 1.0 / np.maximum(np.sin(np.radians(altitude(ra, dec, jd, instrument.camera))), 0.4)
    seeing = instrument.seeing_arcsec * air_mass**0.6 * np.exp(draws.normal("seeing", key, 0.0, 0.15))
    illuminated = 0.5 * (
        1.0 - np.cos(2.0 * np.pi * ((jd - 2451550.1) / 29.530588853))
    )  # from the new Moon of 2000-01-06
    limit = instrument.limit_mag[band] - 0.8 * illuminated**2 - 0.15 * (air_mass - 1.0)
    limit -= 1.25 * np.log10(seeing / instrument.seeing_arcsec) - draws.normal("transparency", key, 0.0, 0.12)
    return limit, seeing
