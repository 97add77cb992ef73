"""The list of the most interesting alerts: one card each, with its light curve and stamps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from astropy import units as u
from astropy.coordinates import SkyCoord

from pipeline import surveys
from pipeline.archive import Archive
from pipeline.errors import InputError
from pipeline.report import curves, ranking
from pipeline.report.axes import MINUS, NU, TIMES, power_of_ten
from pipeline.report.night import Night, catalogs_of, utc
from pipeline.report.palette import in_order
from pipeline.report.stamps import Stamp, stamp_of


@dataclass(frozen=True)
class Card:
    """One alert of the list."""

    number: int
    alert: Mapping[str, Any]
    reasons: tuple[str, ...]
    position: str
    time_utc: str
    age: str | None
    matches: list[str]
    host: str | None
    luminosity: list[str]
    distance: str | None
    view: str
    drawings: list[curves.Drawing]
    keys: list[tuple[str, str]]
    stamps: list[tuple[str, Stamp]]


def cards(archive: Archive, night: Night, count: int = 10) -> list[Card]:
    """Return the cards of a night's most interesting alerts, best first; the rule is :data:`ranking.RULE`."""
    chosen = ranking.rank(night.science, count, on_streak=night.on_streak, events=night.events)
    if not chosen:
        return []
    ids = [night.science["alert_id"][item.row].as_py() for item in chosen]
    stamps = _stamps(archive, night, ids)
    light_curves = _light_curves(archive, night, ids)
    made = []
    for number, (item, alert_id) in enumerate(zip(chosen, ids, strict=True), start=1):
        alert = night.science.slice(item.row, 1).to_pylist()[0]
        points = curves.points_of(*light_curves[alert_id], alert["mjd"])
        galaxy, distance = _distance(night.science, alert)
        drawn = curves.drawings(
            points, _source(night, alert, distance), label=str(alert["object_key"]), absolute=night.has_luminosity
        )
        made.append(
            Card(
                number=number,
                alert=alert,
                reasons=item.reasons,
                position=_position(alert),
                time_utc=str(utc(alert["mjd"])),
                age=_age(alert),
                matches=_matches(night.science, alert),
                host=_host(alert),
                luminosity=_luminosity(alert) if night.has_luminosity else [],
                distance=f"{distance:,.4g} Mpc (luminosity distance of the {galaxy} match)" if distance else None,
                view="absolute" if any(item.key == "absolute" and item.svg for item in drawn) else "mag",
                drawings=drawn,
                keys=_keys(points),
                stamps=stamps.get(alert_id, []),
            )
        )
    return made


def _light_curves(archive: Archive, night: Night, ids: list[int]) -> dict[int, tuple[pa.Array, pa.Array]]:
    import pyarrow.compute as pc

    wanted = pc.field("alert_id").isin(ids)
    release = str(night.ledger["release"])
    rows = archive.science(night.night, survey=night.survey, release=release, columns=["alert_id"], where=wanted)
    table = rows.light_curves(upper_limits=True).combine_chunks()
    nested = [table[name].chunk(0) for name in ("light_curve", "upper_limits")]
    known = table["alert_id"].to_pylist()
    return {alert_id: (nested[0].slice(row, 1), nested[1].slice(row, 1)) for row, alert_id in enumerate(known)}


def _stamps(archive: Archive, night: Night, ids: list[int]) -> dict[int, list[tuple[str, Stamp]]]:
    """Return the stamps by alert; none at all where the night kept none."""
    try:
        table = archive.cutouts(ids, nights=night.night, survey=night.survey)
    except InputError:
        return {}
    names = [name for name in table.column_names if name != "alert_id"]
    order = sorted(names, key=lambda name: (_STAMP_ORDER.get(_stamp_name(name), 9), name))
    found = {}
    for row in range(table.num_rows):
        shown = [(_stamp_name(name), stamp_of(table[name][row].as_py())) for name in order]
        if any(stamp.png or stamp.fault != "not shipped" for _, stamp in shown):
            found[table["alert_id"][row].as_py()] = shown
    return found


_STAMP_ORDER = {"science": 0, "template": 1, "difference": 2}


def _stamp_name(column: str) -> str:
    return column.removeprefix("cutout").lower()


def _position(alert: Mapping[str, Any]) -> str:
    place = SkyCoord(alert["ra"] * u.deg, alert["dec"] * u.deg)
    return str(place.to_string("hmsdms", sep=" ", precision=2))


def _age(alert: Mapping[str, Any]) -> str | None:
    if alert.get("first_mjd") is None:
        return None
    days = alert["mjd"] - alert["first_mjd"]
    if days < 1e-5:
        return "this alert"
    bound = "at least " if alert.get("first_mjd_is_bound") else ""
    return f"{bound}{24 * days:,.1f} hours before" if days < 2 else f"{bound}{days:,.1f} days before"


