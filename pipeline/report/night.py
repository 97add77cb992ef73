"""What the report of a night says: everything is gathered here, nothing is drawn."""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from astropy.time import Time
from numpy.typing import NDArray

from pipeline.archive import Archive
from pipeline.filters import FILTERS
from pipeline.paths import parse_night
from pipeline.report import ranking
from pipeline.report.palette import in_order
from pipeline.tables import FLAT, LINKS

_PREFIXES = ("filter_", "clf_", "xm_", "skymap_", "is_", "host_")
_TYPE_ENDINGS = ("_type", "_otype", "_class", "_kind")
_MOST_TYPES = 8
MOST_LINKS = 6


@dataclass(frozen=True)
class Bar:
    """One row of a bar table: a name, a number, and its share of the longest bar (0 to 1)."""

    name: str
    value: float
    share: float
    note: str = ""


@dataclass(frozen=True)
class CatalogBars:
    """Matches of one catalog."""

    name: str
    matched: int
    covered: int | None
    types: list[Bar] = field(default_factory=list)


@dataclass(frozen=True)
class Link:
    """One link of a night module."""

    module: str
    link_id: str
    alerts: int
    score: float | None
    details: str
    ra: NDArray[np.float64]
    dec: NDArray[np.float64]
    mjd: NDArray[np.float64]


