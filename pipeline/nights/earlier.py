"""What an earlier science part has that still holds: column groups whose key would be the same again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import PartError
from pipeline.stages.groups import Group
from pipeline.store import Root, read_table
from pipeline.store.parts import sha256_of


@dataclass(frozen=True)
class EarlierFile:
    """A science part that a ledger lists: path relative to the root, and sha256."""

    path: str
    sha256: str


@dataclass(frozen=True)
class Earlier:
    """Column groups to copy.

    Attributes
    ----------
    keys : mapping of str to str
        Key of each column group in the part.
    content : mapping of str to str
        Content hash of each of its columns.
    columns : pyarrow.Table or None
        The columns of ``keys``' groups that were asked for.
    """

    keys: Mapping[str, str] = field(default_factory=dict)
    content: Mapping[str, str] = field(default_factory=dict)
    columns: pa.Table | None = None

    def group(self, group: Group, key: str) -> pa.Table | None:
        """Return the columns of a group if they were computed with this very key; None if they have to be."""
        if self.columns is None or self.keys.get(group.name) != key:
            return None
        present = self.columns.schema
        if not all(
            item.name in present.names and present.field(item.name).type == item.type for item in group.produces
        ):
            return None
        return self.columns.select([item.name for item in group.produces])


def read_earlier(
    root: Root, files: Sequence[EarlierFile], content: Mapping[str, str], groups: Sequence[Group]
) -> Earlier:
    """Read what earlier parts of the same alerts have, from the first that can be used.

    A part is used if it is the one its ledger lists, byte for byte, and holds the same alerts in the same order; one
    that is damaged or gone is passed over, and everything is computed.

    Parameters
    ----------
    root : Root
        The archive.
    files : sequence of EarlierFile
        The part as it stands, in this release or another; the first comes first.
    content : mapping
        Content hashes of the present columns; that of ``alert_id`` tells whether the rows are the same.
    groups : sequence of Group
        What is to be computed.
    """
    for file in files:
        path = root.path(file.path)
        try:
            if sha256_of(path) != file.sha256:
                continue
            footer = pq.read_metadata(path).metadata or {}
            known = json.loads(footer[b"alertmill.content"])
            keys = json.loads(footer[b"alertmill.keys"])
            if known["alert_id"] != content["alert_id"]:
                continue
            wanted = [item.name for group in groups if group.name in keys for item in group.produces]
            present = [name for name in wanted if name in known]
            return Earlier(keys, known, read_table(path, present))
        except (OSError, PartError, ValueError, KeyError, TypeError, pa.ArrowException):
            continue  # whatever is wrong with a file that is only spared work: compute
    return Earlier()
