"""Columns of a catalog as a memory-mapped Arrow file: any rows are taken without reading the others.

The file is Arrow IPC, uncompressed, in record batches of :data:`BATCH` rows (the last one shorter), so that the batch
of a row is its number divided by a constant and only the pages that hold the rows asked for are touched.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

BATCH = 262_144


class PayloadWriter:
    """Write tables, of whatever lengths, one after the other; use as a context."""

    def __init__(self, file: Path, schema: pa.Schema) -> None:
        self._schema = schema
        self._writer = pa.ipc.new_file(str(file), schema)
        self._waiting: list[pa.Table] = []
        self._rows = 0

    def __enter__(self) -> PayloadWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and self._rows:
            self._flush(pa.concat_tables(self._waiting))
        self._writer.close()

    def write(self, table: pa.Table) -> None:
        """Append rows of the schema that the writer was made with."""
        self._waiting.append(table.cast(self._schema))
        self._rows += len(table)
        if self._rows >= BATCH:
            whole = pa.concat_tables(self._waiting)
            full = self._rows - self._rows % BATCH
            for start in range(0, full, BATCH):
                self._flush(whole.slice(start, BATCH))
            self._waiting, self._rows = [whole.slice(full)], self._rows - full

    def _flush(self, table: pa.Table) -> None:
        for batch in table.combine_chunks().to_batches():  # one, or none of no rows
            self._writer.write_batch(batch)


class Payload:
    """Columns that :class:`PayloadWriter` wrote, by row.

    Parameters
    ----------
    file : path
        The file; it is mapped, not read.

    Raises
    ------
    OSError, pyarrow.ArrowException, ValueError
        The file is absent or no such file.
    """

    def __init__(self, file: Path) -> None:
        self._reader = pa.ipc.open_file(pa.memory_map(str(file)))
        self.schema: pa.Schema = self._reader.schema
        self._batches = [self._reader.get_batch(number) for number in range(self._reader.num_record_batches)]
        sizes = [batch.num_rows for batch in self._batches]
        if any(size != BATCH for size in sizes[:-1]) or any(not 0 < size <= BATCH for size in sizes[-1:]):
            raise ValueError("record batches are of other sizes")
        self.rows = sum(sizes)

    def take(self, rows: NDArray[np.int64], names: Sequence[str]) -> pa.Table:
        """Return some rows, in any order, repeated or not.

        Raises
        ------
        IndexError
            A row is not in the file.
        """
        rows = np.asarray(rows, dtype=np.int64)
        schema = pa.schema([self.schema.field(name) for name in names])
        if not len(rows) or not names:
            return schema.empty_table()
        if rows.min() < 0 or rows.max() >= self.rows:
            raise IndexError(f"row {rows.min() if rows.min() < 0 else rows.max()} of {self.rows}")
        number = rows // BATCH
        if number.min() == number.max():
            return pa.table(self._take(int(number[0]), rows % BATCH, names), schema=schema)
        # Batch by batch, then back into the order asked for.
        order = np.argsort(number, kind="stable")
        used, starts = np.unique(number[order], return_index=True)
        within = (rows % BATCH)[order]
        pieces = [
            pa.record_batch(self._take(int(batch), part, names), schema=schema)
            for batch, part in zip(used, np.split(within, starts[1:]), strict=True)
        ]
        whole = pa.Table.from_batches(pieces, schema).combine_chunks()
        if (np.diff(number) >= 0).all():
            return whole
        back = np.empty_like(order)
        back[order] = np.arange(len(order))
        return whole.take(pa.array(back))

    def slices(self, start: int, stop: int) -> Iterator[pa.Table]:
        """Yield the rows from ``start`` to ``stop`` in pieces, without copying them."""
        while start < stop:
            batch = self._batches[start // BATCH]
            piece = batch.slice(start % BATCH, stop - start)
            yield pa.Table.from_batches([piece], self.schema)
            start += piece.num_rows

    def _take(self, number: int, rows: NDArray[np.int64], names: Sequence[str]) -> list[pa.Array]:
        batch = self._batches[number]
        at = pa.array(rows)
        return [batch.column(name).take(at) for name in names]
