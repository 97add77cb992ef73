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

from pipeline import luminosity, night
from pipeline.lightcurve import MISSING, Bool, Float, Int, Points, first_detection, time_order
from pipeline.photometry import flux_at_zero_point, mag_from_flux
from pipeline.surveys.base import Survey, assemble, first_fault, first_known, labels, nullable, position_faults
from pipeline.surveys.records import Records
from pipeline.surveys.ztf_points import (
    DEFAULT_EXPOSURE_SEC,
    FIRST_NIGHT_MJD,
    LAST_MJD,
    MAX_EXPOSURE_SEC,
    detections,
    detections_and_limits,
    forced,
    forced_counts,
    measure,
    repeats_trigger,
    sign_of,
)

BANDS = ("g", "r", "i")
PIXEL_ARCSEC = 1.01
MAX_SOLAR_SYSTEM_ARCSEC = 5.0
"""ZTF names any known object within 30 arcsec; nearer than this it is taken for the same."""
MIN_GOOD_RB = 0.55
SENTINELS = (-999.0, -99999.0)
_GOOD_STATUS = ("0",)


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
        return (mjd >= FIRST_NIGHT_MJD) & (mjd <= LAST_MJD)


# ----------------------------------------------------------------------------------------------- the light curve
def _band(records: Records) -> NDArray[np.int8]:
    fid = records.integers("fid")
    return np.where((fid >= 1) & (fid <= len(BANDS)), fid - 1, -1).astype(np.int8)


def _exposure_sec(records: Records) -> Float:
    seconds = records.floats("exptime")
    with np.errstate(invalid="ignore"):
        return np.where((seconds > 0.0) & (seconds <= MAX_EXPOSURE_SEC), seconds, DEFAULT_EXPOSURE_SEC)


def _mid_utc(records: Records) -> Float:
    """Return UTC at mid-exposure, MJD (n,); NaN where jd is missing or not a time of ZTF."""
    start = night.mjd_from_jd(records.floats("jd"))
    return np.where(_in_range(start), start, np.nan) + _exposure_sec(records) / (2.0 * night.SECONDS_PER_DAY)


def _good_status(records: Records) -> Bool:
    return records.codes(_GOOD_STATUS, "procstatus") >= 0


def _history(packet: Records, candid: Int) -> tuple[Points, Bool, Bool]:
    """Return the points of all rows, triggers first; which are measurements (trigger once), and which upper limits."""
    candidate, n = packet.record("candidate"), packet.n
    row, previous = packet.records("prv_candidates")
    shown, is_detection = detections_and_limits(previous, row)
    parts = [detections(candidate, np.arange(n, dtype=np.int64)), shown]
    is_good = [np.ones(n, dtype=bool), is_detection]
    for records, of_row in ((previous, row), packet.records("fp_hists")[::-1]):
        if records.array("forcediffimflux").null_count < records.n:
            parts.append(forced(records, of_row))
            is_good.append(_good_status(records))
    points, usable = measure(parts)
    usable[:n] = True
    at = slice(n, n + len(row))
    again = repeats_trigger(row, previous.ids("candid"), points.exposure[at], candid, points.exposure[:n])
    is_limit = np.zeros(len(usable), dtype=bool)
    is_limit[at] = usable[at] & ~is_detection
    is_good[1] = is_detection & ~again
    return points, usable & np.concatenate(is_good), is_limit


def forced_losses(raw: pa.Table) -> dict[str, int]:
    """Return the forced points shipped that are no measurement, by reason."""
    reasons = dict.fromkeys(("failed status", "no flux", "no zero point", "no time or band"), 0)
    names = ("prv_candidates", "fp_hists")
    for chunk in raw.select([name for name in names if name in raw.column_names]).to_batches():
        for name in names:
            _count_losses(name, *_packet(pa.Table.from_batches([chunk])).records(name), reasons)
    return {reason: count for reason, count in reasons.items() if count}


def _count_losses(name: str, row: Int, records: Records, reasons: dict[str, int]) -> None:
    shipped = np.ones(len(row), dtype=bool)
    if name == "prv_candidates":  # there every other version and every detection has none
        fluxes = records.array("forcediffimflux")
        if fluxes.null_count == len(fluxes):
            return
        shipped = fluxes.is_valid().to_numpy(zero_copy_only=False)
    elif "forcediffimflux" not in records:
        return
    counts, zero_point = forced_counts(records), records.floats("magzpsci")
    flux = flux_at_zero_point(counts, zero_point)
    is_placed = _in_range(night.mjd_from_jd(records.floats("jd"))) & (_band(records) >= 0)
    tests = (
        ("failed status", ~_good_status(records)),
        ("no flux", np.isnan(counts)),
        ("no zero point", np.isnan(zero_point)),
        ("no time or band", ~(is_placed & np.isfinite(flux))),
    )
    for reason, failed in tests:
        reasons[reason] += int(np.count_nonzero(shipped & failed))
        shipped &= ~failed


def _first_mjd(candidate: Records, mjd: Float, earliest: Float) -> tuple[Float, Bool]:
    """Return the first detection (TAI) and whether it is only a bound, because the packet does not say."""
    start = night.mjd_from_jd(candidate.floats("jdstarthist"))
    start = np.where(_in_range(start), start, np.nan)
    own = start == night.mjd_from_jd(candidate.floats("jd"))
    seconds = np.where(own, _exposure_sec(candidate), DEFAULT_EXPOSURE_SEC)
    first = np.where(own, mjd, night.utc_to_tai(start + seconds / (2.0 * night.SECONDS_PER_DAY)))
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
    points, is_measurement, is_limit = _history(packet, candid)
    curve, limits = time_order(points, packet.n, is_measurement), time_order(points, packet.n, is_limit)
    trigger = points.where(np.arange(packet.n))
    first, is_bound = _first_mjd(candidate, trigger.mjd, first_detection(points, curve))
    columns = {
        "alert_id": candid,
        "object_key": packet.text("objectId"),
        "ra": candidate.floats("ra"),
        "dec": candidate.floats("dec"),
        "mjd": trigger.mjd,
        "utc_date": night.date_number(_mid_utc(candidate)),
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
    return assemble(columns, (points, curve), (points, limits), BANDS)


def _photometry(candidate: Records, trigger: Points) -> dict[str, pa.Array | NDArray]:
    has_total = np.isfinite(trigger.total_flux_njy)
    sign = sign_of(candidate)
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


ZTF = Survey(
    name="ztf",
    bands=BANDS,
    passbands=luminosity.ZTF,
    cutout_columns=("cutoutScience", "cutoutTemplate", "cutoutDifference"),
    alert_id=alert_id,
    faults=faults,
    normalise=normalise,
    night_of=night_of,
    night_disagreement=night_disagreement,
    processed_mjd=processed_mjd,
    forced_losses=forced_losses,
    night_over_hours=15.0,  # the sun rises over Palomar before 15 h UTC
)
