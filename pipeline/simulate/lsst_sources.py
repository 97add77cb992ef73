"""Rubin ids, ``diaSource`` and ``diaForcedSource`` columns."""

from __future__ import annotations

import numpy as np

from pipeline.simulate.encode import Columns, Heap
from pipeline.simulate.geometry import offset
from pipeline.simulate.measure import History, Measured, astrometry, point_key
from pipeline.simulate.night import Night
from pipeline.simulate.objects import Objects
from pipeline.simulate.packets import calendar
from pipeline.simulate.populations import CODES

_PROCESSING_DAYS = 0.0015
_IMAGE_PIXELS = 1681
HIDDEN_ARCSEC = 1.5
"""A template source farther than this adds nothing to the flux at the alert's place."""


def has_object(o: Objects) -> np.ndarray:
    """Return which have a ``diaObject``: all but known Solar System bodies."""
    return o.code != CODES["asteroid_known"]


def visit_numbers(night: Night) -> np.ndarray:
    """Return ``visit`` of every exposure of the plan: day of observation, then five digits in order of time."""
    day = np.floor(night.visits.mjd - 0.5)
    starts = np.flatnonzero(np.r_[True, np.diff(day) != 0])
    sequence = np.arange(day.size) - np.repeat(starts, np.diff(np.r_[starts, day.size])) + 1
    return calendar(day + 2400000.5) * 100_000 + sequence


def source_ids(visit: np.ndarray, detector: np.ndarray, number: np.ndarray) -> np.ndarray:
    """Return ids packed from visit, detector (8 bits) and a number (16 bits)."""
    date, sequence = np.divmod(visit, 100_000)
    year, month, day = date // 10_000, date // 100 % 100, date % 100
    index = ((year - 2010) * 12 + month) * 32 + day
    return ((index * 100_000 + sequence) * 256 + detector) * 65_536 + number


def alert_ids(night: Night, rows: np.ndarray) -> np.ndarray:
    """Return ``diaSourceId`` of the alerts ``rows``, int64 (n,)."""
    detector = night.objects.detector[night.alert_object[rows]]
    return source_ids(visit_numbers(night)[night.alert_visit[rows]], detector, night.alert_number[rows])


def object_ids(night: Night, rows: np.ndarray) -> np.ndarray:
    """Return ``diaObjectId`` of objects ``rows``: unlike those of other nights and seeds, above 2^53."""
    salt = int(night.draws.integers("object ids", np.array([night.night]), 1, 2**31)[0])
    return (1 << 60) + (salt << 28) + rows


def template_flux(night: Night, m: Measured, owner: np.ndarray, visit: np.ndarray) -> np.ndarray:
    """Return the template's flux (nJy) at the places of alerts: a star's own, or a share of the host's, shape (n,)."""
    o = m.objects
    flux = np.take_along_axis(o.source_njy[owner], night.visits.band[visit][:, None], 1)[:, 0]
    apart, radius = o.source_sep_arcsec[owner], np.maximum(o.source_arcsec[owner], 0.1)
    share = np.where(o.source_arcsec[owner] > 0, np.minimum(1.0 / radius**2, 1.0) * np.exp(-1.68 * apart / radius), 1.0)
    return np.where(apart < HIDDEN_ARCSEC, flux * share, 0.0)


