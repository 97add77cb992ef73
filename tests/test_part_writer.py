"""Parts written as their rows come: the same bytes however they are cut, equal to the rows, and never a half file."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import PartError, SchemaError
from pipeline.schema import content_hashes
from pipeline.store import parts, read_table
from pipeline.store.parts import PRUNING_ORDER, PartWriter, Pruning, pruning, write_part

POINTS = pa.list_(pa.struct([("x", pa.float64()), ("s", pa.string())]))


def made(rows: int, seed: int = 0) -> pa.Table:
    """Ids, positions on the sky, text, nulls, lists of records, a map, stamps."""
    rng = np.random.default_rng(seed)
    points = [
        None if i % 7 == 0 else [{"x": x, "s": "gri"[i % 3] * (i % 2)} for x in rng.normal(size=i % 4)]
        for i in range(rows)
    ]
    table = {
        "alert_id": pa.array(np.arange(rows) * 10**12, pa.int64()),
        "healpix_29": pa.array(rng.integers(0, 12 << 58, rows), pa.int64()),
        "mjd": pa.array(np.arange(rows) / 8),
        "diff_mag": pa.array(rng.normal(20, 1, size=rows), mask=np.arange(rows) % 5 == 0),
        "flag": pa.array(rng.integers(0, 2, rows).astype(bool)),
        "name": pa.array([None if i % 11 == 0 else f"n{i % 13}" for i in range(rows)], pa.string()),
        "points": pa.array(points, POINTS),
        "extra": pa.array([None if i % 3 else [("k", i)] for i in range(rows)], pa.map_(pa.string(), pa.int32())),
        "stamp": pa.array([b"\x1f\x8b" + rng.bytes(30 + i % 50) for i in range(rows)], pa.binary()),
    }
    return pa.table(table)


WHOLE = made(700)


@contextmanager
def small_groups() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "_ROW_GROUP", {"raw": 50, "cutouts": 8})
        patch.setattr(parts, "_LEAST_LAST", {"raw": 20})
        yield


def in_pieces(table: pa.Table, cuts: list[int]) -> list[pa.Table]:
    ends = [0, *sorted(min(cut, table.num_rows) for cut in cuts), table.num_rows]
    return [table.slice(first, last - first) for first, last in pairwise(ends)]


def repacked(table: pa.Table) -> pa.Table:
    """Return the same rows in other buffers: at an offset, and with a bitmap of nulls where there is no null."""
    columns = []
    for column in table.columns:
        around = pa.concat_arrays([pa.nulls(3, column.type), *column.chunks, pa.nulls(1, column.type)])
        columns.append(around.slice(3, table.num_rows))
    return pa.table(columns, schema=table.schema)


@settings(max_examples=150)
@given(
    dataset=st.sampled_from(["raw", "cutouts", "provenance"]),
    rows=st.integers(0, 180),
    cuts=st.lists(st.integers(0, 180), max_size=8),
    is_repacked=st.booleans(),
    is_closed_with_rows=st.booleans(),
)
def test_the_same_bytes_for_any_cut(
    dataset: str,
    rows: int,
    cuts: list[int],
    is_repacked: bool,
    is_closed_with_rows: bool,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("cut")
    table = WHOLE.slice(17, rows)
    pieces: list[Any] = [repacked(piece) if is_repacked else piece for piece in in_pieces(table, cuts)]
    last = pieces.pop() if is_closed_with_rows else None
    with small_groups():
        whole = write_part(table, table.schema, folder, "whole", dataset=dataset)
        with PartWriter(table.schema, folder, "cut", dataset=dataset) as writer:
            for piece in pieces:
                writer.append(piece)
            receipt = writer.close(last)
    assert (folder / "cut").read_bytes() == (folder / "whole").read_bytes()
    assert {**vars(whole), "path": "cut"} == vars(receipt)
    assert read_table(folder / "cut").equals(table)
    assert sorted(path.name for path in folder.iterdir()) == ["cut", "whole"]


@pytest.mark.parametrize("kind", [pa.map_(pa.string(), pa.int32()), pa.list_(pa.int64()), pa.string()])
def test_what_stands_beside_the_rows_in_their_buffers_does_not_count(kind: pa.DataType, tmp_path: Path) -> None:
    value = {"map": [("k", 7)], "list": [7]}.get(str(kind).split("<")[0], "k" * 9)
    inside = pa.table({"x": pa.array([value] * 5_000, kind)}).slice(4_990, 7)
    alone = pa.table({"x": pa.array([value] * 7, kind)})
    for name, table in (("inside", inside), ("alone", alone)):
        write_part(table, table.schema, tmp_path, name, dataset="raw")
    assert (tmp_path / "inside").read_bytes() == (tmp_path / "alone").read_bytes()


@pytest.mark.parametrize("cuts", [[1], [700, 1_301], [2_499]])
def test_pages_end_at_the_same_rows_for_any_cut(cuts: list[int], tmp_path: Path) -> None:
    """A column of a row group here takes several pages, and Arrow ends one only between two of its own pieces."""
    rng = np.random.default_rng(2)
    texts = [rng.bytes(700 + i % 400).hex() for i in range(2_600)]
    table = pa.table({"text": texts, "number": rng.normal(size=2_600)})
    write_part(table, table.schema, tmp_path, "whole", dataset="raw")
    with PartWriter(table.schema, tmp_path, "cut", dataset="raw") as writer:
        for piece in in_pieces(table, cuts):
            writer.append(piece)
        writer.close()
    assert (tmp_path / "cut").read_bytes() == (tmp_path / "whole").read_bytes()


@pytest.mark.parametrize(
    ("dataset", "rows", "sizes"),
    [
        ("raw", 69, [69]),
        ("raw", 70, [50, 20]),
        ("raw", 119, [50, 69]),
        ("raw", 170, [50, 50, 50, 20]),
        ("cutouts", 8, [8]),
        ("cutouts", 20, [8, 8, 4]),
    ],
)
@pytest.mark.parametrize("step", [1, 30, 1000])
def test_row_groups_end_at_fixed_rows(dataset: str, rows: int, sizes: list[int], step: int, tmp_path: Path) -> None:
    table = WHOLE.slice(0, rows)
    with small_groups(), PartWriter(table.schema, tmp_path, "part", dataset=dataset) as writer:
        for at in range(0, rows, step):
            writer.append(table.slice(at, step))
        writer.close()
    metadata = pq.read_metadata(tmp_path / "part")
    assert [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)] == sizes
    cells = json.loads(metadata.metadata[b"alertmill.cells"])
    wanted, at = [], 0
    for size in sizes:
        of_group = table.column("healpix_29")[at : at + size].to_pylist()
        wanted.append(sorted({cell // 4 ** (29 - PRUNING_ORDER) for cell in of_group}))
        at += size
    assert cells == wanted


def test_the_receipt_tells_what_the_file_is(tmp_path: Path) -> None:
    """Larger than what is hashed at once; name and footer take their digits from the contents."""
    rng = np.random.default_rng(5)
    stamps = [rng.bytes(40_000) for _ in range(320)]
    table = pa.table({"alert_id": np.arange(320), "stamp": pa.array(stamps, pa.binary())})
    receipt = write_part(table, table.schema, tmp_path, "p.{content}.x", dataset="cutouts", keys={"b": "2", "a": "1"})
    data = (tmp_path / receipt.path).read_bytes()
    assert len(data) == receipt.bytes > 8 * parts._READ_BYTES
    assert hashlib.sha256(data).hexdigest() == receipt.sha256
    assert receipt.path == f"p.{receipt.sha256[:8]}.x"
    assert (receipt.rows, receipt.content) == (320, content_hashes(table))
    footer = pq.read_metadata(tmp_path / receipt.path).metadata
    assert json.loads(footer[b"alertmill.content"]) == content_hashes(table)
    assert json.loads(footer[b"alertmill.keys"]) == {"a": "1", "b": "2"}
    assert footer[b"alertmill.dataset"] == b"cutouts"
    assert b"alertmill.cells" not in footer
    known = write_part(table, table.schema, tmp_path, "known", dataset="cutouts", content={"alert_id": "x"})
    assert known.content == {"alert_id": "x"}


@settings(max_examples=50)
@given(rows=st.integers(0, 100), cuts=st.lists(st.integers(0, 100), max_size=5), first=st.integers(0, 5))
def test_pruning_is_gathered_piece_by_piece(rows: int, cuts: list[int], first: int) -> None:
    """Also from pieces without rows, or without a magnitude."""
    table = WHOLE.slice(first, rows)
    gathered = Pruning()
    for piece in in_pieces(table, cuts):
        gathered.add(piece)
    told = gathered.as_dict()
    assert told == pruning(table)
    magnitudes = [value for value in table["diff_mag"].to_pylist() if value is not None]
    assert (told["mag_min"], told["mag_max"]) == (min(magnitudes, default=None), max(magnitudes, default=None))
    times = table["mjd"].to_pylist()
    assert (told["mjd_min"], told["mjd_max"]) == (min(times, default=None), max(times, default=None))
    assert told["cells"] == sorted({cell >> 46 for cell in table["healpix_29"].to_pylist()})


# --------------------------------------------------------------------------------------- nothing by halves
def test_nothing_is_left_of_what_was_not_closed(tmp_path: Path) -> None:
    with small_groups():
        with pytest.raises(KeyboardInterrupt), PartWriter(WHOLE.schema, tmp_path, "part", dataset="raw") as writer:
            writer.append(WHOLE)
            assert [path.suffix for path in tmp_path.iterdir()] == [".tmp"]
            raise KeyboardInterrupt
        assert list(tmp_path.iterdir()) == []
        with PartWriter(WHOLE.schema, tmp_path, "part", dataset="raw") as writer:
            writer.append(WHOLE)
        assert list(tmp_path.iterdir()) == []
        writer = PartWriter(WHOLE.schema, tmp_path, "part", dataset="raw")
        writer.append(WHOLE.slice(0, 3))
        writer.close()
        writer.abort()
    assert [path.name for path in tmp_path.iterdir()] == ["part"]


def test_a_table_of_another_schema_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    with (
        small_groups(),
        pytest.raises(SchemaError, match=r"flag is not declared \(dataset raw\)"),
        PartWriter(WHOLE.schema.remove(4), tmp_path, "part", dataset="raw") as writer,
    ):
        writer.append(WHOLE.drop_columns("flag"))
        writer.append(WHOLE)
    assert list(tmp_path.iterdir()) == []


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Make the system refuse to write more than so many bytes to a file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("size", [0, 10_000, 30_000])
def test_a_disk_that_refuses_is_told_in_one_line_and_nothing_is_left(size: int, tmp_path: Path) -> None:
    with small_groups():
        whole = write_part(WHOLE, WHOLE.schema, tmp_path / "whole", "part", dataset="raw").bytes
        with files_of_at_most(min(size, whole - 1)), pytest.raises(PartError) as caught:
            write_part(WHOLE, WHOLE.schema, tmp_path, "part-7.{content}.parquet", dataset="raw")
    told = f"cannot write: {os.strerror(errno.EFBIG)} (dataset raw, part part-7); mend that, then run again"
    assert str(caught.value) == told
    assert [path.name for path in tmp_path.iterdir()] == ["whole"]


def test_a_footer_that_does_not_fit_leaves_nothing(tmp_path: Path) -> None:
    with small_groups():
        whole = write_part(WHOLE, WHOLE.schema, tmp_path / "whole", "part", dataset="raw").bytes
        with (
            files_of_at_most(whole - 100),
            pytest.raises(PartError, match="File too large"),
            PartWriter(WHOLE.schema, tmp_path, "part", dataset="raw") as writer,
        ):
            writer.append(WHOLE)
            writer.close()
    assert [path.name for path in tmp_path.iterdir()] == ["whole"]


def test_a_disk_that_is_full_when_the_file_is_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(parts.os, "fsync", full)
    with pytest.raises(PartError, match=r"cannot write: No space left on device \(dataset raw"):
        write_part(WHOLE, WHOLE.schema, tmp_path, "part", dataset="raw")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(PartError, match=r"cannot write: (Not a directory|File exists)"):
        write_part(WHOLE, WHOLE.schema, tmp_path / "file", "part", dataset="raw")


KILLED = """
import sys, time
from pathlib import Path
import numpy as np, pyarrow as pa
from pipeline.store.parts import PartWriter
table = pa.table({"alert_id": np.arange(64), "stamp": pa.array([bytes(1000)] * 64, pa.binary())})
with PartWriter(table.schema, Path(sys.argv[1]), "part", dataset="cutouts") as writer:
    writer.append(table)
    print("written", flush=True)
    time.sleep(60)
    writer.close()
