"""Slow, per-record normalisation in plain Python: the oracle of the vectorised one. Written from the rules, not it."""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.tables import ALERTS

TAI_MINUS_UTC_SEC = 37.0  # since 2017-01-01, before any packet of any survey here
EPOCH = datetime.date(1858, 11, 17)


def number(value: Any, *sentinels: float) -> float | None:
    return None if value is None or not math.isfinite(value) or value in sentinels else float(value)


def identifier(value: Any) -> int | None:
    return value if value is not None and value > 0 else None


def text(value: str | None) -> str | None:
    return None if value in (None, "", "null", "None", "nan") else value


def magnitude(flux: float | None) -> float | None:
    return None if flux is None or flux <= 0 else 31.4 - 2.5 * math.log10(flux)


def date_of(mjd: float) -> int:
    day = EPOCH + datetime.timedelta(days=math.floor(mjd))
    return day.year * 10000 + day.month * 100 + day.day


def flux_of(mag: float) -> float:
    return 10 ** ((31.4 - mag) / 2.5)


def as_lists(points: list[dict[str, Any]], names: list[str]) -> dict[str, list[Any]]:
    def key(p: dict[str, Any]) -> tuple[Any, ...]:
        return p["mjd"], p.get("is_forced", False), -(10**30) if p["exposure"] is None else p["exposure"]

    ordered = sorted(points, key=key)
    return {name: [p[name] for p in ordered] for name in names}


def finish(alert: dict[str, Any], points: list[dict[str, Any]], limits: list[dict[str, Any]]) -> dict[str, Any]:
    detections = [p for p in points if not p["is_forced"]]
    known = {(p["exposure"], p["band"]) for p in detections if p["exposure"] is not None}
    alert["n_detections"] = len(known) + sum(p["exposure"] is None for p in detections)
    alert["n_light_curve"] = len(points)
    alert["n_upper_limits"] = len(limits)
    alert["light_curve"] = as_lists(points, [f.name for f in ALERTS.field("light_curve").type])
    alert["upper_limits"] = as_lists(limits, [f.name for f in ALERTS.field("upper_limits").type])
    return {field.name: alert.get(field.name) for field in ALERTS}


# --------------------------------------------------------------------------------------------------- ZTF
ZTF_NONE = (-999.0, -99999.0)


def ztf_time(p: dict[str, Any]) -> float | None:
    jd, exptime = number(p.get("jd"), *ZTF_NONE), number(p.get("exptime"), *ZTF_NONE)
    if jd is None or not 57754 <= jd - 2400000.5 <= 90000:
        return None
    return jd - 2400000.5 + (exptime if exptime and exptime > 0 else 30.0) / 2 / 86400


def ztf_point(p: dict[str, Any], flux: float | None, err: float | None, is_forced: bool) -> dict[str, Any]:
    utc, fid, pid = ztf_time(p), p.get("fid"), identifier(p.get("pid"))
    distnr, magnr = number(p.get("distnr"), *ZTF_NONE), number(p.get("magnr"), *ZTF_NONE)
    sigmagnr = number(p.get("sigmagnr"), *ZTF_NONE)
    total = total_err = None
    if flux is not None and distnr is not None and 0 <= distnr <= 1.5 and magnr is not None:
        total = flux_of(magnr) + flux
        if err is not None and sigmagnr is not None:
            total_err = math.sqrt(err**2 + (flux_of(magnr) * sigmagnr * math.log(10) / 2.5) ** 2)
    field, rcid = p.get("field"), p.get("rcid")
    return {
        "mjd": None if utc is None else utc + TAI_MINUS_UTC_SEC / 86400,
        "band": "gri"[fid - 1] if fid in (1, 2, 3) else None,
        "exposure": pid,
        "flux_njy": flux,
        "flux_err_njy": err,
        "total_flux_njy": total,
        "total_flux_err_njy": total_err,
        "is_forced": is_forced,
        "reference": field * 100 + rcid if field and field > 0 and rcid is not None and rcid >= 0 else None,
    }


def ztf_detection(p: dict[str, Any]) -> dict[str, Any]:
    mag, sigma = number(p.get("magpsf"), *ZTF_NONE), number(p.get("sigmapsf"), *ZTF_NONE)
    sign = {"t": 1, "1": 1, "f": -1, "0": -1}.get(p.get("isdiffpos") or "")
    flux = None if mag is None or sign is None else sign * flux_of(mag)
    err = None if mag is None or sigma is None else flux_of(mag) * sigma * math.log(10) / 2.5
    return ztf_point(p, flux, err, False)