@dataclass(frozen=True)
class Night:
    """Everything that the page shows of one night, alerts of the list excepted."""

    survey: str
    night: int
    ledger: Mapping[str, Any]
    science: pa.Table
    objects: int
    first_utc: str | None
    last_utc: str | None
    exposures: list[dict[str, Any]]
    filters: list[Bar]
    catalogs: list[CatalogBars]
    classes: dict[str, list[Bar]]
    scores: dict[str, NDArray[np.float64]]
    magnitudes: dict[str, NDArray[np.float64]]
    limits: dict[str, float]
    flags: list[Bar]
    links: list[Link]
    n_links: dict[str, int]
    on_streak: frozenset[int]
    absolute: dict[str, NDArray[np.float64]] | None = None

    @property
    def has_luminosity(self) -> bool:
        """Whether luminosities are shown."""
        return self.absolute is not None

    @property
    def extinction(self) -> str:
        """What is said of the extinction by the Milky Way in the luminosities shown."""
        told = self.science["lum_is_extinction_corrected"].unique().to_pylist() if self.has_luminosity else []
        if True not in told:
            return "uncorrected for extinction"
        return "corrected for extinction" + (" where an alert says so" if False in told else "")

    @property
    def events(self) -> list[str]:
        """Names of the sky maps of the run, as it was given them."""
        return [str(given).partition("=")[0] for given in self.ledger.get("settings", {}).get("skymaps") or []]

    @property
    def date(self) -> str:
        """The night in words."""
        day = datetime.date(self.night // 10000, self.night // 100 % 100, self.night % 100)
        return f"{day.day} {day:%B %Y}"


def gather(
    archive: Archive,
    survey: str,
    night: int | str,
    *,
    luminosity: bool | None = None,
    dust_map: str | Path | None = None,
) -> Night:
    """Read what the report of a night needs.

    Parameters
    ----------
    luminosity : bool, optional
        Show what the alerts give off at their hosts' distances; by default as the run of the night was told, where the
        release has hosts.
    dust_map : str or path, optional
        Correct luminosities for extinction by this map, whatever is stored.

    Raises
    ------
    InputError
        The night is not in the archive; luminosities are asked for and the release has no hosts.
    """
    ledger = archive.ledger(night, survey)
    number = parse_night(ledger["night"])
    release = str(ledger["release"])
    every = archive.science(number, survey=survey, release=release)
    columns = [name for name in every.schema.names if name in FLAT.names or name.startswith(_PREFIXES)]
    if luminosity is None:
        luminosity = bool(ledger.get("settings", {}).get("luminosity")) and "host_distance_mpc" in columns
    science = archive.science(
        number, survey=survey, release=release, columns=columns, luminosity=luminosity, dust_map=dust_map
    ).to_arrow()
    exposures = archive.exposures(number, survey=survey).to_arrow()
    links = archive.links(number, survey=survey, release=release).to_arrow()
    times = pc.min_max(science["mjd"]).as_py()
    found, n_links = _links(links, science)
    return Night(
        survey=survey,
        night=number,
        ledger=ledger,
        science=science,
        objects=len(pc.unique(science["object_key"])),
        first_utc=utc(times["min"]),
        last_utc=utc(times["max"]),
        exposures=_exposures(exposures),
        filters=_filters(science),
        catalogs=_catalogs(science),
        classes=_classes(science),
        scores={ranking.score_name(name): _finite(science[name]) for name in ranking.scores_of(science)},
        magnitudes=_magnitudes(science, "diff_mag"),
        absolute=_magnitudes(science, "lum_absolute_mag") if luminosity else None,
        limits=_limits(exposures),
        flags=_flags(science),
        links=found,
        n_links=n_links,
        on_streak=frozenset(links.filter(pc.match_substring(links["module"], "streak"))["alert_id"].to_pylist()),
    )


def utc(mjd_tai: float | None, precision: int = 0) -> str | None:
    """Return a time given in MJD (TAI) as UTC text."""
    if mjd_tai is None:
        return None
    return str(Time(mjd_tai, format="mjd", scale="tai", precision=precision).utc.iso)


def _finite(column: pa.ChunkedArray) -> NDArray[np.float64]:
    values = column.drop_null().cast(pa.float64()).to_numpy()
    return values[np.isfinite(values)]


def _bars(counts: list[tuple[str, float, str]]) -> list[Bar]:
    longest = max((value for _, value, _ in counts), default=0) or 1
    return [Bar(name, value, value / longest, note) for name, value, note in counts]


def _count_true(science: pa.Table, name: str) -> int:
    return int(pc.sum(science[name]).as_py() or 0)


def _filters(science: pa.Table) -> list[Bar]:
    """Count what each filter passed, the fullest first."""
    counted = []
    for column in ranking.filters_of(science):
        name = column.removeprefix("filter_")
        note = FILTERS[name].description if name in FILTERS else ""
        counted.append((name, _count_true(science, column), note))
    return _bars(sorted(counted, key=lambda item: (-item[1], item[0])))


def _flags(science: pa.Table) -> list[Bar]:
    named = {
        "is_good_quality": "good quality by the survey's rule",
        "is_solar_system": "known Solar System objects",
        "is_positive": "brighter than the reference",
        "is_injected": "injected sources",
    }
    counted = [(told, _count_true(science, name), "") for name, told in named.items()]
    return _bars([item for item in counted if item[1]])


def _types(column: pa.ChunkedArray) -> list[Bar]:
    counted = [(item["values"], item["counts"]) for item in pc.value_counts(column.drop_null()).to_pylist()]
    counted.sort(key=lambda item: (-item[1], item[0]))
    shown = [(name, count, "") for name, count in counted[:_MOST_TYPES]]
    rest = sum(count for _, count in counted[_MOST_TYPES:])
    return _bars(shown + ([(f"{len(counted) - _MOST_TYPES:,} others", rest, "")] if rest else []))


def _catalogs(science: pa.Table) -> list[CatalogBars]:
    """Count matches and types by catalog; a text column that ends like a type is one."""
    found = []
    for catalog in catalogs_of(science):
        matched = len(science) - science[f"xm_{catalog}_separation_arcsec"].null_count
        covered = f"is_{catalog}_covered"
        types = [name for name in science.column_names if _is_type(science, name, catalog)]
        bars = _types(science[types[0]]) if types else []
        n_covered = _count_true(science, covered) if covered in science.column_names else None
        found.append(CatalogBars(catalog, matched, n_covered, bars))
    return sorted(found, key=lambda catalog: (-catalog.matched, catalog.name))


def catalogs_of(science: pa.Table) -> list[str]:
    """Return the catalogs that the alerts were matched with."""
    pattern = re.compile(r"^xm_(.+)_separation_arcsec$")
    return [match.group(1) for match in map(pattern.match, science.column_names) if match]


def _is_type(science: pa.Table, name: str, catalog: str) -> bool:
    is_text = pa.types.is_string(science.schema.field(name).type)
    return is_text and name.startswith(f"xm_{catalog}_") and name.endswith(_TYPE_ENDINGS)


def _classes(science: pa.Table) -> dict[str, list[Bar]]:
    names = [name for name in science.column_names if name.startswith("clf_") and name.endswith("_class")]
    return {name.removeprefix("clf_").removesuffix("_class"): _types(science[name]) for name in names}


def _magnitudes(science: pa.Table, name: str) -> dict[str, NDArray[np.float64]]:
    bands = in_order(set(pc.unique(science["band"]).to_pylist()))
    return {band: _finite(science.filter(pc.equal(science["band"], band))[name]) for band in bands}


def _limits(exposures: pa.Table) -> dict[str, float]:
    found = {}
    for band in in_order(set(pc.unique(exposures["band"]).to_pylist())):
        values = _finite(exposures.filter(pc.equal(exposures["band"], band))["limit_mag"])
        if len(values):
            found[band] = float(np.median(values))
    return found


def _exposures(exposures: pa.Table) -> list[dict[str, Any]]:
    """Sum the exposures by band: number, alerts, median limit and seeing."""
    rows = []
    for band in in_order(set(pc.unique(exposures["band"]).to_pylist())):
        here = exposures.filter(pc.equal(exposures["band"], band))
        limit, seeing = _finite(here["limit_mag"]), _finite(here["seeing_arcsec"])
        rows.append(
            {
                "band": band,
                "exposures": here.num_rows,
                "alerts": int(pc.sum(here["n_alerts"]).as_py() or 0),
                "limit_mag": float(np.median(limit)) if len(limit) else None,
                "seeing_arcsec": float(np.median(seeing)) if len(seeing) else None,
            }
        )
    return rows


def _links(links: pa.Table, science: pa.Table) -> tuple[list[Link], dict[str, int]]:
    """Return the largest links, positions looked up by alert id, and the number of links by module."""
    if links.num_rows == 0:
        return [], {}
    ids = science["alert_id"].to_numpy()
    order = np.argsort(ids, kind="stable")
    groups: dict[tuple[str, str], list[int]] = {}
    for row, key in enumerate(zip(links["module"].to_pylist(), links["link_id"].to_pylist(), strict=True)):
        groups.setdefault(key, []).append(row)
    counts: dict[str, int] = {}
    for module, _ in groups:
        counts[module] = counts.get(module, 0) + 1
    largest = sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))[:MOST_LINKS]
    found = []
    for (module, link_id), rows in largest:
        wanted = links["alert_id"].take(rows).to_numpy()
        at = order[np.minimum(np.searchsorted(ids, wanted, sorter=order), len(ids) - 1)]
        members = science.take(at[ids[at] == wanted]).sort_by("mjd")
        ra, dec, mjd = (members[name].to_numpy() for name in ("ra", "dec", "mjd"))
        told = _link_details(links.slice(rows[0], 1).to_pylist()[0])
        score = links["score"][rows[0]].as_py()
        found.append(Link(module, link_id, len(rows), score, told, ra, dec, mjd))
    return found, dict(sorted(counts.items()))


def _link_details(row: Mapping[str, Any]) -> str:
    """Say what a module's own columns hold of a link, with the unit that ends the column's name."""
    told = []
    for name, value in row.items():
        is_known = name in LINKS.names or name == "night" or name.endswith("n_alerts")
        if is_known or not isinstance(value, (int, float, str)):
            continue
        unit = next((unit for ending, unit in _UNITS.items() if name.endswith(ending)), "")
        words = name.removesuffix(f"_{unit}") if unit else name
        shown = value if isinstance(value, str) else f"{value:,.0f}" if abs(value) >= 1000 else f"{value:,.3g}"
        told.append(f"{words.replace('_', ' ')} {shown} {unit}".strip())
    return ", ".join(told)


_UNITS = {"_arcsec": "arcsec", "_arcmin": "arcmin", "_deg": "deg", "_days": "days", "_sec": "sec", "_mag": "mag"}
