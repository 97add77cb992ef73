"""ZTF: packets 1.x, 3.0 to 3.5, 4.01, 4.02 (Bellm et al. 2019, PASP 131, 018002; Masci et al. 2019, PASP 131, 018003).

Facts of this survey: ``jd`` is the UTC start of the exposure; ``isdiffpos`` is the sign of ``magpsf``; a non-detection
in ``prv_candidates`` has no ``magpsf``; 4.x adds forced photometry as ``fp_hists``, 3.5 carried it in
``prv_candidates``; the photometric reference is one image per (field, readout channel, band), and a history may mix
several. Sentinels: -999 and -99999 in numbers, ``"null"`` and ``""`` in strings, 0 in ``exptime``, and ``drb`` = 0 with
an empty ``drbversion``.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.photometry import (
    add_reference,
    flux_at_zero_point,
    flux_error_from_mag,
    flux_from_mag,
    mag_from_flux,
)
from plain_normalise import night
from plain_normalise.base import Records, assemble, first_fault, first_known, labels, nullable, position_faults
from plain_normalise.lightcurve import MISSING, Bool, Float, Int, Points, concatenate

BANDS = ("g", "r", "i")
DEFAULT_EXPOSURE_SEC = 30.0
PIXEL_ARCSEC = 1.01
MAX_REFERENCE_ARCSEC = 1.5
"""A source of the reference image nearer than this is the one under the alert; its flux is part of the total."""
MAX_SOLAR_SYSTEM_ARCSEC = 5.0
"""ZTF names any known object within 30 arcsec; nearer than this it is taken for the same."""
MIN_GOOD_RB = 0.55
FIRST_NIGHT_MJD = 57754  # 2017-01-01, nid 0
SENTINELS = (-999.0, -99999.0)
FORCED_SENTINELS = (-99999.0,)  # a forced flux of -999 is a measurement
_SIGNS = ("t", "1", "true", "f", "0", "false")
_GOOD_STATUS = ("0",)
_TIME_RANGE_MJD = (FIRST_NIGHT_MJD, 90000.0)


def _packet(raw: pa.Table) -> Records:
    return Records(raw, SENTINELS)


# ----------------------------------------------------------------------------------------------- identity and faults
def alert_id(raw: pa.Table) -> pa.Array:
    """Return candid, int64 (n,): top level, else ``candidate.candid``; null where it is missing or 0."""
    return nullable(_candid(raw))


def _candid(raw: pa.Table) -> Int:
    packet = _packet(raw)
    return first_known(packet.ids("candid"), packet.record("candidate").ids("candid"))


def faults(raw: pa.Table) -> pa.Array:
    """Return per row why it cannot be normalised, string (n,); null where it can."""
    candidate = _packet(raw).record("candidate")
    object_id = _packet(raw).text("objectId")
    mjd = night.mjd_from_jd(candidate.floats("jd"))
    tests = [
        (_candid(raw) == MISSING, "candid is missing or 0"),
        (object_id.is_null().to_numpy(zero_copy_only=False), "objectId is missing"),
        *position_faults(candidate.floats("ra"), candidate.floats("dec")),
        (~_in_range(mjd), "candidate.jd is missing or not a time of ZTF"),
        (_band(candidate) < 0, "candidate.fid is missing or not 1, 2 or 3"),
    ]
    return first_fault(raw.num_rows, tests)


def _in_range(mjd: Float) -> Bool:
    with np.errstate(invalid="ignore"):
        return (mjd >= _TIME_RANGE_MJD[0]) & (mjd <= _TIME_RANGE_MJD[1])


# ----------------------------------------------------------------------------------------------- one measurement
def _band(records: Records) -> NDArray[np.int8]:
    fid = records.integers("fid")
    return np.where((fid >= 1) & (fid <= len(BANDS)), fid - 1, -1).astype(np.int8)


def _exposure_sec(records: Records) -> Float:
    seconds = records.floats("exptime")
    with np.errstate(invalid="ignore"):
        return np.where((seconds > 0.0) & (seconds <= 3600.0), seconds, DEFAULT_EXPOSURE_SEC)


def _mid_utc(records: Records) -> Float:
    """Return UTC at mid-exposure, MJD (n,); NaN where jd is missing or not a time of ZTF."""
    start = night.mjd_from_jd(records.floats("jd"))
    return np.where(_in_range(start), start, np.nan) + _exposure_sec(records) / (2.0 * night.SECONDS_PER_DAY)


def _sign(records: Records) -> Float:
    code = records.codes(_SIGNS, "isdiffpos")
    return np.where(code < 0, np.nan, np.where(code < len(_SIGNS) // 2, 1.0, -1.0))


def _reference(records: Records) -> Int:
    field, rcid = records.integers("field"), records.integers("rcid")
    known = (field > 0) & (rcid >= 0)
    return np.where(known, np.where(known, field, 0) * 100 + rcid, MISSING)


def _reference_mag(records: Records) -> tuple[Float, Float]:
    """Return magnitude and error of the reference source under the alert, (n,); NaN where none lies near enough."""
    distance = records.floats("distnr")
    with np.errstate(invalid="ignore"):
        under = (distance >= 0.0) & (distance <= MAX_REFERENCE_ARCSEC)
    return np.where(under, records.floats("magnr"), np.nan), records.floats("sigmagnr")


def _points(records: Records, row: Int, flux: Float, flux_err: Float, is_forced: bool) -> Points:
    total, total_err = add_reference(flux, flux_err, *_reference_mag(records))
    return Points(
        row=row,
        mjd=night.utc_to_tai(_mid_utc(records)),
        band=_band(records),
        exposure=records.ids("pid"),
        flux_njy=flux,
        flux_err_njy=flux_err,
        total_flux_njy=total,
        total_flux_err_njy=total_err,
        reference=_reference(records),
        is_forced=np.full(len(row), is_forced),
    )


def _detections(records: Records, row: Int) -> Points:
    mag = records.floats("magpsf")
    return _points(
        records, row, _sign(records) * flux_from_mag(mag), flux_error_from_mag(mag, records.floats("sigmapsf")), False
    )


def _forced(records: Records, row: Int) -> Points:
    zero_point = records.floats("magzpsci")
    flux = flux_at_zero_point(_forced_counts(records), zero_point)
    error = flux_at_zero_point(records.floats("forcediffimfluxunc", sentinels=FORCED_SENTINELS), zero_point)
    return _points(records, row, flux, np.where(error > 0.0, error, np.nan), True)


def _forced_counts(records: Records) -> Float:
    return records.floats("forcediffimflux", sentinels=FORCED_SENTINELS)


def _limits(records: Records, row: Int) -> Points:
    return _points(records, row, flux_from_mag(records.floats("diffmaglim")), np.full(len(row), np.nan), False)


# ----------------------------------------------------------------------------------------------- the light curve
def _usable(points: Points) -> Bool:
    return np.isfinite(points.mjd) & np.isfinite(points.flux_njy) & (points.band >= 0)


def _good_status(records: Records) -> Bool:
    return records.codes(_GOOD_STATUS, "procstatus") >= 0


def _history(raw: pa.Table, trigger: Points, candid: Int) -> tuple[Points, Points]:
    """Return the measurements (trigger included, once) and the upper limits of all rows."""
    row, previous = _packet(raw).records("prv_candidates")
    forced_row, histories = _packet(raw).records("fp_hists")
    is_detection = np.isfinite(previous.floats("magpsf"))
    own = previous.ids("candid")
    repeats = np.where(own == MISSING, previous.ids("pid") == trigger.exposure[row], own == candid[row])
    repeats &= (own != MISSING) | (previous.ids("pid") != MISSING)
    detections = _detections(previous, row)
    limits = _limits(previous, row)
    parts = [trigger, detections.where(is_detection & ~repeats & _usable(detections))]
    for records, of_row in ((previous, row), (histories, forced_row)):
        if "forcediffimflux" in records:
            forced = _forced(records, of_row)
            parts.append(forced.where(_good_status(records) & _usable(forced)))
    return concatenate(parts), limits.where(~is_detection & _usable(limits))


def forced_losses(raw: pa.Table) -> dict[str, int]:
    """Return the forced points shipped that are no measurement, by reason."""
    reasons = dict.fromkeys(("failed status", "no flux", "no zero point", "no time or band"), 0)
    for name in ("prv_candidates", "fp_hists"):
        row, records = _packet(raw).records(name)
        if "forcediffimflux" not in records:
            continue
        if name == "prv_candidates":  # there every other version and every detection has none
            shipped = records.array("forcediffimflux").is_valid().to_numpy(zero_copy_only=False)
        else:
            shipped = np.ones(len(row), dtype=bool)
        forced = _forced(records, row)
        tests = (
            ("failed status", ~_good_status(records)),
            ("no flux", np.isnan(_forced_counts(records))),
            ("no zero point", np.isnan(records.floats("magzpsci"))),
            ("no time or band", ~_usable(forced)),
        )
        for reason, failed in tests:
            reasons[reason] += int((shipped & failed).sum())
            shipped &= ~failed
    return {reason: count for reason, count in reasons.items() if count}


def _first_mjd(candidate: Records, points: Points, mjd: Float) -> tuple[Float, Bool]:
    """Return the first detection (TAI) and whether it is only a bound, because the packet does not say."""
    start = night.mjd_from_jd(candidate.floats("jdstarthist"))
    start = np.where(_in_range(start), start, np.nan)
    own = start == night.mjd_from_jd(candidate.floats("jd"))
    seconds = np.where(own, _exposure_sec(candidate), DEFAULT_EXPOSURE_SEC)
    first = np.where(own, mjd, night.utc_to_tai(start + seconds / (2.0 * night.SECONDS_PER_DAY)))
    earliest = mjd.copy()
    detected = ~points.is_forced
    np.minimum.at(earliest, points.row[detected], points.mjd[detected])
    return np.where(np.isnan(first), earliest, first), np.isnan(first)


# ----------------------------------------------------------------------------------------------- the alert
def normalise(raw: pa.Table) -> pa.Table:
    """Return the canonical alerts of packets without fault.

    Parameters
    ----------
    raw : pyarrow.Table
        Native columns; any version, any slice.

    Returns
    -------
    pyarrow.Table
        :data:`pipeline.tables.ALERTS`, same rows, same order.
    """
    packet = _packet(raw)
    candidate = packet.record("candidate")
    candid = _candid(raw)
    trigger = _detections(candidate, np.arange(raw.num_rows, dtype=np.int64))
    points, limits = _history(raw, trigger, candid)
    first, is_bound = _first_mjd(candidate, points, trigger.mjd)
    utc = _mid_utc(candidate)
    columns = {
        "alert_id": candid,
        "object_key": packet.text("objectId"),
        "ra": candidate.floats("ra"),
        "dec": candidate.floats("dec"),
        "mjd": trigger.mjd,
        "utc_date": night.date_number(utc),
        "band": labels(trigger.band, BANDS),
        "exposure": trigger.exposure,
        "field": candidate.integers("field"),
        "detector": candidate.integers("rcid"),
        "reference": trigger.reference,
        **_photometry(candidate, trigger),
        **_conditions(candidate),
        **_solar_system(candidate),
        "is_public": candidate.integers("programid") == 1,
        "first_mjd": first,
        "first_mjd_is_bound": is_bound,
        **_neighbours(candidate),
    }
    return assemble(columns, points, limits, BANDS)


def _photometry(candidate: Records, trigger: Points) -> dict[str, pa.Array | NDArray]:
    has_total = np.isfinite(trigger.total_flux_njy)
    sign = _sign(candidate)
    return {
        "flux_njy": trigger.flux_njy,
        "flux_err_njy": trigger.flux_err_njy,
        "is_positive": pa.array(sign > 0.0, mask=np.isnan(sign)),
        "diff_mag": candidate.floats("magpsf"),
        "diff_err_mag": candidate.floats("sigmapsf"),
        "total_flux_njy": trigger.total_flux_njy,
        "total_flux_err_njy": trigger.total_flux_err_njy,
        "total_flux_err_no_reference_njy": np.where(has_total, trigger.flux_err_njy, np.nan),
        "total_mag": mag_from_flux(trigger.total_flux_njy),
    }


def _conditions(candidate: Records) -> dict[str, pa.Array | NDArray]:
    rb, drb = candidate.floats("rb"), candidate.floats("drb")
    version_is_null = candidate.text("drbversion").is_null().to_numpy(zero_copy_only=False)
    drb = np.where((drb == 0.0) & version_is_null, np.nan, drb)
    nbad = candidate.integers("nbad")
    no_bad_pixel = pa.array(nbad == 0, mask=nbad < 0)
    return {
        "limit_mag": candidate.floats("diffmaglim"),
        "seeing_arcsec": candidate.floats("fwhm") * PIXEL_ARCSEC,
        "exposure_time_sec": _exposure_sec(candidate),
        "reliability": np.where(np.isnan(drb), rb, drb),
        "is_good_quality": pc.and_kleene(no_bad_pixel, pa.array(rb >= MIN_GOOD_RB, mask=np.isnan(rb))),
    }


def _solar_system(candidate: Records) -> dict[str, pa.Array | NDArray]:
    name = candidate.text("ssnamenr")
    distance = candidate.floats("ssdistnr")
    near = (distance >= 0.0) & (distance <= MAX_SOLAR_SYSTEM_ARCSEC)
    return {
        "is_solar_system": near & name.is_valid().to_numpy(zero_copy_only=False),
        "solar_system_name": name,
        "solar_system_separation_arcsec": distance,
    }


def _neighbours(candidate: Records) -> dict[str, pa.Array | NDArray]:
    return {
        "reference_separation_arcsec": candidate.floats("distnr"),
        "reference_mag": candidate.floats("magnr"),
        "star_score": candidate.floats("sgscore1"),
        "star_separation_arcsec": candidate.floats("distpsnr1"),
        "gaia_separation_arcsec": candidate.floats("neargaia"),
        "gaia_mag": candidate.floats("maggaia"),
    }


# ----------------------------------------------------------------------------------------------- night
def night_of(alerts: pa.Table) -> NDArray[np.int32]:
    """Return the observing night, YYYYMMDD int32 (n,): the UTC date (Palomar observes from about 2 to 14 h UTC)."""
    return alerts.column("utc_date").to_numpy().astype(np.int32)


def night_disagreement(raw: pa.Table, alerts: pa.Table) -> Bool:
    """Return where the survey's own night number, ``nid``, names another night, bool (n,)."""
    nid = _packet(raw).record("candidate").integers("nid")
    named = night.date_number(FIRST_NIGHT_MJD + np.where(nid > 0, nid, 0))
    return (nid > 0) & (named != night_of(alerts))


def processed_mjd(raw: pa.Table) -> pa.Array:
    """Return null for every row: ZTF does not say when a packet was made."""
    return pa.nulls(raw.num_rows, pa.float64())