def usable(point: dict[str, Any]) -> bool:
    return point["mjd"] is not None and point["flux_njy"] is not None and point["band"] is not None


def ztf_alert(r: dict[str, Any]) -> dict[str, Any]:
    c = r["candidate"]
    candid = identifier(r.get("candid")) or identifier(c.get("candid"))
    trigger = ztf_detection(c)
    points, limits = [trigger], []
    for p in r.get("prv_candidates") or []:
        p = p or {}
        own, pid = identifier(p.get("candid")), identifier(p.get("pid"))
        is_trigger = own == candid if own is not None else pid is not None and pid == trigger["exposure"]
        if number(p.get("magpsf"), *ZTF_NONE) is not None:
            point = ztf_detection(p)
            if not is_trigger and usable(point):
                points.append(point)
            continue
        depth = number(p.get("diffmaglim"), *ZTF_NONE)
        limit = ztf_point(p, None if depth is None else flux_of(depth), None, False)
        if usable(limit):
            limits.append({**limit, "flux_limit_njy": limit["flux_njy"]})
    for p in [*(r.get("prv_candidates") or []), *(r.get("fp_hists") or [])]:
        p = p or {}
        counts, unc = number(p.get("forcediffimflux"), -99999.0), number(p.get("forcediffimfluxunc"), -99999.0)
        zero_point = number(p.get("magzpsci"), *ZTF_NONE)
        if p.get("procstatus") != "0" or counts is None or zero_point is None:
            continue
        scale = flux_of(zero_point)
        point = ztf_point(p, counts * scale, unc * scale if unc and unc > 0 else None, True)
        if usable(point):
            points.append(point)
    drb = number(c.get("drb"), *ZTF_NONE)
    if drb == 0 and text(c.get("drbversion")) is None:
        drb = None
    rb, nbad = number(c.get("rb"), *ZTF_NONE), c.get("nbad")
    good = None
    if (rb is not None and rb < 0.55) or (nbad is not None and nbad > 0):
        good = False
    elif rb is not None and nbad == 0:
        good = True
    ssdistnr, name = number(c.get("ssdistnr"), *ZTF_NONE), text(c.get("ssnamenr"))
    start = number(c.get("jdstarthist"), *ZTF_NONE)
    if start is not None and not 57754 <= start - 2400000.5 <= 90000:
        start = None
    first = min(p["mjd"] for p in points if not p["is_forced"])
    if start is not None:
        first = ztf_time({"jd": start, "exptime": c.get("exptime") if start == c["jd"] else 30.0})
        first = first + TAI_MINUS_UTC_SEC / 86400
    exptime, fwhm = number(c.get("exptime"), *ZTF_NONE), number(c.get("fwhm"), *ZTF_NONE)
    alert = {
        **{k: v for k, v in trigger.items() if k != "is_forced"},
        "alert_id": candid,
        "object_key": r["objectId"],
        "ra": c["ra"],
        "dec": c["dec"],
        "utc_date": date_of(ztf_time(c)),
        "field": c.get("field"),
        "detector": c.get("rcid"),
        "is_positive": {"t": True, "1": True, "f": False, "0": False}.get(c.get("isdiffpos") or ""),
        "diff_mag": number(c.get("magpsf"), *ZTF_NONE),
        "diff_err_mag": number(c.get("sigmapsf"), *ZTF_NONE),
        "total_flux_err_no_reference_njy": None if trigger["total_flux_njy"] is None else trigger["flux_err_njy"],
        "total_mag": magnitude(trigger["total_flux_njy"]),
        "limit_mag": number(c.get("diffmaglim"), *ZTF_NONE),
        "seeing_arcsec": None if fwhm is None else fwhm * 1.01,
        "exposure_time_sec": exptime if exptime and exptime > 0 else 30.0,
        "reliability": rb if drb is None else drb,
        "is_good_quality": good,
        "is_solar_system": name is not None and ssdistnr is not None and 0 <= ssdistnr <= 5,
        "solar_system_name": name,
        "solar_system_separation_arcsec": ssdistnr,
        "is_public": c.get("programid") == 1,
        "first_mjd": first,
        "first_mjd_is_bound": start is None,
    }
    for ours, native in {
        "reference_separation_arcsec": "distnr",
        "reference_mag": "magnr",
        "star_score": "sgscore1",
        "star_separation_arcsec": "distpsnr1",
        "gaia_separation_arcsec": "neargaia",
        "gaia_mag": "maggaia",
    }.items():
        alert[ours] = number(c.get(native), *ZTF_NONE)
    return finish(alert, points, limits)


