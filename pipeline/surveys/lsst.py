"""Rubin (LSST): packets 3.0 to 11.1 (Data Products Definition Document, LSE-163; schemas ``lsst.alert.packet``).

Facts of this survey: ``midpointMjdTai`` is TAI at mid-visit; an id of 0 means none; ``isNegative`` is a detection flag
and not the sign of the flux; ``scienceFlux`` is measured on the visit image itself, so its error holds no reference
error; forced photometry repeats the visits of detections; a record with ``timeWithdrawnMjdTai`` was marked invalid by
the survey and is no measurement. Fields were renamed on the way: ``midPointTai``, ``filterName``, ``decl``, ``psFlux``,
``totFlux`` (to 4.0), ``ccdVisitId`` (to 6.1), ``is_negative`` (7.3, 7.4), ``time_processed`` (8.0), ``MPCORB`` (8.0,
9.0). Sentinels: ids 0 and -9, the ``ccdVisitId`` 111111 of samples; the samples of 3.0 to 7.4 give the time in seconds
since 1970, which no MJD is large enough to be mistaken for.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline import luminosity, night
from pipeline.lightcurve import MISSING, Bool, Float, Int, Order, Points, first_detection, is_usable, time_order
from pipeline.photometry import mag_error_from_flux, mag_from_flux
from pipeline.surveys.base import Survey, assemble, first_fault, first_known, labels, nullable, position_faults
from pipeline.surveys.lsst_points import BANDS, DETECTORS, Dialect, Part, band_of, exposure_of, measure, mid_tai
from pipeline.surveys.records import Records

FIRST_DATED_VISIT = 10**12  # from here on a visit is day_obs * 100000 + sequence number
LIMIT_SIGMA = 5.0
MIN_GOOD_SNR = 6.0
FWHM_PER_SIGMA = 2.0 * np.sqrt(2.0 * np.log(2.0))
BAD_QUALITY_FLAGS = (
    "isDipole",
    "shape_flag",
    "forced_PsfFlux_flag",
    "forced_PsfFlux_flag_edge",
    "psfFlux_flag",
    "centroid_flag",
    "apFlux_flag",
    "pixelFlags_interpolated",
    "pixelFlags_cr",
    "pixelFlags_bad",
    "pixelFlags_saturated",
    "pixelFlags_streakCenter",
)
"""Fink's quality block (fink-filters, rubin/blocks.py); with a positive flux of at least 6 sigma."""
INJECTED_FLAGS = (
    "pixelFlags_injected",
    "pixelFlags_injectedCenter",
    "pixelFlags_injected_template",
    "pixelFlags_injected_templateCenter",
)


# ----------------------------------------------------------------------------------------------- the light curve
def _limits(packet: Records, dialect: Dialect) -> tuple[Points, Order]:
    """Return the upper limits: ``prvDiaNondetectionLimits``, which only packets up to 7.4 have room for."""
    row, records = packet.records("prvDiaNondetectionLimits")
    limits, _ = measure([Part(records, row, False)] if records.n else [], dialect)
    noise = records.floats("diaNoise") * dialect.njy_per_unit
    limits.flux_njy[:] = np.where(noise > 0.0, LIMIT_SIGMA * noise, np.nan)
    return limits, time_order(limits, packet.n, is_usable(limits))


def _is_withdrawn(records: Records) -> Bool:
    return np.isfinite(records.floats("timeWithdrawnMjdTai"))


def source_id(packet: Records) -> Int:
    """Return diaSourceId, int64 (n,), :data:`pipeline.lightcurve.MISSING` where it is missing or 0."""
    return first_known(packet.record("diaSource").ids("diaSourceId"), packet.ids("diaSourceId"))


def history(packet: Records, dialect: Dialect) -> tuple[Points, Order, Int]:
    """Return the points (triggers first), the measurements among them, and the number of earlier sources per row."""
    n = packet.n
    row, previous = packet.records("prvDiaSources")
    forced_row, forced = packet.records("prvDiaForcedSources")
    is_trigger = previous.ids("diaSourceId") == source_id(packet)[row]
    trigger = Part(packet.record("diaSource"), np.arange(n, dtype=np.int64), False)
    points, keep = measure([trigger, Part(previous, row, False), Part(forced, forced_row, True)], dialect)
    keep[:n] = True
    keep[n : n + len(row)] &= ~is_trigger & ~_is_withdrawn(previous)
    keep[n + len(row) :] &= ~_is_withdrawn(forced)
    return points, time_order(points, n, keep), np.bincount(row[~is_trigger], minlength=n)


