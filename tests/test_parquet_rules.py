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
from pipeline.nights.staging import cutouts_schema, raw_schema
from pipeline.simulation import simulate
from pipeline.store.parts import PRUNING_ORDER, write_part
from pipeline.surveys import get as get_survey

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


@pytest.mark.parametrize(
    ("rows", "sizes"),
    [
        (0, [0]),
        (1, [1]),
        (2_500, [2_500]),
        (3_499, [3_499]),
        (3_500, [2_500, 1_000]),
        (10_000, [2_500, 2_500, 2_500, 2_500]),
    ],
)
def test_row_groups_are_large_enough(rows: int, sizes: list[int], tmp_path: Path) -> None:
    """No row group is a small rest: a footer of hundreds of columns would weigh more than its rows."""
    table = pa.table({"alert_id": np.arange(rows), "flux_njy": np.arange(rows) * 0.5})
    receipt = write_part(table, table.schema, tmp_path, "part.{content}.parquet", dataset="raw")
    assert groups_of(tmp_path / receipt.path) == sizes
    assert pq.read_table(tmp_path / receipt.path).equals(table)


def test_floats_are_split_where_that_makes_them_smaller(tmp_path: Path) -> None:
    """Noise shares its exponents; values that come again are found by zstandard only while they are whole."""
    noise = np.random.default_rng(1).normal(20.0, 1.0, 4_000)
    table = pa.table(
        {
            "noise": noise,
            "narrow": noise.astype(np.float32),
            "again": np.random.default_rng(2).choice(noise[:50], 4_000),
            "few": pa.array([*noise[:300], *[None] * 3_700]),
            "listed": pa.array([[value] * (place % 3 != 0) for place, value in enumerate(noise.tolist())]),
            "inside": pa.array([None if place % 5 == 0 else {"x": x} for place, x in enumerate(noise.tolist())]),
            "integer": np.random.default_rng(1).integers(0, 1 << 40, 4_000),
        }
    )
    receipt = write_part(table, table.schema, tmp_path, "part.parquet", dataset="science")
    split = {leaf.path_in_schema for leaf in leaves(tmp_path / receipt.path) if "BYTE_STREAM_SPLIT" in leaf.encodings}
    assert split == {"noise", "narrow", "listed.list.element", "inside.x"}
    assert pq.read_table(tmp_path / receipt.path).equals(table)


def test_a_flat_table_is_not_tried(tmp_path: Path) -> None:
    table = pa.table({"noise": np.random.default_rng(1).normal(20.0, 1.0, 4_000)})
    write_part(table, table.schema, tmp_path, "part", dataset="science")
    assert "BYTE_STREAM_SPLIT" not in leaves(tmp_path / "part")[0].encodings


def test_no_column_is_coded_by_dictionary(files: dict[str, Path]) -> None:
    assert not any(leaf.has_dictionary_page for path in files.values() for leaf in leaves(path))


def test_codecs(files: dict[str, Path]) -> None:
    """Stamps come compressed and gain nothing; zstandard is worth its time where a page holds three kilobytes."""
    for dataset, path in files.items():
        first = list(leaves(path))[: pq.read_metadata(path).num_columns]
        for leaf in first:
            name = (dataset, leaf.path_in_schema)
            if leaf.path_in_schema.endswith(".stampData"):
                assert leaf.compression == "UNCOMPRESSED", name
            elif leaf.total_uncompressed_size < 3_000:
                assert leaf.compression == "SNAPPY", name
            elif leaf.total_uncompressed_size > 3_072 + 3 * leaf.num_values + 500:
                assert leaf.compression == "ZSTD", name
    assert {leaf.compression for leaf in leaves(files["science"])} == {"ZSTD", "SNAPPY"}
    assert "ZSTD" not in {leaf.compression for leaf in leaves(files["cutouts"])}


def test_stamps_that_come_uncompressed_are_compressed(tmp_path: Path) -> None:
    """Rubin ships plain FITS; a null or nested-list blob is no reason to stumble."""
    blank = b"SIMPLE  =" + bytes(20_000)
    table = pa.table(
        {
            "alert_id": pa.array([1, 2], pa.int64()),
            "digest": pa.array([b"\x1f\x8b", b"aa"], pa.binary(2)),
            "plain": pa.array([None, blank], pa.binary()),
            "packed": pa.array([None, b"\x1f\x8b" + bytes(20_000)], pa.large_binary()),
            "many": pa.array([[b"\x1f\x8b"], None], pa.list_(pa.binary())),
            "none": pa.array([None, None], pa.binary()),
        }
    )
    receipt = write_part(table, table.schema, tmp_path, "part.{content}.parquet", dataset="cutouts")
    codecs = {leaf.path_in_schema: leaf.compression for leaf in leaves(tmp_path / receipt.path)}
    assert codecs["packed"] == codecs["many.list.element"] == "UNCOMPRESSED"
    assert codecs["plain"] == "ZSTD"
    assert codecs["none"] == codecs["digest"] == "SNAPPY"
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
    told = {dataset: {leaf.path_in_schema for leaf in leaves(files[dataset]) if leaf.is_stats_set} for dataset in files}
    assert told["cutouts"] == {"alert_id"}
    assert {"alert_id", "objectId", "candidate.jd", "candidate.ra", "candidate.candid"} <= told["raw"]
    assert not {"candidate.rb", "candidate.fid", "candidate.pdiffimfilename"} & told["raw"]
    assert "body_sha256" not in told["provenance"]
    assert not any(".list." in name for names in told.values() for name in names)


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
            assert size < 0.03 * path.stat().st_size, dataset
    keys = pq.read_metadata(files["science"]).metadata
    assert {b"alertmill.dataset", b"alertmill.content", b"alertmill.keys", b"alertmill.cells"} <= set(keys)


def test_a_schema_stands_in_the_footer_only_where_it_says_more_than_parquet(files: dict[str, Path]) -> None:
    """Rubin's has 1,750 columns; without units and documentation Parquet's own description of them is enough."""
    has = {dataset: b"ARROW:schema" in pq.read_metadata(path).metadata for dataset, path in files.items()}
    assert has == {"raw": False, "cutouts": False, "alerts": True, "provenance": True, "science": True}
    survey = get_survey("ztf")
    assert pq.read_schema(files["raw"]).remove_metadata().equals(raw_schema(survey))
    assert pq.read_schema(files["cutouts"]).remove_metadata().equals(cutouts_schema(survey))
    assert pq.read_schema(files["alerts"]).field("mjd").metadata[b"unit"] == b"d"


@pytest.mark.parametrize("kind", [pa.large_string(), pa.large_binary(), pa.list_(pa.large_string())])
def test_types_that_parquet_does_not_know_are_kept(kind: pa.DataType, tmp_path: Path) -> None:
    for name, schema in (("plain", pa.schema([("x", pa.string())])), ("large", pa.schema([("x", kind)]))):
        write_part(schema.empty_table(), schema, tmp_path, name, dataset="other")
        assert pq.read_schema(tmp_path / name).remove_metadata().equals(schema)