# --------------------------------------------------------------------------------------------------- Rubin
FLAGS = [
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
]
INJECTED = ["pixelFlags_injected" + end for end in ("", "Center", "_template", "_templateCenter")]


def rubin_time(p: dict[str, Any]) -> float | None:
    mjd = number(p.get("midpointMjdTai") if p.get("midpointMjdTai") is not None else p.get("midPointTai"))
    if mjd is not None and mjd > 1e8:
        mjd = 40587 + mjd / 86400
    return mjd if mjd is not None and 41683 <= mjd <= 90000 else None


def rubin_exposure(p: dict[str, Any], mjd: float | None) -> int | None:
    visit, detector, ccd_visit = identifier(p.get("visit")), p.get("detector"), identifier(p.get("ccdVisitId"))
    if visit is not None and detector is not None and 0 <= detector < 1000:
        return visit * 1000 + detector
    return None if ccd_visit == 111111 else ccd_visit


def elasticc_exposure(p: dict[str, Any], mjd: float | None) -> int | None:
    return None if mjd is None else round(mjd * 10000)


def either(p: dict[str, Any], *names: str) -> Any:
    return next((p[name] for name in names if p.get(name) is not None), None)


def rubin_point(p: dict[str, Any], is_forced: bool, unit: float, exposure: Callable[..., int | None]) -> dict[str, Any]:
    def scaled(*names: str, positive: bool = False) -> float | None:
        value = number(either(p, *names))
        return None if value is None or (positive and value <= 0) else value * unit

    mjd, band = rubin_time(p), (either(p, "band", "filterName") or "?").replace("Y", "y")
    return {
        "mjd": mjd,
        "band": band if band in tuple("ugrizy") else None,
        "exposure": exposure(p, mjd),
        "flux_njy": scaled("psfFlux", "psFlux"),
        "flux_err_njy": scaled("psfFluxErr", "psFluxErr", positive=True),
        "total_flux_njy": scaled("scienceFlux", "totFlux"),
        "total_flux_err_njy": scaled("scienceFluxErr", "totFluxErr", positive=True),
        "is_forced": is_forced,
        "reference": None,
    }


def any_of(p: dict[str, Any], names: list[str]) -> bool | None:
    values = [p.get(name) for name in names]
    return True if True in values else None if None in values else False