def _distance(science: pa.Table, alert: Mapping[str, Any]) -> tuple[str, float | None]:
    """Return the nearest matched catalog that gives a luminosity distance, and that distance in Mpc."""
    found = []
    for catalog in catalogs_of(science):
        distance = alert.get(f"xm_{catalog}_lum_dist_mpc")
        separation = alert.get(f"xm_{catalog}_separation_arcsec")
        if distance is not None and separation is not None and distance > 0:
            found.append((separation, catalog, float(distance)))
    return (min(found)[1], min(found)[2]) if found else ("", None)


def _source(night: Night, alert: Mapping[str, Any], match_mpc: float | None) -> curves.Source | None:
    """Return where an alert was made: at its host, else at the matched galaxy."""
    known = surveys.SURVEYS.get(night.survey)
    passbands = known.passbands if known else {}
    if alert.get("host_name") is None and alert.get("host_distance_mpc") is None:
        return curves.Source(match_mpc, passbands) if match_mpc else None
    if alert.get("host_distance_mpc") is None:
        return None
    redshift, extinction, band = alert.get("host_redshift"), alert.get("lum_extinction_mag"), str(alert["band"])
    ebv = extinction / passbands[band].extinction if extinction is not None and band in passbands else math.nan
    return curves.Source(alert["host_distance_mpc"], passbands, math.nan if redshift is None else redshift, ebv)


def _host(alert: Mapping[str, Any]) -> str | None:
    """Say which galaxy is the host, how far away it is, and how far from it the alert lies."""
    if alert.get("host_catalog") is None:
        return None
    name = alert["host_name"] or "galaxy without a name"
    of = ", ".join(text for text in (alert["host_alias"], alert["host_catalog"]) if text)
    return f"{name} ({of}), {_distance_text(alert)}; {alert['host_separation_kpc']:,.2f} kpc away in projection"


def _distance_text(alert: Mapping[str, Any]) -> str:
    distance, err = alert["host_distance_mpc"], alert["host_distance_err_mpc"]
    if distance is None:
        return "distance unknown"
    return f"{distance:,.2f} Mpc (error unknown)" if err is None else f"{distance:,.2f} ± {err:,.2f} Mpc"


def _luminosity(alert: Mapping[str, Any]) -> list[str]:
    """Say absolute magnitude and luminosity, and whether the dust of the Milky Way is allowed for."""
    magnitude, err, nu_lnu = (alert[f"lum_{name}"] for name in ("absolute_mag", "absolute_err_mag", "nu_lnu_erg_s"))
    if magnitude is None and nu_lnu is None:
        return []
    told = []
    if magnitude is not None:
        told.append(
            f"M {magnitude:.2f}{'' if err is None else f' ± {err:.2f}'} mag in {alert['band']}".replace("-", MINUS)
        )
        told[0] += " (error unknown)" if err is None else ""
    if nu_lnu is not None:
        exponent = math.floor(math.log10(abs(nu_lnu))) if nu_lnu else 0
        told.append(
            f"{NU}L{NU} {nu_lnu / 10**exponent:.2f} {TIMES} {power_of_ten(exponent)} erg s⁻¹".replace("-", MINUS)
        )
    extinction = alert["lum_extinction_mag"]
    is_corrected = alert["lum_is_extinction_corrected"]
    return [*told, f"{extinction:.2f} mag of extinction taken off" if is_corrected else "uncorrected for extinction"]


def _matches(science: pa.Table, alert: Mapping[str, Any]) -> list[str]:
    """Say which catalogs match, nearest first, with the name and type that they give."""
    found = []
    for catalog in catalogs_of(science):
        separation = alert.get(f"xm_{catalog}_separation_arcsec")
        if separation is None:
            continue
        said = [
            value
            for name, value in alert.items()
            if name.startswith(f"xm_{catalog}_") and isinstance(value, str) and value
        ]
        found.append((separation, f"{catalog} at {separation:,.1f}″" + (f": {', '.join(said[:3])}" if said else "")))
    return [told for _, told in sorted(found)]


def _keys(points: curves.Points) -> list[tuple[str, str]]:
    """Return the legend, mark and meaning: the bands, then what hollow marks and arrows are if there are any."""
    keys = [(curves.legend_mark(band, "detection"), band) for band in in_order(set(points.band))]
    if "forced" in points.kind:
        keys.append((curves.legend_mark("", "forced"), "forced photometry"))
    if {"forced", "limit"} & set(points.kind):
        keys.append((curves.legend_mark("", "limit"), "upper limit"))
    return keys
