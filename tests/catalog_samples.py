"""A small catalog of stars, its declaration, and writers of it in every form of file."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from astropy.table import MaskedColumn, Table

from pipeline.xmatch import CatalogDeclaration, parse_declaration


def declare(**changes: object) -> CatalogDeclaration:
    values: dict[str, object] = {
        "name": "stars",
        "doc": "some stars",
        "source": "made up",
        "licence": "none",
        "ra": "RA",
        "dec": "DE",
        "radius_arcsec": 2.0,
        "id": "number",
        "missing": ["None"],
        "column": [
            {"name": "number", "source": "No", "type": "int64", "doc": "number"},
            {"name": "kind", "source": "Type", "doc": "type"},
            {"name": "mag", "source": "Vmag", "type": "float32", "unit": "mag", "doc": "V magnitude"},
        ],
    }
    return parse_declaration({**values, **changes}, "stars.toml")


STARS = pa.table(
    {
        "No": pa.array([2**60 + 1, 2, 3, 4, 5], pa.int64()),
        "RA": [350.5, 10.25, float("nan"), 120.0, 120.0],
        "DE": [-89.5, 0.5, 3.0, 45.0, 45.0],
        "Type": ["RR  ", "None", "EA", "", " M "],
        "Vmag": [12.5, float("nan"), 13.0, 14.25, None],
        "unused": [1, 2, 3, 4, 5],
    }
)
# Rows sorted by cell, those of one cell as they came; the third has no position.
EXPECTED = {2**60 + 1: ("RR", 12.5), 2: (None, None), 4: (None, 14.25), 5: ("M", None)}


def write_parquet(folder: Path) -> Path:
    pq.write_table(STARS.set_column(3, "Type", STARS["Type"].dictionary_encode()), folder / "stars.parquet")
    return folder / "stars.parquet"


def write_text(folder: Path) -> Path:
    lines = [" No , RA , DE , Type , Vmag , unused"]
    for row in STARS.to_pylist():
        texts = ["" if item is None else str(item) for item in row.values()]
        texts[3] = f'"{row["Type"]}" '
        lines.append(" , ".join(texts))
    file = folder / "stars.csv.gz"
    file.write_bytes(gzip.compress("\n".join(lines).encode()))
    return file


def _astropy_table() -> Table:
    table = Table({name: STARS[name].to_numpy(zero_copy_only=False) for name in ("No", "RA", "DE")})
    table["Type"] = np.array(STARS["Type"].to_pylist(), dtype="U4")
    mag = STARS["Vmag"].to_numpy(zero_copy_only=False).astype(float)
    table["Vmag"] = MaskedColumn(mag, mask=np.isnan(mag))
    return table


def write_fits(folder: Path) -> Path:
    _astropy_table().write(folder / "stars.fits")
    return folder / "stars.fits"


def write_votable(folder: Path) -> Path:
    _astropy_table().write(folder / "stars.vot", format="votable")
    return folder / "stars.vot"


def write_uniform(file: Path, rows: int, seed: int = 0) -> pa.Table:
    """Write a catalog of stars spread evenly over the sky, with poles and RA 0; return what was written."""
    rng = np.random.default_rng(seed)
    ra, dec = rng.uniform(0, 360, rows), np.degrees(np.arcsin(rng.uniform(-1, 1, rows)))
    ra[:4], dec[:4] = (0.0, 359.9999, 10.0, 200.0), (0.0, 0.0, 90.0, -90.0)
    number = np.arange(rows)
    kind = np.array(["RR", "EA", "M"])[number % 3]
    mag = rng.normal(18, 2, rows).astype(np.float32)
    table = pa.table({"RA": ra, "DE": dec, "No": number, "Type": kind, "Vmag": mag})
    pq.write_table(table, file)
    return table
