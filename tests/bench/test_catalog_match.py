"""Alerts against a catalog on disk: from the match index and from Parquet, beside LSDB's second crossmatch, CPU time.

All three read one folder, which is ours and a HATS collection; the matches are the same before anything is timed.
LSDB's first call in a process compiles and is not counted; nor is how the alerts get into its form.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from measuring import Board, cpu_seconds, interleaved, median, median_ratio, pinned, steady_cpu_seconds

from pipeline import catalogs
from pipeline.xmatch import nearest, parse_declaration

pytestmark = [pytest.mark.bench, pytest.mark.timeout(3600)]

ROWS = int(os.environ.get("ALERTMILL_BENCH_ROWS", "10000000"))
ALERTS = 100_000
RADIUS_ARCSEC = 2.0
DOUBLES, FLOATS = ("parallax", "pmra", "pmdec"), ("g_mag", "bp_mag", "rp_mag", "ruwe")
PAYLOAD = ("source_id", "parallax", "g_mag")


def _table(rows: int, rng: np.random.Generator) -> pa.Table:
    columns: dict[str, Any] = {"source_id": np.arange(rows)}
    columns |= {"alpha": rng.uniform(0, 360, rows), "delta": np.degrees(np.arcsin(rng.uniform(-1, 1, rows)))}
    columns |= {name: rng.normal(1, 5, rows) for name in DOUBLES}
    columns |= {name: rng.normal(18, 2, rows).astype(np.float32) for name in FLOATS}
    return pa.table(columns)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, board: Board) -> catalogs.Catalog:
    folder = tmp_path_factory.mktemp("match")
    pq.write_table(_table(ROWS, np.random.default_rng(3)), folder / "stars.parquet")
    columns = [{"name": "source_id", "type": "int64"}, *({"name": name, "type": "float64"} for name in DOUBLES)]
    columns += [{"name": name, "type": "float32"} for name in FLOATS]
    texts = dict.fromkeys(("doc", "source", "licence"), "random")
    declaration = parse_declaration(
        {
            **texts,
            **{"name": "stars", "ra": "alpha", "dec": "delta", "radius_arcsec": RADIUS_ARCSEC, "margin_arcsec": 60},
            **{"id": "source_id", "column": columns},
        },
        "bench",
    )
    catalog: list[catalogs.Catalog] = []
    with pinned():
        spent = cpu_seconds(
            lambda: catalog.append(catalogs.build(declaration, folder / "stars.parquet", folder / "stars"))
        )
    board.head(f"catalogs: {ROWS:,} rows of {len(columns)} columns and positions")
    board.add("catalog_build", "  build: HATS collection, margin, match index, columns, sums", spent, "s CPU")
    return catalog[0]


def _alerts(catalog: catalogs.Catalog, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Six of ten half an arcsecond beside a source, the others anywhere."""
    ra, dec = rng.uniform(0, 360, ALERTS), np.degrees(np.arcsin(rng.uniform(-1, 1, ALERTS)))
    beside = ALERTS * 6 // 10
    row = rng.integers(0, catalog.rows, beside)
    ra[:beside] = catalog.index.ra[row] + rng.normal(0, 0.5 / 3600, beside)
    dec[:beside] = np.clip(catalog.index.dec[row] + rng.normal(0, 0.5 / 3600, beside), -90, 90)
    return np.mod(ra, 360), dec


def test_beside_lsdb(built: catalogs.Catalog, board: Board) -> None:
    lsdb = pytest.importorskip("lsdb")
    import dask

    ra, dec = _alerts(built, np.random.default_rng(5))
    frame = pd.DataFrame({"alert_id": np.arange(ALERTS), "ra": ra, "dec": dec})

    def from_index() -> tuple[np.ndarray, pa.Table]:
        catalog = catalogs.open_catalog(built.path)
        found = nearest(ra, dec, RADIUS_ARCSEC, catalog.index)
        matched = np.flatnonzero(found.row >= 0)
        return matched, catalog.take(found.row[matched], PAYLOAD)

    def from_parquet() -> tuple[np.ndarray, pa.Table]:
        found = catalogs.match_parquet(catalogs.open_hats(built.path), ra, dec, RADIUS_ARCSEC, PAYLOAD)
        return np.flatnonzero(found.nearest.row >= 0), found.columns

    with warnings.catch_warnings(), dask.config.set(scheduler="synchronous"), pinned():
        warnings.simplefilter("ignore")
        left = lsdb.from_dataframe(
            frame, ra_column="ra", dec_column="dec", catalog_name="alerts", margin_threshold=None
        )

        def by_lsdb() -> pd.DataFrame:
            right = lsdb.open_catalog(built.path, columns=["ra", "dec", *PAYLOAD])
            options = {"suffixes": ("_alert", "_star"), "suffix_method": "all_columns"}
            return left.crossmatch(right, n_neighbors=1, radius_arcsec=RADIUS_ARCSEC, **options).compute()

        matched, columns = from_index()
        straight = from_parquet()
        assert (straight[0] == matched).all()
        assert straight[1].equals(columns)
        theirs = by_lsdb().sort_values("alert_id_alert")
        assert theirs["alert_id_alert"].to_numpy().tolist() == matched.tolist()
        assert theirs["source_id_star"].to_numpy().tolist() == columns["source_id"].to_pylist()
        calls: dict[str, Callable[[], float]] = {
            "index": lambda: steady_cpu_seconds(from_index),
            "parquet": lambda: cpu_seconds(from_parquet),
            "lsdb": lambda: cpu_seconds(by_lsdb),
        }
        times = interleaved(calls)
    board.head(f"catalog on disk: {ALERTS:,} alerts, {ROWS:,} rows, 3 columns of each match; CPU time of one core")
    for name, told in (
        ("index", "  match index, memory-mapped"),
        ("parquet", "  straight from HATS Parquet"),
        ("lsdb", "  LSDB, second call and later"),
    ):
        board.add(f"catalog_match_{name}", told, median(times[name]), "s")
    for name, least in (("index", 20), ("parquet", 4)):
        ratio = median_ratio(times["lsdb"], times[name])
        board.add(f"catalog_lsdb_over_{name}", f"  LSDB over {name}", ratio, "times", f"wanted at least {least}")


def test_a_patch_of_sky_reads_its_row_groups_only(built: catalogs.Catalog, board: Board) -> None:
    rng = np.random.default_rng(6)
    ra, dec = rng.uniform(100, 110, 10_000), rng.uniform(20, 30, 10_000)
    opened = catalogs.open_hats(Path(built.path))
    found = catalogs.match_parquet(opened, ra, dec, RADIUS_ARCSEC, PAYLOAD)
    assert (found.nearest.row == nearest(ra, dec, RADIUS_ARCSEC, built.index).row).all()
    with pinned():
        spent = [cpu_seconds(lambda: catalogs.match_parquet(opened, ra, dec, RADIUS_ARCSEC, PAYLOAD)) for _ in range(3)]
    told = f"{found.groups_read} of {found.groups} row groups"
    board.add("catalog_match_patch", "  10,000 alerts in 10 x 10 deg, from Parquet", median(spent), "s", told)