"""


@pytest.mark.parametrize(("how", "left"), [(signal.SIGKILL, [".tmp"]), (signal.SIGINT, [])])
def test_a_process_that_is_stopped_leaves_no_part(how: signal.Signals, left: list[str], tmp_path: Path) -> None:
    """What a killed one was writing has a hidden name, and is swept with its run."""
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None and process.stdout.readline() == b"written\n"
        process.send_signal(how)
        assert process.wait(30) != 0
    assert [path.suffix for path in tmp_path.iterdir()] == left


# --------------------------------------------------------------------------------------- memory
@pytest.mark.parametrize("rows", [2, 50])
def test_memory_is_that_of_a_row_group_and_not_of_the_part(rows: int, tmp_path: Path) -> None:
    """A hundred tables of 4 MB, of which all or a few rows are taken: nothing of them is kept alive."""
    before = pa.total_allocated_bytes()
    peak = 0
    schema = pa.schema([("alert_id", pa.int64()), ("stamp", pa.binary())])
    with PartWriter(schema, tmp_path, "part", dataset="cutouts") as writer:
        for start in range(0, 100 * 50, 50):
            stamps = pa.array([bytes(80_000)] * 50, pa.binary())
            writer.append(pa.table([np.arange(start, start + 50), stamps], schema=schema).slice(20, rows))
            del stamps
            peak = max(peak, pa.total_allocated_bytes() - before)
        writer.close()
    assert peak < 3 * 50 * 80_000
    assert pq.read_metadata(tmp_path / "part").num_rows == sum(min(rows, 30) for _ in range(100))
