"""The page itself: figures drawn, template filled, files written."""

from __future__ import annotations

import base64
import re
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

import pipeline
from pipeline import paths
from pipeline.archive import Archive
from pipeline.report import figures, ranking
from pipeline.report.cards import Card, cards
from pipeline.report.curves import FORCED_SIGMA, LIMIT_SIGMA
from pipeline.report.night import Night, gather, utc
from pipeline.report.palette import style
from pipeline.report.skymaps import event_sections
from pipeline.store.root import open_root

_OURS = re.compile(r"^(?:sky|sky-zoom|magnitudes|absolute|scores|skymap-[a-z0-9_]+|link-\d+|alert-\d+-[a-z]+)\.png$")
_COUNTS = ("written", "duplicates", "conflicting", "rejected", "cut", "other_night")


def write_report(
    root: str | Path,
    survey: str,
    night: int | str,
    out: str | Path | None = None,
    *,
    luminosity: bool | None = None,
    dust_map: str | Path | None = None,
) -> Path:
    """Write the report of a night: ``index.html``, complete in itself, and its figures as PNG beside it.

    Equal ledgers and parts give equal bytes; the page asks nothing of the network.

    Parameters
    ----------
    root : str or path
        The archive.
    survey, night
        Which night.
    out : str or path, optional
        Folder to write to; ``reports/<survey>/<night>`` within the root by default.
    luminosity : bool, optional
        Show absolute magnitudes and luminosities; by default as the run of the night was told.
    dust_map : str or path, optional
        Correct them for extinction by this map, whatever is stored.

    Returns
    -------
    pathlib.Path
        The page.

    Raises
    ------
    InputError
        No such archive, survey or night; luminosities are asked for and the release has no hosts.
    """
    opened = open_root(root)
    archive = Archive(opened, survey)
    told = gather(archive, survey, night, luminosity=luminosity, dust_map=dust_map)
    page, pictures = render(archive, told)
    folder = Path(out) if out is not None else opened.path(paths.report_folder(survey, told.night))
    folder.mkdir(parents=True, exist_ok=True)
    for stale in sorted(folder.glob("*.png")):
        if _OURS.match(stale.name) and stale.name not in pictures:
            stale.unlink()
    for name, content in pictures.items():
        _write(folder / name, content)
    _write(folder / "index.html", page.encode("utf-8"))
    return folder / "index.html"


def _write(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees the old one or the whole new one."""
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")
    draft.write_bytes(content)
    draft.replace(path)


def render(archive: Archive, night: Night) -> tuple[str, dict[str, bytes]]:
    """Return the page and its pictures by file name."""
    listed = cards(archive, night)
    events, maps = event_sections(archive, night)
    pictures = _pictures(night, listed) | maps
    environment = Environment(
        loader=PackageLoader("pipeline.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters |= {"count": _count, "size": _size, "decimals": _decimals}
    environment.globals |= {"style": style, "utc": utc, "markup": Markup}
    template = environment.get_template("night.html.j2")
    counts = night.ledger["counts"]
    page = template.render(
        night=night,
        ledger=night.ledger,
        counts=counts,
        outcomes=[(name, name.replace("_", " "), counts[name]) for name in _COUNTS],
        is_balanced=counts["packets_in"] == sum(counts[name] for name in _COUNTS),
        stages=_stages(night.ledger),
        cards=listed,
        events=events,
        rule=ranking.RULE,
        forced_sigma=FORCED_SIGMA,
        limit_sigma=LIMIT_SIGMA,
        stamps_with_compass=any(stamp.north for card in listed for _, stamp in card.stamps),
        stamps_without_compass=any(stamp.png and not stamp.north for card in listed for _, stamp in card.stamps),
        images={name: _data_url(content) for name, content in pictures.items()},
        version=pipeline.__version__,
    )
    return page, pictures


def _pictures(night: Night, listed: list[Card]) -> dict[str, bytes]:
    pictures: dict[str, bytes] = {}
    if night.science.num_rows:
        ra, dec = (night.science[name].to_numpy() for name in ("ra", "dec"))
        marked = [(card.alert["ra"], card.alert["dec"]) for card in listed]
        zoom = figures.zoom_on(ra, dec, marked)
        pictures["sky.png"] = figures.sky_figure(ra, dec, marked, zoom)
        if zoom is not None:
            band = night.science["band"].to_pylist()
            pictures["sky-zoom.png"] = figures.zoom_figure(ra, dec, band, marked, zoom)
        if any(len(values) for values in night.magnitudes.values()):
            pictures["magnitudes.png"] = figures.magnitude_figure(night.magnitudes, night.limits)
    if night.absolute and any(len(values) for values in night.absolute.values()):
        axis = f"absolute magnitude (AB mag), {night.extinction}"
        pictures["absolute.png"] = figures.magnitude_figure(night.absolute, {}, axis)
    if any(len(values) for values in night.scores.values()):
        pictures["scores.png"] = figures.score_figure(night.scores)
    for number, link in enumerate(night.links, start=1):
        if len(link.ra):
            pictures[f"link-{number}.png"] = figures.link_figure(link.ra, link.dec, link.mjd)
    for card in listed:
        for name, stamp in card.stamps:
            if stamp.png:
                pictures[f"alert-{card.number}-{name}.png"] = stamp.png
    return pictures


def _stages(ledger: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the time of each stage; what its tasks spent on their parts of it, summed, comes below it.

    A name up to the first colon is the stage it belongs to. Entries below 1 % of the night are told as one.
    """
    timing = ledger.get("timing", [])
    outer = [entry for entry in timing if ":" not in entry["stage"]]
    total = sum(entry["seconds"] for entry in outer) or 1.0
    longest = max((entry["seconds"] for entry in timing), default=0) or 1.0
    rows = []
    for entry in outer:
        rows.append(_stage(entry["stage"], entry["seconds"], entry["tasks"], longest))
        rows[-1]["percent"] = 100 * entry["seconds"] / total
        inner = [item for item in timing if item["stage"].startswith(f"{entry['stage']}:")]
        inner.sort(key=lambda item: (-item["seconds"], item["stage"]))
        large = [item for item in inner if item["seconds"] >= 0.01 * total]
        small = inner[len(large) :]
        rows += [
            _stage(item["stage"].split(":", 1)[1].strip(), item["seconds"], item["tasks"], longest, inner=True)
            for item in large
        ]
        if small:
            seconds = sum(item["seconds"] for item in small)
            rows.append(_stage(f"{len(small)} smaller ones", seconds, None, longest, inner=True))
    return rows


def _stage(name: str, seconds: float, tasks: int | None, longest: float, *, inner: bool = False) -> dict[str, Any]:
    share = min(seconds / longest, 1.0)
    return {"name": name, "seconds": seconds, "tasks": tasks, "share": share, "is_inner": inner, "percent": None}


def _data_url(content: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(content).decode("ascii")


def _count(value: float | None) -> str:
    return "unknown" if value is None else f"{value:,.0f}"


def _decimals(value: float | None, digits: int = 2) -> str:
    if value is None or not np.isfinite(value):
        return "unknown"
    return f"{value:,.{digits}f}".replace("-", "\N{MINUS SIGN}")


def _size(value: float) -> str:
    """Return a number of bytes in words."""
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:,.0f} {unit}" if unit == "B" else f"{value:,.1f} {unit}"
        value /= 1000
    return f"{value:,.1f} TB"
