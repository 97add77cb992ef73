"""Plain readers open the datasets as hive folders and see exactly what ``pipeline.open`` gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pytest
from two_nights import NIGHTS, Written, run

import pipeline
from pipeline.simulation import simulate

pytestmark = [pytest.mark.interop, pytest.mark.xdist_group("interop")]

DATASETS = {"raw": "raw", "alerts": "alerts", "science": "science/main"}
"""Those that ``pipeline.open`` selects from, and their folders."""


def folder_of(written: Written, dataset: str) -> Path:
    return written.root / "ztf" / DATASETS.get(dataset, dataset)


def expected(written: Written, dataset: str) -> pa.Table:
    archive = pipeline.open(written.root)
    return getattr(archive, dataset)().to_arrow().sort_by("alert_id").combine_chunks()


def same(found: pa.Table, dataset: str, written: Written) -> None:
    """Hold every column, nested ones included, to what ``pipeline.open`` reads; ids exactly, as int64."""
    reference = expected(written, dataset)
    assert found.schema.field("alert_id").type == pa.int64()
    assert sorted(found.column_names) == sorted(reference.column_names)
    found = found.select(reference.column_names).cast(reference.schema.remove_metadata()).sort_by("alert_id")
    for name in reference.column_names:
        assert found.column(name).combine_chunks().equals(reference.column(name).combine_chunks()), (dataset, name)
    assert found.num_rows == sum(written.nights.values())


@pytest.mark.parametrize("dataset", DATASETS)
def test_pyarrow_dataset(dataset: str, written: Written) -> None:
    partitioning = ds.partitioning(pa.schema([("night", pa.int32())]), flavor="hive")
    table = ds.dataset(folder_of(written, dataset), format="parquet", partitioning=partitioning).to_table()
    same(table, dataset, written)


@pytest.mark.parametrize("dataset", DATASETS)
def test_duckdb(dataset: str, written: Written) -> None:
    pattern = f"{folder_of(written, dataset)}/*/*.parquet"
    with duckdb.connect() as connection:
        found = connection.sql(f"SELECT * FROM read_parquet('{pattern}', hive_partitioning = true)")
        same(found.to_arrow_table(), dataset, written)
        counts = connection.execute(
            "SELECT night, count(*) FROM read_parquet(?, hive_partitioning = true) GROUP BY night", [pattern]
        ).fetchall()
    assert {int(night): count for night, count in counts} == written.nights


@pytest.mark.parametrize("dataset", DATASETS)
def test_polars(dataset: str, written: Written) -> None:
    frame = pl.scan_parquet(f"{folder_of(written, dataset)}/*/*.parquet", hive_partitioning=True).collect()
    assert frame.schema["alert_id"] == pl.Int64
    same(frame.to_arrow(compat_level=pl.CompatLevel.oldest()), dataset, written)


@pytest.mark.parametrize("dataset", DATASETS)
def test_pandas(dataset: str, written: Written) -> None:
    """The folder as a whole; ids stay int64 in default NumPy dtypes as well as in Arrow's."""
    folder = folder_of(written, dataset)
    ids = pd.read_parquet(folder, columns=["alert_id"])["alert_id"]
    assert ids.dtype == np.int64
    frame = pd.read_parquet(folder, dtype_backend="pyarrow")
    reference = expected(written, dataset)
    assert sorted(ids) == reference.column("alert_id").to_pylist()
    assert sorted(frame.columns) == sorted(reference.column_names)
    for name in ("ra", "dec", "mjd", "flux_njy", "xm_sim_galaxies_separation_arcsec"):
        if name in frame.columns:
            found = frame.sort_values("alert_id")[name].to_numpy(dtype=float, na_value=np.nan)
            np.testing.assert_array_equal(found, reference.column(name).to_numpy())


