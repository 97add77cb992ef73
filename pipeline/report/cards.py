"""The list of the most interesting alerts: one card each, with its light curve and stamps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from astropy import units as u
from astropy.coordinates import SkyCoord

from pipeline.archive import Archive
from pipeline.errors import InputError
from pipeline.report import curves, ranking
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
    distance: str | None
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
        made.append(
            Card(
                number=number,
                alert=alert,
                reasons=item.reasons,
                position=_position(alert),
                time_utc=str(utc(alert["mjd"])),
                age=_age(alert),
                matches=_matches(night.science, alert),
                distance=f"{distance:,.4g} Mpc (luminosity distance of the {galaxy} match)" if distance else None,
                drawings=curves.drawings(points, distance, label=str(alert["object_key"])),
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
