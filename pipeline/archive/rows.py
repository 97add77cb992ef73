"""Rows by number, and row numbers by alert id, within one part."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.archive.pruning import Part
from pipeline.errors import InputError, PartError


def file_of(part: Part, dataset: str) -> str:
    """Return the file of one dataset of a part."""
    try:
        return part.files[dataset]
    except KeyError:
        raise InputError(f"night {part.night} has no {dataset}", part=part.name) from None


def ids_of(part: Part) -> NDArray[np.int64]:
    """Return the alert ids of a part, shape (n,), from the smallest dataset that has them."""
    dataset = next((name for name in ("science", "provenance", "alerts", "raw") if name in part.files), "science")
    with _opened(file_of(part, dataset)) as file:
        return file.read(columns=["alert_id"]).column("alert_id").to_numpy()


def rows_of_ids(part: Part, ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the row number of each id in a part, shape (n,); -1 where it is not there."""
    present = ids_of(part)
    if len(present) == 0:
        return np.full(len(ids), -1)
    order = np.argsort(present, kind="stable")
    at = np.minimum(np.searchsorted(present, ids, sorter=order), len(present) - 1)
    rows = order[at]
    return np.where(present[rows] == ids, rows, -1)


def read_rows(path: str, rows: NDArray[np.int64], columns: Sequence[str] | None = None) -> pa.Table:
    """Read rows by number, in the order given, opening only the row groups that hold them.

    Raises
    ------
    PartError
        The file is missing or damaged, or has no such row.
    """
    names = None if columns is None else list(columns)
    with _opened(path) as file:
        groups = range(file.metadata.num_row_groups)
        sizes = np.array([file.metadata.row_group(number).num_rows for number in groups], dtype=np.int64)
        starts = np.concatenate([[0], np.cumsum(sizes)])
        if len(rows) and (rows.min() < 0 or rows.max() >= starts[-1]):
            raise PartError("the datasets of the night do not have the same rows", part=path.rsplit("/", 1)[-1])
        group = np.searchsorted(starts, rows, side="right") - 1
        wanted = np.unique(group)
        if len(wanted) == 0:
            nothing = file.schema_arrow.empty_table()
            return nothing if names is None else nothing.select(names)
        table = file.read_row_groups(wanted.tolist(), columns=names)
    packed = np.concatenate([[0], np.cumsum(sizes[wanted])])
    place = np.searchsorted(wanted, group)
    return table.take(pa.array(packed[place] + rows - starts[group]))


def schema_of_file(path: str) -> pa.Schema:
    """Return the Arrow schema of a file, without the footer's own metadata."""
    with _opened(path) as file:
        return file.schema_arrow.remove_metadata()


def points_of(nested: pa.StructArray) -> pa.Table:
    """Return the lists of one row of struct-of-lists as columns."""
    fields = [pa.field(child.name, child.type.value_type, metadata=child.metadata) for child in nested.type]
    return pa.table([values.flatten() for values in nested.flatten()], schema=pa.schema(fields))


@contextmanager
def _opened(path: str) -> Iterator[pq.ParquetFile]:
    try:
        with pq.ParquetFile(path) as file:
            yield file
    except (OSError, pa.ArrowInvalid) as error:
        raise PartError(
            f"a file that the ledger lists cannot be read: {error}",
            mend="open the archive again if it was just rerun, else run `alertmill verify`",
        ) from error
