"""Every real sky map at hand: files, and those within alerts."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def real_maps(shared_data: Path, *, largest_bytes: int = 1 << 40) -> dict[str, bytes]:
    """Return the bytes of each map by where it was found."""
    folder = shared_data / "skymaps"
    files = [file for file in sorted(folder.glob("*.fits*")) if file.stat().st_size <= largest_bytes]
    found = {file.name: file.read_bytes() for file in files}
    alerts = [*(folder / "lvk_alert_json").glob("*.json*"), *(folder / "gcn_notices" / "lvk").glob("*.txt.gz")]
    for file in sorted(alerts):
        data = file.read_bytes()
        alert = json.loads(gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data)
        found |= {f"{file.name} {place}": content for place, content in _within(alert, "alert")}
    return found


def _within(value: Any, place: str) -> Iterator[tuple[str, bytes]]:
    for name, item in value.items() if isinstance(value, dict) else ():
        if isinstance(item, dict):
            yield from _within(item, name)
        elif "skymap" in name and isinstance(item, str) and len(item) > 10_000:
            yield f"{place}.{name}", base64.b64decode(item)
