"""What ``alertmill skymap`` prints."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from rich import box
from rich.console import Console
from rich.table import Table

from pipeline.followup.summary import area_text, covered_bands, event_line, rounded

_ROWS = 10
_WIDTH = 120
_MOST_DEPTHS = 6


def _console() -> Console:
    """Return where to print: as wide as the terminal, or as the widest table where there is none."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_WIDTH)


def print_search(told: dict[str, Any]) -> None:
    """Print what a search found, event by event."""
    console = _console()
    for event in told["events"]:
        _print_event(console, event, told)
    read = told["read"]
    console.print(
        f"read {read['parts_opened']:,} of {read['parts']:,} parts in {read['nights_opened']:,} of "
        f"{read['nights']:,} nights; {read['parts_found']:,} parts had alerts within a contour"
    )
    _print_files(console, told["files"])


def _print_event(console: Console, event: dict[str, Any], told: dict[str, Any]) -> None:
    console.print(f"[bold]{event['event']}[/bold]  {event_line(event)}")
    console.print(f"  {_areas(event)}")
    nights = " to ".join(told["nights"])
    prior = event["prior_activity"]
    open_ones = f", {prior['unknown']:,} not known" if prior["unknown"] else ""
    console.print(
        f"  {event['alerts']:,} alerts of {event['objects']:,} objects within {100 * told['credible_level']:g} %, "
        f"nights {nights}: {prior['yes']:,} with prior activity, {prior['no']:,} without{open_ones}"
    )
    if event["coverage_since_event"] is None:
        _print_coverage(console, "nights", event["coverage"])
    else:
        _print_coverage(console, "since the event", event["coverage_since_event"])
        depth = event["coverage"]["depths"][0]
        console.print(f"  all nights: {_share(depth)} in {depth['exposures']:,} exposures")
    console.print("  a lower bound: exposures and parts of them without alerts are not known")
    if "significance" in told:
        _print_selected(
            console, next(item for item in told["significance"]["events"] if item["event"] == event["event"])
        )
    if event["candidates"]:
        console.print(_candidates(event["candidates"]))
    else:
        console.print("  no alert within the contour\n")


def _print_selected(console: Console, told: dict[str, Any]) -> None:
    """Print how many alerts were selected, and how many unrelated ones are expected."""
    if told["expected"] is None:
        console.print("  chance coincidence: not known, the map tells no time")
        return
    counts = ", ".join(f"{told['selected'][name]:,} {name}" for name in ("gold", "silver", "bronze"))
    console.print(
        f"  alerts selected: {counts}; {rounded(told['expected'])} unrelated new transients expected in "
        f"{told['window_day']:g} days{'' if told['is_rate_measured'] else ', at the stated rate: too few are at hand'}"
    )


def _print_coverage(console: Console, when: str, coverage: dict[str, Any]) -> None:
    """Print the probability covered: a row a band, columns from shallow to deep."""
    depths = coverage["depths"]
    whole = depths[0]
    console.print(f"  probability covered by exposures {when}: {_share(whole)} in {whole['exposures']:,} exposures")
    limits = sorted({item["limit_mag"] for item in depths if item["limit_mag"] is not None})[-_MOST_DEPTHS:]
    if not limits:
        return
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("  band")
    for head in ("any depth", *(f"≥ {limit:g} mag" for limit in limits)):
        table.add_column(head, justify="right")
    by_place = {(item["band"], item["limit_mag"]): item["probability"] for item in depths}
    for band in covered_bands(depths):
        steps = [limit for of_band, limit in by_place if of_band == band and limit is not None]
        deeper = [min((step for step in steps if step >= limit), default=0.0) for limit in limits]
        cells = [by_place.get((band, limit)) for limit in (None, *deeper)]
        table.add_row(f"  {band}", *("" if value is None else f"{100 * value:.2f} %" for value in cells))
    console.print(table)


def _share(depth: dict[str, Any]) -> str:
    return f"{100 * depth['probability']:.2f} % on {depth['area_deg2']:,.1f} deg²"


def _areas(event: dict[str, Any]) -> str:
    return ", ".join(f"{100 * float(level):g} % in {area_text(area)}" for level, area in event["area_deg2"].items())


def _candidates(rows: list[dict[str, Any]]) -> Table:
    is_3d = any(row["volume_level"] is not None for row in rows)
    has_chance = "p_chance" in rows[0]
    has_host = any(row.get("host_name") for row in rows)
    table = Table(
        box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), title="best objects, by their best alert", title_justify="left"
    )
    heads = ["object", "ra", "dec", "level", *(["in space"] if is_3d else []), "delay (d)", "band", "mag", "prior"]
    heads += ["chance", "selection"] if has_chance else []
    for head in [*heads, *(["host"] if has_host else [])]:
        table.add_column(
            head, justify="left" if head in ("object", "band", "prior", "selection", "host") else "right", no_wrap=True
        )
    for row in rows:
        cells = [row["object_key"], f"{row['ra']:.5f}", f"{row['dec']:+.5f}", f"{row['credible_level']:.4f}"]
        cells += [_number(row["volume_level"], 4)] if is_3d else []
        cells += [_number(row["delay_day"], 2, sign=True), row["band"], _number(row["diff_mag"], 2), _prior(row)]
        cells += [_chance(row["p_chance"]), row["selection"] or ""] if has_chance else []
        table.add_row(*cells, *([row.get("host_name") or ""] if has_host else []))
    return table


def _number(value: float | None, digits: int, *, sign: bool = False) -> str:
    return "" if value is None else f"{value:{'+' if sign else ''}.{digits}f}"


def _chance(value: float | None) -> str:
    return "" if value is None else f"{value:.2g}"


def _prior(row: dict[str, Any]) -> str:
    kinds = [name for name in ("detection", "forced", "alert") if row[f"has_prior_{name}"]]
    return ", ".join(kinds) or ("not known" if row["has_prior_activity"] is None else "none")


def print_positions(told: dict[str, Any], table: pa.Table | None) -> None:
    """Print the maps, and the first rows where they are written nowhere."""
    console = _console()
    for event in told["events"]:
        console.print(f"[bold]{event['event']}[/bold]  {event_line(event)}")
        console.print(f"  {_areas(event)}")
    without = told["rows_without_position"]
    console.print(f"{told['rows']:,} positions" + (f", {without:,} of them null" if without else ""))
    if table is not None:
        shown = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
        names = ["ra", "dec", *told["columns"]]
        for name in names:
            shown.add_column(name, justify="right")
        for row in table.slice(0, _ROWS).select(names).to_pylist():
            shown.add_row(*("" if value is None else f"{value:.6g}" for value in row.values()))
        console.print(shown)
        if table.num_rows > _ROWS:
            console.print(f"the first {_ROWS} of {table.num_rows:,}: --out FILE writes all")
    _print_files(console, told["files"])


def _print_files(console: Console, files: dict[str, Any]) -> None:
    for paths in files.values():
        for path in [paths] if isinstance(paths, str) else paths:
            console.print(f"wrote {path}", soft_wrap=True, markup=False)