def set_source(
    out: Columns,
    prefix: str,
    night: Night,
    m: Measured,
    owner: np.ndarray,
    point: np.ndarray,
    ids: np.ndarray,
    dia_object: np.ndarray,
    numbers: np.ndarray,
    heap: Heap,
) -> None:
    """Set a ``diaSource``: ``owner`` (n,) is the alert's row, ``point`` (n,) the point of its light curve."""
    draws, o, visits = night.draws, m.objects, night.visits
    visit = m.point_visit[point]
    key = point_key(o, owner, visit)
    flux, error = m.point_flux[point], m.point_error[point]
    snr = np.abs(flux) / error
    east, north = astrometry(night, m, owner, point)
    ra, dec = offset(o.ra[owner], o.dec[owner], east, north)
    seeing = visits.seeing_arcsec[visit]
    place_err = seeing / 2.355 / np.maximum(snr, 3.0) / 3600.0
    scale = night.instrument.camera.scale_arcsec
    code = o.code[owner]
    bogus, glint = code == CODES["bogus"], code == CODES["satellite_glint"]
    known = code == CODES["asteroid_known"]
    template = template_flux(night, m, owner, visit)
    moment = (seeing / 2.355) ** 2
    width = moment * np.where(bogus, draws.uniform("width", key, 0.1, 3.0), np.exp(draws.normal("width", key, 0, 0.05)))
    out.set_flags(prefix)
    reliability = np.where(
        bogus, 0.4 * draws.uniform("reliability", key), 1.0 - 0.45 * draws.uniform("reliability", key) ** 2
    )
    count = np.full(owner.size, _IMAGE_PIXELS)
    for name, values in (
        ("diaSourceId", ids), ("visit", numbers[visit]), ("detector", m.detector[owner]),
        ("diaObjectId", dia_object), ("ssObjectId", np.where(known, ss_object_ids(o)[owner], 0)),
        ("parentDiaSourceId", 0), ("midpointMjdTai", visits.mjd[visit]), ("ra", ra), ("raErr", place_err), ("dec", dec),
        ("decErr", place_err), ("ra_dec_Cov", 0.0 * ra), ("x", o.x[owner]), ("y", o.y[owner]),
        ("xErr", place_err * 3600 / scale), ("yErr", place_err * 3600 / scale),
        ("apFlux", flux + 1.2 * error * draws.normal("aperture", key)), ("apFluxErr", 1.6 * error),
        ("isNegative", flux < 0), ("snr", snr), ("psfFlux", flux), ("psfFluxErr", error),
        ("psfChi2", _IMAGE_PIXELS * (1.0 + draws.normal("psf chi2", key, 0.0, 0.035)) * np.where(bogus, 3.0, 1.0)),
        ("psfNdata", count), ("trailFlux", flux * (1 + 0.05 * draws.normal("trail", key))), ("trailFluxErr", error),
        ("trailRa", ra), ("trailDec", dec), ("trailLength", draws.uniform("trail length", key, 0.8, 2.2)),
        ("trailAngle", draws.uniform("trail angle", key, -180.0, 180.0)), ("trailNdata", 0 * count),
        ("dipoleNdata", 0 * count), ("scienceFlux", template + flux), ("scienceFluxErr", 1.01 * error),
        ("templateFlux", template), ("templateFluxErr", 0.1 * error), ("ixx", width), ("iyy", width * 1.05),
        ("ixy", 0.05 * moment), ("ixxPSF", moment), ("iyyPSF", moment * 1.03), ("ixyPSF", 0.03 * moment),
        ("extendedness", draws.uniform("extendedness", key, 0.0, 0.5)), ("reliability", reliability),
        ("band", band_names(night, heap)[visits.band[visit]]), ("bboxSize", np.full(owner.size, 31)),
        ("timeProcessedMjdTai", visits.mjd[visit] + _PROCESSING_DAYS), ("glint_trail", glint),
        ("isDipole", bogus & (o.link[owner] == 0)), ("pixelFlags_streak", glint),
        ("pixelFlags_cr", bogus & (o.link[owner] == 1)), ("pixelFlags_bad", bogus & (o.link[owner] == 2)),
    ):  # fmt: skip
        out.set(prefix + name, values)


def band_names(night: Night, heap: Heap) -> np.ndarray:
    """Add the names of the bands to ``heap``; returns their numbers by band."""
    return heap.add([band.encode() for band in night.instrument.bands])


def ss_object_ids(o: Objects) -> np.ndarray:
    """Return ``ssObjectId`` of known bodies, shape (n,)."""
    return (1 << 61) + o.code * 10**9 + o.link


def set_forced(
    out: Columns, night: Night, m: Measured, history: History, dia_object: np.ndarray, numbers: np.ndarray, heap: Heap
) -> None:
    """Set ``diaForcedSource`` of the points of ``history``."""
    visits, owner, point = night.visits, history.owner, history.point
    visit = m.point_visit[point]
    number = night.draws.integers("forced number", point_key(m.objects, owner, visit), 0, 65_536)
    flux, error = m.point_forced[point], m.point_error[point]
    for name, values in (
        ("diaForcedSourceId", source_ids(numbers[visit], m.detector[owner], number)),
        ("diaObjectId", dia_object[owner]), ("ra", m.objects.ra[owner]), ("dec", m.objects.dec[owner]),
        ("visit", numbers[visit]), ("detector", m.detector[owner]), ("psfFlux", flux), ("psfFluxErr", error),
        ("midpointMjdTai", visits.mjd[visit]), ("scienceFlux", flux + template_flux(night, m, owner, visit)),
        ("scienceFluxErr", 1.01 * error), ("band", band_names(night, heap)[visits.band[visit]]),
        ("timeProcessedMjdTai", visits.mjd[visit] + _PROCESSING_DAYS),
    ):  # fmt: skip
        out.set(name, values)
