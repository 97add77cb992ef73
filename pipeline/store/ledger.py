"""The conservation ledger of a night: a night exists when its ledger does."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from pipeline import paths
from pipeline.errors import ConservationError, StoreError
from pipeline.store.root import Root

COUNTS = ("packets_in", "written", "duplicates", "conflicting", "rejected", "cut", "other_night")
REFUSED = ("conflicting", "rejected", "cut", "other_night")
"""The counts of packets that stand in ``rejects``."""


_NEEDED = {"survey", "night", "counts", "sources", "parts", "night_files"}
_MEND = "restore it from a backup, or delete it and run all dumps of that night again"


def zero_counts() -> dict[str, int]:
    """Return the seven counts, all zero."""
    return dict.fromkeys(COUNTS, 0)


def add_counts(many: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Return the sum of several counts."""
    total = zero_counts()
    for counts in many:
        for name in COUNTS:
            total[name] += counts[name]
    return total


def check_balance(counts: Mapping[str, int], *, what: str) -> None:
    """Raise :class:`ConservationError` unless every packet that came in stands in exactly one other count."""
    out = sum(counts[name] for name in COUNTS[1:])
    if counts["packets_in"] != out or min(counts[name] for name in COUNTS) < 0:
        told = ", ".join(f"{name} {counts[name]}" for name in COUNTS)
        raise ConservationError(f"{what}: the ledger does not balance: {told}")


def check_ledger(ledger: Mapping[str, Any]) -> None:
    """Check that a ledger balances: as a whole, by source, and against its parts' rows.

    Raises
    ------
    ConservationError
        A sum differs, with the place named.
    """
    what = f"{ledger['survey']} {ledger['night']}"
    check_balance(ledger["counts"], what=what)
    for source in ledger["sources"]:
        check_balance(source["counts"], what=f"{what}, source {source['name']}")
    total = add_counts(source["counts"] for source in ledger["sources"])
    if total != dict(ledger["counts"]):
        raise ConservationError(f"{what}: the sources' counts {total} do not add up to the night's {ledger['counts']}")
    rows = sum(part["rows"] for part in ledger["parts"])
    if rows != ledger["counts"]["written"]:
        raise ConservationError(f"{what}: {rows} rows stand in parts, {ledger['counts']['written']} were counted")
    for part in ledger["parts"]:
        for dataset, file in part["files"].items():
            if file["rows"] != part["rows"]:
                raise ConservationError(
                    f"{what}: {dataset} of {part['name']} has {file['rows']} rows, not {part['rows']}"
                )
    _check_rejects(ledger, what)


def _check_rejects(ledger: Mapping[str, Any], what: str) -> None:
    """Every packet that is counted as refused stands in the rejects dataset, by source."""
    kept: Counter[str] = Counter()
    for file in ledger["night_files"]["rejects"]:
        kept[file["source"]] += file["rows"]
    for source in ledger["sources"]:
        told = sum(source["counts"][name] for name in REFUSED)
        if told != kept.pop(source["name"], 0):
            raise ConservationError(
                f"{what}: {told} packets were refused, another number stands in rejects", source=source["name"]
            )
    if kept:
        raise ConservationError(f"{what}: rejects are listed of {', '.join(sorted(kept))}, which is no source")


def links_dataset(release: str) -> str:
    """Return the name under which a ledger lists the links of a release."""
    return "links" if release == "main" else f"links/{release}"


def read_ledger(root: Root, survey: str, night: int) -> dict[str, Any] | None:
    """Return a night's ledger, or None if the night does not exist.

    Raises
    ------
    StoreError
        The file is damaged.
    """
    path = root.path(paths.ledger_file(survey, night))
    try:
        ledger = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (ValueError, OSError) as error:
        raise StoreError(
            f"ledger {path.name} of {survey} cannot be read: {error}",
            mend=_MEND,
        ) from error
    layout = ledger.get("layout") if isinstance(ledger, dict) else None
    if isinstance(layout, int) and layout > paths.LAYOUT_VERSION:
        raise StoreError(f"ledger {path.name} of {survey} is of a newer layout", mend="use a newer alertmill")
    if layout is None or _NEEDED - set(ledger):
        raise StoreError(f"ledger {path.name} of {survey} is no ledger", mend=_MEND)
    return dict(ledger)


def read_ledgers(root: Root, survey: str) -> dict[int, dict[str, Any]]:
    """Return the ledgers of all nights of a survey by night, ``night=unknown`` as 0."""
    found = {}
    for relative in root.files(f"{survey}/ledger", "night=*.json"):
        night = paths.night_of_name(relative.rsplit("/", 1)[1].removesuffix(".json"))
        ledger = None if night is None else read_ledger(root, survey, night)
        if night is not None and ledger is not None:
            found[night] = ledger
    return dict(sorted(found.items()))


def write_ledger(root: Root, ledger: Mapping[str, Any], night: int) -> None:
    """Write a night's ledger: the moment at which the night exists or changes."""
    check_ledger(ledger)
    text = json.dumps(ledger, indent=1, sort_keys=False, allow_nan=False)
    root.write_text(paths.ledger_file(ledger["survey"], night), text + "\n")


def listed_files(ledger: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return every file that a ledger lists, by path relative to the root."""
    files = {file["path"]: file for part in ledger["parts"] for file in part["files"].values()}
    files.update({file["path"]: file for group in ledger["night_files"].values() for file in group})
    return files
