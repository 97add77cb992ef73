"""Write docs/datasets.md from the declared schemas: ``python docs/write_datasets.py``, after changing a column."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa

from pipeline import tables
from pipeline.filters import FILTERS
from pipeline.science import NIGHT, SCIENCE
from pipeline.stages import host, luminosity, skymap, xmatch
from pipeline.xmatch import CatalogDeclaration

PAGE = Path(__file__).with_name("datasets.md")

INTRODUCTION = """\
# Datasets

Written by `python docs/write_datasets.py` from `pipeline.tables` and the registered modules; a test holds it current.

An archive is a folder of plain Parquet. Every Parquet reader opens it; `pipeline.open` also checks the ledger, so it
opens only files of finished nights.

    ROOT/root.json                                     layout version
    ROOT/<survey>/<dataset>/night=YYYYMMDD/part-*      one file a part, its content's hash in the name
    ROOT/<survey>/science/<release>/night=YYYYMMDD/    also links; the default release is main
    ROOT/<survey>/ledger/night=YYYYMMDD.json           the night exists when this file does: see ledger.md
    ROOT/<survey>/schemas/                             writer schemas met in the dumps
    ROOT/reports/<survey>/<night>/index.html           the night's report

- The parts of `raw`, `cutouts`, `alerts`, `provenance` and `science` correspond row by row, in the order of the source.
- snake_case columns are ours, camelCase ones are the survey's own. Units stand in names and in the Arrow metadata
  (`unit`, `doc`) of every column. `ra`, `dec` are ICRS degrees, `mjd` is TAI days.
- A value that was not measured is null, never -1, 0, NaN or -999. Ids are int64: do not pass them through a double.
- Light curves are a struct of lists of equal length, one entry a measurement as shipped, the alert's own included
  once. Where forced photometry exists at the exposure of a detection, both stand there, told apart by `is_forced`.
"""

SCIENCE_HEAD = """\
## science

What most people read: the flat columns of `alerts` (all but `light_curve` and `upper_limits`), then every added value,
its name beginning with what produced it.
"""

NATIVE = """\
## raw

The packet as the survey wrote it, under its own names, without stamps: `alert_id` (int64), `schema_version` (string),
then every field of every known version of the survey's schema, null where a version lacks it, and `origin_added`: null
for native packets, else JSON of the columns that whoever re-encoded the packet has added. With the writer schema kept
in `ROOT/<survey>/schemas` the packet's Avro body can be made again.

## cutouts

`alert_id` and the survey's own stamp columns, as shipped: `cutoutScience`, `cutoutTemplate`, `cutoutDifference`.
Row groups are small, so that `pipeline.open(root).cutouts(alert_id)` reads little.
"""


def page() -> str:
    """Return the whole page."""
    return "\n".join(
        [
            INTRODUCTION,
            _section("alerts", "The canonical alert, the same columns for every survey.", tables.ALERTS),
            _struct("light_curve", tables.LIGHT_CURVE_TYPE),
            _struct("upper_limits", tables.UPPER_LIMITS_TYPE),
            SCIENCE_HEAD,
            *(_module(module.name, module.version, module.produces) for _, module in sorted(SCIENCE.items())),
            _catalog(),
            _hosts(),
            _sky_map(),
            _filters(),
            _section(
                "links", "What needs a whole night: one row an alert and link.", tables.LINKS, *_night_columns()
            ),
            NATIVE,
            _section("provenance", "Where each alert's packet came from.", tables.PROVENANCE),
            _section("rejects", "Packets that were not accepted, and why.", tables.REJECTS),
            _section("exposures", "One row an exposure and detector.", tables.EXPOSURES),
        ]
    )  # fmt: skip


def _table(fields: Iterable[pa.Field]) -> str:
    lines = ["| column | type | unit | what |", "|---|---|---|---|"]
    for item in fields:
        known = item.metadata or {}
        unit, doc = (known.get(key, b"").decode().replace("|", "\\|").replace("<", "&lt;") for key in (b"unit", b"doc"))
        kind = "struct of lists" if pa.types.is_struct(item.type) else str(item.type)
        lines.append(f"| `{item.name}` | {kind} | {unit} | {doc}{'' if item.nullable else ' (never null)'} |")
    return "\n".join(lines) + "\n"


def _section(name: str, told: str, fields: Iterable[pa.Field], *more: pa.Field) -> str:
    return f"## {name}\n\n{told}\n\n{_table([*fields, *more])}"


def _struct(name: str, kind: pa.StructType) -> str:
    fields = [pa.field(item.name, item.type.value_type, metadata=item.metadata) for item in kind]
    return f"### Lists of `{name}`\n\n{_table(fields)}"


def _module(name: str, version: int, fields: Iterable[pa.Field]) -> str:
    return f"### Module `{name}`, version {version}\n\n{_table(_by_any_band(fields))}"


def _by_any_band(fields: Iterable[pa.Field]) -> list[pa.Field]:
    """Return columns with those that exist for every band told once, as ``feat_<band>_...``."""
    found: dict[str, pa.Field] = {}
    for item in fields:
        match = re.match(r"^feat_([ugrizy])_(?!minus_)(.+)$", item.name)
        if match:
            doc = item.metadata[b"doc"].decode().removeprefix(f"{match[1]}: ")
            item = pa.field(f"feat_<band>_{match[2]}", item.type, metadata={**item.metadata, b"doc": doc})
        found.setdefault(item.name, item)
    return list(found.values())


def _catalog() -> str:
    example = CatalogDeclaration("<catalog>", "", "", "", "ra", "dec", 1.5)
    fields = []
    for item in xmatch.produces(example):
        doc = item.metadata[b"doc"].replace(b"1.5 arcsec", b"its radius")
        fields.append(pa.field(item.name, item.type, metadata={**item.metadata, b"doc": doc}))
    told = "After the identifier, `xm_<catalog>_id`, and the columns that its declaration names, for every alert:"
    return f"### Each catalog\n\n{told}\n\n{_table(fields)}"


def _hosts() -> str:
    told = (
        "Where a catalog of galaxies is matched, see [hosts and luminosities](luminosity.md). `lum_*` is written with"
    )
    return (
        f"### Hosts and luminosities\n\n{told} `--luminosity`.\n\n{_table([*host.produces(), *luminosity.produces()])}"
    )


def _sky_map() -> str:
    class Event:
        event = "<event>"

    fields = skymap.produces(Event)  # type: ignore[arg-type]
    told = "And `skymap_min_credible_level`, `skymap_best_event`: the lowest level over all maps, and whose it is."
    return f"### Each sky map\n\n{_table(fields)}\n{told}\n"


def _filters() -> str:
    rows = "\n".join(
        f"| `filter_{name}` | {item.version} | {item.description} |" for name, item in sorted(FILTERS.items())
    )
    return f"### Filters\n\nBooleans, never null.\n\n| column | version | passes |\n|---|---|---|\n{rows}\n"


def _night_columns() -> list[pa.Field]:
    return [
        item for _, module in sorted(NIGHT.items()) for item in module.produces if item.name not in tables.LINKS.names
    ]


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