def rubin_alert(
    r: dict[str, Any],
    unit: float = 1.0,
    exposure: Callable[..., int | None] = rubin_exposure,
    is_rubin: bool = True,
) -> dict[str, Any]:
    s, o, ss = r["diaSource"], r.get("diaObject") or {}, r.get("ssSource") or {}
    source_id = identifier(s.get("diaSourceId")) or identifier(r.get("diaSourceId"))
    trigger = rubin_point(s, False, unit, exposure)
    points, n_earlier = [trigger], 0
    for p in r.get("prvDiaSources") or []:
        p = p or {}
        if identifier(p.get("diaSourceId")) == source_id:
            continue
        n_earlier += 1
        point = rubin_point(p, False, unit, exposure)
        if usable(point) and number(p.get("timeWithdrawnMjdTai")) is None:
            points.append(point)
    for p in r.get("prvDiaForcedSources") or []:
        point = rubin_point(p or {}, True, unit, exposure)
        if usable(point) and number((p or {}).get("timeWithdrawnMjdTai")) is None:
            points.append(point)
    limits = []
    for p in r.get("prvDiaNondetectionLimits") or []:
        noise = number((p or {}).get("diaNoise"))
        limit = rubin_point({**(p or {}), "psfFlux": 5 * noise if noise and noise > 0 else None}, False, unit, exposure)
        if usable(limit):
            limits.append({**limit, "flux_limit_njy": limit["flux_njy"]})
    dia_object = identifier(s.get("diaObjectId")) or identifier(o.get("diaObjectId"))
    ss_object = identifier(s.get("ssObjectId")) or identifier(ss.get("ssObjectId"))
    flux, err = trigger["flux_njy"], trigger["flux_err_njy"]
    named = number(o.get("firstDiaSourceMjdTai"))
    earliest = min(p["mjd"] for p in points if not p["is_forced"])
    n_sources = o.get("nDiaSources")
    is_whole = n_sources is not None and 0 < n_sources <= n_earlier + 1
    mag = magnitude(None if flux is None else abs(flux))
    alert = {
        **{k: v for k, v in trigger.items() if k != "is_forced"},
        "alert_id": source_id,
        "object_key": str(dia_object) if dia_object else f"ss:{ss_object}" if ss_object else f"src:{source_id}",
        "ra": s["ra"],
        "dec": either(s, "dec", "decl"),
        "utc_date": date_of(trigger["mjd"] - TAI_MINUS_UTC_SEC / 86400),
        "is_positive": None if flux is None else flux > 0,
        "diff_mag": mag,
        "diff_err_mag": None if mag is None or err is None else 2.5 / math.log(10) * err / abs(flux),
        "total_flux_err_no_reference_njy": trigger["total_flux_err_njy"],
        "total_mag": magnitude(trigger["total_flux_njy"]),
        "is_public": True,
        "is_solar_system": ss_object is not None,
        "first_mjd": earliest if named is None else min(named, earliest),
        "first_mjd_is_bound": named is None and not is_whole,
    }
    if is_rubin:
        bad, snr = any_of(s, FLAGS), None if flux is None or err is None else flux / err
        good = False if bad or (snr is not None and snr < 6) else None if bad is None or snr is None else True
        mpc, old = r.get("mpc_orbits") or {}, r.get("MPCORB") or {}
        names = [text(ss.get("designation")), text(mpc.get("designation")), text(old.get("mpcDesignation"))]
        name = next((n for n in names if n), None)
        xx, yy = number(s.get("ixxPSF")), number(s.get("iyyPSF"))
        has_psf = xx is not None and yy is not None and xx + yy > 0
        alert |= {
            "detector": s.get("detector"),
            "seeing_arcsec": 2.3548200450309493 * math.sqrt((xx + yy) / 2) if has_psf else None,
            "reliability": number(s.get("reliability")),
            "is_good_quality": good,
            "solar_system_name": name if ss_object else None,
            "solar_system_separation_arcsec": number(ss.get("ephOffset")),
            "is_dipole": s.get("isDipole"),
            "is_negative_detection": either(s, "isNegative", "is_negative"),
            "is_injected": any_of(s, INJECTED),
            "is_glint_flagged": s.get("glint_trail"),
        }
    return finish(alert, points, limits)


def elasticc_alert(r: dict[str, Any]) -> dict[str, Any]:
    return rubin_alert(r, flux_of(27.5), elasticc_exposure, is_rubin=False)


# --------------------------------------------------------------------------------------------------- comparison
def same(ours: Any, oracle: Any) -> bool:
    if isinstance(ours, dict):
        return ours.keys() == oracle.keys() and all(same(ours[k], oracle[k]) for k in ours)
    if isinstance(ours, list):
        return len(ours) == len(oracle) and all(same(a, b) for a, b in zip(ours, oracle, strict=True))
    if isinstance(ours, float) and isinstance(oracle, (int, float)) and not isinstance(oracle, bool):
        return math.isclose(ours, oracle, rel_tol=1e-12, abs_tol=1e-300)
    return type(ours) is type(oracle) and ours == oracle


def assert_same(alerts: pa.Table, oracles: list[dict[str, Any]]) -> None:
    """Compare a whole ``alerts`` table with oracle records, field by field; float32 columns after rounding."""
    assert alerts.num_rows == len(oracles)
    for row, (ours, oracle) in enumerate(zip(alerts.to_pylist(), oracles, strict=True)):
        for field in ALERTS:
            if field.name == "healpix_29":
                continue
            expected = oracle[field.name]
            if field.type == pa.float32() and expected is not None:
                expected = float(np.float32(expected))
            assert same(ours[field.name], expected), f"row {row}: {field.name} {ours[field.name]} != {expected}"