def losses(raw: pa.Table, dialect: Dialect) -> dict[str, int]:
    """Return the forced points shipped that are no measurement, by reason."""
    reasons = dict.fromkeys(("withdrawn", "no flux", "no time or band"), 0)
    name = "prvDiaForcedSources"
    for chunk in raw.select([name] if name in raw.column_names else []).to_batches():
        _, records = Records(pa.Table.from_batches([chunk])).records(name)
        flux = records.floats("psfFlux", "psFlux") * dialect.njy_per_unit
        is_placed = np.isfinite(mid_tai(records)) & (band_of(records) >= 0)
        left = np.ones(records.n, dtype=bool)
        for reason, failed in (
            ("withdrawn", _is_withdrawn(records)),
            ("no flux", np.isnan(flux)),
            ("no time or band", ~(is_placed & np.isfinite(flux))),
        ):
            reasons[reason] += int(np.count_nonzero(left & failed))
            left &= ~failed
    return {reason: count for reason, count in reasons.items() if count}


def _first_detection(packet: Records, n_earlier: Int, earliest: Float) -> tuple[Float, Bool]:
    """Return the first detection (TAI) and whether it is only a bound.

    It is one where the packet names no first detection and its history is not shown to be whole by ``nDiaSources``:
    histories are cut at 12 months.
    """
    dia_object = packet.record("diaObject")
    named = dia_object.floats("firstDiaSourceMjdTai")
    n_sources = dia_object.integers("nDiaSources")
    is_whole = (n_sources > 0) & (n_earlier + 1 >= n_sources)
    return np.fmin(named, earliest), np.isnan(named) & ~is_whole


# ----------------------------------------------------------------------------------------------- the alert
def object_ids(packet: Records) -> tuple[Int, Int]:
    """Return diaObjectId and ssObjectId, int64 (n,), :data:`pipeline.lightcurve.MISSING` for null and for 0."""
    source = packet.record("diaSource")
    dia_object = first_known(source.ids("diaObjectId"), packet.record("diaObject").ids("diaObjectId"))
    return dia_object, first_known(source.ids("ssObjectId"), packet.record("ssSource").ids("ssObjectId"))


def object_key(packet: Records) -> pa.Array:
    """Return what tells objects apart, string (n,): diaObjectId, else ``ss:``ssObjectId, else ``src:``diaSourceId."""
    dia_object, ss_object = object_ids(packet)
    texts = [
        pc.binary_join_element_wise(prefix, pa.array(ids, mask=ids == MISSING).cast(pa.string()), "")
        for prefix, ids in (("", dia_object), ("ss:", ss_object), ("src:", source_id(packet)))
    ]
    return pc.coalesce(*texts)


def source_faults(raw: pa.Table) -> pa.Array:
    """Return per row why it cannot be normalised, string (n,); null where it can."""
    packet = Records(raw)
    source = packet.record("diaSource")
    tests = [
        (source_id(packet) == MISSING, "diaSourceId is missing or 0"),
        *position_faults(source.floats("ra"), source.floats("dec", "decl")),
        (np.isnan(mid_tai(source)), "diaSource.midpointMjdTai is missing or not a time of the survey"),
        (band_of(source) < 0, "diaSource.band is missing or not one of u, g, r, i, z, y"),
    ]
    return first_fault(raw.num_rows, tests)


def any_flag(records: Records, names: tuple[str, ...]) -> pa.Array:
    """Return whether any flag is set, (n,): True if one is, else null if one is unknown, else False."""
    return reduce(pc.or_kleene, [records.flags(name) for name in names])


def source_columns(packet: Records, trigger: Points) -> dict[str, pa.Array | NDArray]:
    """Return the flat columns that every packet of this form has."""
    source = packet.record("diaSource")
    flux = trigger.flux_njy
    return {
        "alert_id": source_id(packet),
        "object_key": object_key(packet),
        "ra": source.floats("ra"),
        "dec": source.floats("dec", "decl"),
        "mjd": trigger.mjd,
        "utc_date": night.date_number(night.tai_to_utc(trigger.mjd)),
        "band": labels(trigger.band, BANDS),
        "exposure": trigger.exposure,
        "flux_njy": flux,
        "flux_err_njy": trigger.flux_err_njy,
        "is_positive": pa.array(flux > 0.0, mask=np.isnan(flux)),
        "diff_mag": mag_from_flux(np.abs(flux)),
        "diff_err_mag": mag_error_from_flux(np.abs(flux), trigger.flux_err_njy),
        "total_flux_njy": trigger.total_flux_njy,
        "total_flux_err_njy": trigger.total_flux_err_njy,
        "total_flux_err_no_reference_njy": trigger.total_flux_err_njy,
        "total_mag": mag_from_flux(trigger.total_flux_njy),
        "is_public": np.ones(packet.n, dtype=bool),
        "is_solar_system": object_ids(packet)[1] != MISSING,
    }


def normalise_with(
    raw: pa.Table, dialect: Dialect, more: Callable[[Records, Points], dict[str, pa.Array | NDArray]]
) -> pa.Table:
    """Return the canonical alerts of packets of this form; ``more`` gives the columns of one survey."""
    packet = Records(raw)
    points, curve, n_earlier = history(packet, dialect)
    trigger = points.where(np.arange(packet.n))
    first, is_bound = _first_detection(packet, n_earlier, first_detection(points, curve))
    columns = {
        **source_columns(packet, trigger),
        "first_mjd": first,
        "first_mjd_is_bound": is_bound,
        **more(packet, trigger),
    }
    return assemble(columns, (points, curve), _limits(packet, dialect), BANDS)