def test_cutouts_are_bytes_everywhere(written: Written) -> None:
    archive = pipeline.open(written.root)
    ids = archive.science().to_arrow().column("alert_id").to_pylist()[::97]
    wanted = {row["alert_id"]: row["cutoutScience"]["stampData"] for row in archive.cutouts(ids).to_pylist()}
    assert len(wanted) == len(ids) and all(stamp[:2] == b"\x1f\x8b" for stamp in wanted.values())
    pattern = f"{folder_of(written, 'cutouts')}/*/*.parquet"
    with duckdb.connect() as connection:
        query = "SELECT alert_id, cutoutScience.stampData FROM read_parquet(?) WHERE list_contains(?, alert_id)"
        assert dict(connection.execute(query, [pattern, ids]).fetchall()) == wanted
    lazy = pl.scan_parquet(pattern).filter(pl.col("alert_id").is_in(ids))
    stamp = pl.col("cutoutScience").struct.field("stampData")
    assert dict(lazy.select("alert_id", stamp).collect().iter_rows()) == wanted
    table = ds.dataset(folder_of(written, "cutouts")).to_table(filter=pc.field("alert_id").isin(ids))
    found = {row["alert_id"]: row["cutoutScience"]["stampData"] for row in table.to_pylist()}
    assert found == wanted
    frame = pd.read_parquet(folder_of(written, "cutouts"), filters=[("alert_id", "in", ids)])
    assert {i: stamps["stampData"] for i, stamps in zip(frame.alert_id, frame.cutoutScience, strict=True)} == wanted


def test_light_curves_unnest_everywhere(written: Written) -> None:
    """Number of points and sum of fluxes of every light curve, by three engines, equal our own."""
    table = expected(written, "alerts")
    curve = pc.struct_field(table.column("light_curve"), "flux_njy").to_pylist()
    wanted = {
        alert: (len(flux), sum(value for value in flux if value is not None))
        for alert, flux in zip(table.column("alert_id").to_pylist(), curve, strict=True)
        if flux
    }
    pattern = f"{folder_of(written, 'alerts')}/*/*.parquet"
    with duckdb.connect() as connection:
        query = """SELECT alert_id, count(*), sum(flux) FROM
                   (SELECT alert_id, unnest(light_curve.flux_njy) AS flux FROM read_parquet(?)) GROUP BY alert_id"""
        by_duckdb = {row[0]: row[1:] for row in connection.execute(query, [pattern]).fetchall()}
    flux = pl.col("light_curve").struct.field("flux_njy")
    by_polars = {
        row[0]: row[1:]
        for row in pl.scan_parquet(pattern)
        .select("alert_id", flux.list.len().alias("n"), flux.list.sum().alias("s"))
        .filter(pl.col("n") > 0)
        .collect()
        .iter_rows()
    }
    frame = pd.read_parquet(folder_of(written, "alerts"), columns=["alert_id", "light_curve"])
    by_pandas = {
        alert: (len(curve["flux_njy"]), float(np.nansum(np.asarray(curve["flux_njy"], dtype=float))))
        for alert, curve in zip(frame.alert_id, frame.light_curve, strict=True)
        if len(curve["flux_njy"])
    }
    for found in (by_duckdb, by_polars, by_pandas):
        assert found.keys() == wanted.keys()
        for alert, (points, total) in wanted.items():
            assert found[alert][0] == points
            assert found[alert][1] == pytest.approx(total, rel=1e-9, abs=1e-6)


def test_a_release_that_gained_a_column(tmp_path: Path) -> None:
    """A later night may have been run with more: readers are told to take columns by name, or get the one schema."""
    first, second = (simulate(night, "ztf", 80, 1, tmp_path / str(night), cutouts=False) for night in NIGHTS)
    options: dict[str, Any] = {"report": False}
    run(tmp_path / "data", first, **options)
    run(tmp_path / "data", second, **options, skymaps=(f"{second.event}={second.skymap}",))
    reference = pipeline.open(tmp_path / "data").science().to_arrow().sort_by("alert_id")
    column = f"skymap_{second.event.lower()}_credible_level"
    assert reference.column(column).null_count >= 80
    folder = tmp_path / "data/ztf/science/main"
    with pa.ipc.open_file(folder / "_schema.arrow") as file:
        schema = file.schema.append(pa.field("night", pa.int32()))
    table = ds.dataset(folder, schema=schema, partitioning="hive").to_table().sort_by("alert_id")
    assert table.column(column).equals(reference.column(column))
    with duckdb.connect() as connection:
        files = f"read_parquet('{folder}/*/*.parquet', union_by_name = true)"
        found = connection.sql(f"SELECT {column} FROM {files} ORDER BY alert_id").fetchall()
    assert [value for (value,) in found] == reference.column(column).to_pylist()
    frames = [pl.read_parquet(path) for path in sorted(folder.glob("*/*.parquet"))]
    levels = pl.concat(frames, how="diagonal").sort("alert_id").get_column(column)
    assert levels.to_list() == reference.column(column).to_pylist()
