"""Effects on the root: parts, ledgers, leases, staging and the commit."""

from __future__ import annotations

from pipeline.store.lease import Lease, hold, is_held, release_dead
from pipeline.store.ledger import read_ledger, read_ledgers, write_ledger
from pipeline.store.parts import FileReceipt, read_table, write_part
from pipeline.store.root import Root, open_root

__all__ = [
    "FileReceipt",
    "Lease",
    "Root",
    "hold",
    "is_held",
    "open_root",
    "read_ledger",
    "read_ledgers",
    "read_table",
    "release_dead",
    "write_ledger",
    "write_part",
]
