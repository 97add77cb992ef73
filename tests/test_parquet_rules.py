"""The layout of the files on disk: row groups, encodings, statistics, codecs and footers of a simulated night."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import config as configuration
from pipeline.healpix import ang2pix
from pipeline.nights import drive
from pipeline.nights.run import prepare
from pipeline.simulation import simulate
from pipeline.store.parts import PRUNING_ORDER, write_part

ALERTS = 2_600
"""A few more than the rows of one row group."""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One file of each dataset of one part."""
    folder = tmp_path_factory.mktemp("rules")
    made = simulate(20240212, "ztf", ALERTS, 3, folder)
    options = {"root": str(folder / "data"), "survey": "ztf", "report": False, "execution.mode": "serial"}
    outcome = drive.run_direct(prepare(configuration.load(options, environment={})[0], [str(made.dump)]))
    (part,) = outcome.ledgers[20240212]["parts"]
    return {name: folder / "data" / file["path"] for name, file in part["files"].items()}


def groups_of(path: Path) -> list[int]:
    metadata = pq.read_metadata(path)
    return [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]


def leaves(path: Path) -> list[pq.ColumnChunkMetaData]:
    metadata = pq.read_metadata(path)
    return [
        metadata.row_group(group).column(number)
        for group in range(metadata.num_row_groups)
        for number in range(metadata.num_columns)
    ]


def test_row_groups(files: dict[str, Path]) -> None:
    assert groups_of(files["science"]) == groups_of(files["provenance"]) == [ALERTS]
    for dataset in ("raw", "alerts"):
        sizes = groups_of(files[dataset])
        assert sum(sizes) == ALERTS and all(1_000 <= size <= 5_000 for size in sizes)
    cutouts = groups_of(files["cutouts"])
    assert sum(cutouts) == ALERTS and all(24 <= size <= 32 for size in cutouts[:-1]) and cutouts[-1] <= 32


@pytest.mark.parametrize(("rows", "largest"), [(1, 1), (2_499, 2_499), (2_500, 2_500), (2_501, 1_251), (10_000, 2_500)])
def test_row_groups_are_even(rows: int, largest: int, tmp_path: Path) -> None:
    """No row group is a small rest: a footer of hundreds of columns would weigh more than its rows."""
    table = pa.table({"alert_id": np.arange(rows), "flux_njy": np.arange(rows) * 0.5})
    receipt = write_part(table, table.schema, tmp_path, "part.{content}.parquet", dataset="raw")
    sizes = groups_of(tmp_path / receipt.path)
    assert sum(sizes) == rows and max(sizes) == largest and min(sizes) >= max(sizes) - len(sizes)
    assert pq.read_table(tmp_path / receipt.path).equals(table)


def test_floats_are_byte_stream_split(files: dict[str, Path]) -> None:
    for dataset in ("raw", "alerts", "science"):
        floats = [leaf for leaf in leaves(files[dataset]) if leaf.physical_type in ("FLOAT", "DOUBLE")]
        assert len(floats) >= 10
        for leaf in floats:
            assert "BYTE_STREAM_SPLIT" in leaf.encodings, (dataset, leaf.path_in_schema)
            assert not leaf.has_dictionary_page, (dataset, leaf.path_in_schema)


def test_codecs(files: dict[str, Path]) -> None:
    """Everything is zstd but the stamps, which come compressed and gain nothing."""
    for dataset, path in files.items():
        for leaf in leaves(path):
            is_stamp = leaf.path_in_schema.endswith(".stampData")
            assert leaf.compression == ("UNCOMPRESSED" if is_stamp else "ZSTD"), (dataset, leaf.path_in_schema)
    stamps = [leaf for leaf in leaves(files["cutouts"]) if leaf.path_in_schema.endswith(".stampData")]
    assert stamps and not any(leaf.has_dictionary_page for leaf in stamps)


def test_stamps_that_come_uncompressed_are_compressed(tmp_path: Path) -> None:
    """Rubin ships plain FITS; a null or nested-list blob is no reason to stumble."""
    blank = b"SIMPLE  =" + bytes(20_000)
    table = pa.table(
        {
            "alert_id": pa.array([1, 2], pa.int64()),
            "plain": pa.array([None, blank], pa.binary()),
            "packed": pa.array([None, b"\x1f\x8b" + bytes(20_000)], pa.large_binary()),
            "many": pa.array([[b"\x1f\x8b"], None], pa.list_(pa.binary())),
            "none": pa.array([None, None], pa.binary()),
        }
    )
    receipt = write_part(table, table.schema, tmp_path, "part.{content}.parquet", dataset="cutouts")
    codecs = {leaf.path_in_schema: leaf.compression for leaf in leaves(tmp_path / receipt.path)}
    assert codecs["packed"] == "UNCOMPRESSED"
    assert {codecs[name] for name in ("plain", "many.list.element", "none")} == {"ZSTD"}
    assert pq.read_table(tmp_path / receipt.path).equals(table)


def test_statistics(files: dict[str, Path]) -> None:
    """Minimum and maximum of what readers prune by stand in every row group; blobs have none."""
    for dataset in ("alerts", "science"):
        table = pq.read_table(files[dataset], columns=["alert_id", "mjd", "dec"])
        for name in table.column_names:
            chunks = [leaf for leaf in leaves(files[dataset]) if leaf.path_in_schema == name]
            values = table.column(name).to_numpy()
            ends = np.cumsum(groups_of(files[dataset]))
            for chunk, start, end in zip(chunks, [0, *ends[:-1]], ends, strict=True):
                assert (chunk.statistics.min, chunk.statistics.max) == (
                    values[start:end].min(),
                    values[start:end].max(),
                )
    for leaf in leaves(files["cutouts"]):
        assert leaf.is_stats_set == (not leaf.path_in_schema.endswith(".stampData"))


def test_cells_stand_in_the_footer(files: dict[str, Path]) -> None:
    """For each row group the order-6 HEALPix cells that it touches, from positions and not from our own index."""
    for dataset in ("alerts", "science"):
        metadata = pq.read_metadata(files[dataset]).metadata
        told = json.loads(metadata[b"alertmill.cells"])
        table = pq.read_table(files[dataset], columns=["ra", "dec"])
        cells = ang2pix(PRUNING_ORDER, table.column("ra").to_numpy(), table.column("dec").to_numpy())
        ends = np.cumsum(groups_of(files[dataset]))
        assert len(told) == len(ends)
        for found, start, end in zip(told, [0, *ends[:-1]], ends, strict=True):
            assert found == np.unique(cells[start:end]).tolist()


def test_footers_are_small(files: dict[str, Path]) -> None:
    """A footer is read whole before anything else: a small share of the file, and never over 256 kB."""
    for dataset, path in files.items():
        size = pq.read_metadata(path).serialized_size
        assert size < 256_000, dataset
        if dataset in ("raw", "alerts", "cutouts"):
            assert size < 0.05 * path.stat().st_size, dataset
    keys = pq.read_metadata(files["science"]).metadata
    assert {b"alertmill.dataset", b"alertmill.content", b"alertmill.keys", b"alertmill.cells"} <= set(keys)
