"""The ingest of the peer, another broker, written anew from its published steps: a stand-in, not its code.

Per packet ``next(fastavro.reader(...))``, rows to a pandas frame, the frame to an Arrow table of a declared schema, the
table with its stamps to snappy Parquet; then its quality cut. Batches as its Kafka partitions give them.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import fastavro
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

BATCH = 625


def ingest(packets: Sequence[bytes], schema: pa.Schema, folder: Path) -> int:
    """Write the packets as Parquet; return how many pass the quality cut."""
    passed = 0
    for start in range(0, len(packets), BATCH):
        rows = [next(fastavro.reader(io.BytesIO(packet))) for packet in packets[start : start + BATCH]]
        table = pa.Table.from_pandas(pd.DataFrame.from_records(rows), schema=schema, preserve_index=False)
        pq.write_table(table, folder / f"part-{start:08d}.parquet", compression="snappy")
        passed += cut(table).num_rows
    return passed


def cut(table: pa.Table) -> pa.Table:
    """Return the rows that the peer processes: ``nbad == 0`` and ``rb >= 0.55``."""
    candidate = table.column("candidate")
    good = pc.equal(pc.struct_field(candidate, "nbad"), 0)
    return table.filter(pc.and_(good, pc.greater_equal(pc.struct_field(candidate, "rb"), 0.55)))
