"""How far a decode task has come, kept in its run's staging, so that a killed task goes on where its last part ended.

A source of any other kind is cut into segments of about a part each; a ``.tar.gz`` is one segment, however large it is.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from pipeline.dumps import Mark, SeekPoint, SeekPoints, Start, Tally
from pipeline.store import Root

State = dict[str, Any]
"""What a task knows at the end of a part, and all it needs to go on from there; JSON."""
FORMAT = 1
"""Of the file: a file of another one is not taken up."""


class Progress:
    """Of one task on a ``.tar.gz``: what an earlier one has kept, and what this one keeps.

    What is damaged, of another task, or lists files that are not there as they were written, is as if it were not
    there.

    Parameters
    ----------
    root : Root
        The root.
    relative : str
        The file, in the staging.
    identity : mapping
        All that decides what the task gives; JSON.

    Attributes
    ----------
    state : dict or None
        Of :class:`pipeline.nights.decode.SegmentWriter`, where the earlier task ended.
    start : Start or None
        Where to read on from there.
    tally : Tally
        To be filled by reading, with what was read before.
    """

    def __init__(self, root: Root, relative: str, identity: Mapping[str, Any]) -> None:
        self._root = root
        self._relative = relative
        self._identity = {**identity, "format": FORMAT}
        self.state: State | None = None
        self.start: Start | None = None
        self.tally = Tally(points=SeekPoints())
        kept = self._kept()
        if kept is not None and _is_whole(root, kept["state"]["staged"]):
            self.state = kept["state"]
            point = None if kept["point"] is None else _point(kept["point"])
            self.start = Start(self.state["counted"]["packets"], Mark(**kept["mark"]), point)
            self.tally = Tally(skipped=kept["skipped"], points=SeekPoints(points=[] if point is None else [point]))

    def keep(self, state: State) -> None:
        """Write the state at the end of a part, whose files are durable, and where to read on."""
        start = self.tally.start_at(state["counted"]["packets"])
        point = start.point
        kept = {
            "identity": self._identity,
            "state": state,
            "mark": asdict(start.mark),
            "skipped": self.tally.skipped[: start.mark.skipped],
            "point": None if point is None else {**asdict(point), "window": base64.b64encode(point.window).decode()},
        }
        text = json.dumps(kept).encode()
        self._root.write_bytes(self._relative, _digest(text) + b"\n" + text)

    def _kept(self) -> dict[str, Any] | None:
        try:
            digest, _, text = self._root.path(self._relative).read_bytes().partition(b"\n")
        except OSError:
            return None
        if digest != _digest(text):
            return None
        kept: dict[str, Any] = json.loads(text)
        return kept if kept["identity"] == self._identity else None


def _digest(text: bytes) -> bytes:
    return hashlib.sha256(text).hexdigest().encode()


def _point(kept: Mapping[str, Any]) -> SeekPoint:
    return SeekPoint(**{**kept, "window": base64.b64decode(kept["window"])})


def _is_whole(root: Root, staged: Mapping[str, Any]) -> bool:
    """Whether every file of the parts that ended is there, with its size."""
    files = [file for part in staged["parts"] for file in part["files"].values()]
    files += [file for group in staged["rejects"].values() for file in group]
    try:
        return all(root.path(file["path"]).stat().st_size == file["bytes"] for file in files)
    except OSError:
        return False