def _rubin_columns(packet: Records, trigger: Points) -> dict[str, pa.Array | NDArray]:
    source, ss_source = packet.record("diaSource"), packet.record("ssSource")
    name = pc.coalesce(
        ss_source.text("designation"),
        packet.record("mpc_orbits").text("designation"),
        packet.record("MPCORB").text("mpcDesignation"),
    )
    is_solar_system = pa.array(object_ids(packet)[1] != MISSING)
    psf = source.floats("ixxPSF") + source.floats("iyyPSF")
    return {
        "detector": source.integers("detector"),
        "seeing_arcsec": FWHM_PER_SIGMA * np.sqrt(np.where(psf > 0.0, psf / 2.0, np.nan)),
        "reliability": source.floats("reliability"),
        "is_good_quality": _good_quality(source, trigger),
        "solar_system_name": pc.if_else(is_solar_system, name, pa.scalar(None, pa.string())),
        "solar_system_separation_arcsec": ss_source.floats("ephOffset"),
        "is_dipole": source.flags("isDipole"),
        "is_negative_detection": source.flags("isNegative", "is_negative"),
        "is_injected": any_flag(source, INJECTED_FLAGS),
        "is_glint_flagged": source.flags("glint_trail"),
    }


def _good_quality(source: Records, trigger: Points) -> pa.Array:
    ratio = trigger.flux_njy / trigger.flux_err_njy
    is_bright = pa.array(ratio >= MIN_GOOD_SNR, mask=np.isnan(ratio))
    return pc.and_kleene(pc.invert(any_flag(source, BAD_QUALITY_FLAGS)), is_bright)


# ----------------------------------------------------------------------------------------------- the survey
def alert_id(raw: pa.Table) -> pa.Array:
    """Return diaSourceId, int64 (n,); null where it is missing or 0."""
    return nullable(source_id(Records(raw)))


RUBIN = Dialect(njy_per_unit=1.0, exposure=exposure_of)


def normalise(raw: pa.Table) -> pa.Table:
    """Return the canonical alerts of packets without fault: same rows, same order, any version, any slice."""
    return normalise_with(raw, RUBIN, _rubin_columns)


def forced_losses(raw: pa.Table) -> dict[str, int]:
    """Return the forced points shipped that are no measurement, by reason."""
    return losses(raw, RUBIN)


def observing_date(mjd_tai: Float) -> NDArray[np.int32]:
    """Return the night by time alone, YYYYMMDD int32 (n,): it starts at noon TAI."""
    return night.date_number(mjd_tai - 0.5)


def _date_of_visit(alerts: pa.Table) -> tuple[Bool, NDArray[np.int32]]:
    exposure = alerts.column("exposure").combine_chunks().fill_null(0).to_numpy(zero_copy_only=False)
    visit = exposure // DETECTORS
    is_dated = visit >= FIRST_DATED_VISIT
    return is_dated, np.where(is_dated, visit // 100000, 0).astype(np.int32)


def night_of(alerts: pa.Table) -> NDArray[np.int32]:
    """Return the observing night, YYYYMMDD int32 (n,): named by the visit, else by the time."""
    is_dated, named = _date_of_visit(alerts)
    return np.where(is_dated, named, observing_date(alerts.column("mjd").to_numpy()))


def night_disagreement(raw: pa.Table, alerts: pa.Table) -> Bool:
    """Return where visit and time name different nights, bool (n,)."""
    is_dated, named = _date_of_visit(alerts)
    return is_dated & (named != observing_date(alerts.column("mjd").to_numpy()))


def processed_mjd(raw: pa.Table) -> pa.Array:
    """Return the time of processing, TAI MJD float64 (n,); null where the packet has none."""
    source = Records(raw).record("diaSource")
    micros = source.ids("time_processed")  # 8.0: microseconds since 1970, UTC
    utc = night.mjd_of_date(19700101) + np.where(micros == MISSING, np.nan, micros / 1e6 / night.SECONDS_PER_DAY)
    tai = source.floats("timeProcessedMjdTai")
    return nullable(np.where(np.isnan(tai), night.utc_to_tai(utc), tai))


LSST = Survey(
    name="lsst",
    bands=BANDS,
    passbands=luminosity.LSST,
    cutout_columns=("cutoutDifference", "cutoutScience", "cutoutTemplate"),
    alert_id=alert_id,
    faults=source_faults,
    normalise=normalise,
    night_of=night_of,
    night_disagreement=night_disagreement,
    processed_mjd=processed_mjd,
    forced_losses=forced_losses,
    night_over_hours=36.0,  # the date turns at noon
)
