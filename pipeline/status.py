"""What is in an archive, and whether it is what the ledgers say."""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import dataclass
from typing import Any

from pipeline import paths
from pipeline.errors import ConservationError, InputError, LeaseError, StoreError
from pipeline.nights.commit import strays
from pipeline.nights.run import staging_lease
from pipeline.store import Root, hold, is_held, open_root, read_ledger, read_ledgers, release_dead
from pipeline.store.lease import night_lease
from pipeline.store.ledger import check_ledger, listed_files
from pipeline.store.parts import sha256_of
from pipeline.surveys import SURVEYS


def survey_ledgers(location: str, survey: str | None, night: int | None) -> dict[str, list[dict[str, Any]]]:
    """Return ledgers by survey, those of one night or all.

    Raises
    ------
    InputError
        There is no archive, or no such survey.
    """
    if survey is not None and survey not in SURVEYS:
        raise InputError(f"survey {survey!r} is not known", mend=f"known: {', '.join(SURVEYS)}")
    root = open_root(location)
    found: dict[str, list[dict[str, Any]]] = {}
    for name in [survey] if survey else list(SURVEYS):
        if night is None:
            chosen = list(read_ledgers(root, name).values())
        else:
            ledger = read_ledger(root, name, night)
            chosen = [] if ledger is None else [ledger]
        if chosen or survey:
            found[name] = chosen
    return found


@dataclass(frozen=True)
class Finding:
    """Something that is not as the ledger says: ``lost``, ``damaged`` or ``stray`` file, or ``unbalanced`` ledger."""

    survey: str
    night: str
    kind: str
    path: str
    detail: str = ""


def verify(
    location: str, survey: str | None = None, start: int | None = None, stop: int | None = None
) -> tuple[int, list[Finding]]:
    """Re-hash every listed file of a range of nights; return how many were read, and what was found.

    Nights that a run holds just now are not looked at for strays: it may be about to list them.

    Raises
    ------
    InputError
        There is no archive.
    """
    root = open_root(location)
    files, findings = 0, []
    for name in [survey] if survey else list(SURVEYS):
        for night in _nights_on_disk(root, name):
            if (start is not None and night < start) or (stop is not None and night > stop):
                continue
            count, found = _verify_night(root, name, night)
            files += count
            findings += found
    findings += _leftovers(root)
    return files, findings


def _nights_on_disk(root: Root, survey: str) -> list[int]:
    """Return the nights of which there is a ledger or any file, ``night=unknown`` as 0."""
    base = root.path(survey)
    names = [path.name.removesuffix(".json") for path in base.glob("ledger/night=*.json")]
    names += [path.name for depth in ("*", "*/*") for path in base.glob(f"{depth}/night=*") if path.is_dir()]
    nights = (paths.night_of_name(name) for name in names)
    return sorted({night for night in nights if night is not None})


def _verify_night(root: Root, survey: str, night: int) -> tuple[int, list[Finding]]:
    found = []
    name = paths.night_name(night).removeprefix("night=")
    place = paths.ledger_file(survey, night)
    try:
        ledger = read_ledger(root, survey, night)
    except StoreError as error:  # what it listed is not known: nothing here is a stray
        return 0, [Finding(survey, name, "damaged", place, str(error))]
    listed = {} if ledger is None else listed_files(ledger)
    if ledger is not None:
        try:
            check_ledger(ledger)
        except ConservationError as error:
            found.append(Finding(survey, name, "unbalanced", place, str(error)))
    for path, file in listed.items():
        if not root.exists(path):
            found.append(Finding(survey, name, "lost", path))
            continue
        try:
            is_whole = sha256_of(root.path(path)) == file["sha256"]
        except OSError as error:
            found.append(Finding(survey, name, "damaged", path, f"it cannot be read: {error.strerror or error}"))
        else:
            found += [] if is_whole else [Finding(survey, name, "damaged", path, "its sha256 is not the ledger's")]
    if not is_held(root, night_lease(survey, night)):
        found += [Finding(survey, name, "stray", path) for path in strays(root, survey, night, set(listed))]
    return len(listed), found


def _leftovers(root: Root) -> list[Finding]:
    """Return staging folders, leases and unfinished files of runs that no longer live."""
    found = [
        Finding("", "", "stray", path, "lease of a run that ended")
        for path in root.files(paths.LEASES, "*.json")
        if not is_held(root, path.rsplit("/", 1)[1].removesuffix(".json"))
    ]
    found += [Finding("", "", "stray", path, "unfinished, of a run that ended") for path in root.dead_temporaries()]
    staging = root.path(paths.STAGING)
    for folder in sorted(staging.iterdir()) if staging.is_dir() else []:
        if not is_held(root, staging_lease(folder.name)):
            relative = folder.relative_to(root.folder).as_posix()
            found.append(Finding("", "", "stray", relative, "staging of a run that ended; the same run would go on"))
    return found


def repair(location: str, findings: list[Finding]) -> list[str]:
    """Remove strays; a lost or damaged part can only come from its source again, which is told.

    What a run holds by now is left to it.

    Returns
    -------
    list of str
        What was done and what is left to do, one line each.
    """
    root = open_root(location)
    lines = []
    for finding in findings:
        if finding.kind == "stray":
            is_gone = _remove_stray(root, finding)
            lines.append(f"removed {finding.path}" if is_gone else f"left {finding.path}: a run holds it now")
    for name in {finding.path.split("/")[0] for finding in findings} & {paths.STAGING, paths.LEASES}:
        with contextlib.suppress(OSError):
            root.path(name).rmdir()
    for survey, name in sorted({(f.survey, f.night) for f in findings if f.kind in ("lost", "damaged", "unbalanced")}):
        try:
            ledger = read_ledger(root, survey, _night(name))
        except StoreError as error:
            lines.append(str(error))
            continue
        sources = ", ".join(entry["name"] for entry in ledger["sources"]) if ledger else "its sources"
        named = f" {name}" if name != "unknown" else ""
        lines.append(f"run again: alertmill run{named} --survey {survey} --input <{sources}> --force")
    return lines


def _night(name: str) -> int:
    return paths.UNKNOWN_NIGHT if name == "unknown" else int(name)


def _remove_stray(root: Root, finding: Finding) -> bool:
    """Remove a stray, unless a run holds what it belongs to."""
    top, _, name = finding.path.partition("/")
    if top == paths.LEASES and name.endswith(".json"):
        return release_dead(root, name.removesuffix(".json"))
    if top == paths.STAGING:
        with contextlib.suppress(LeaseError), hold(root, staging_lease(name)):
            shutil.rmtree(root.path(finding.path), ignore_errors=True)
            return True
        return False
    if not finding.night:
        root.remove(finding.path)
        return True
    night = _night(finding.night)
    with contextlib.suppress(LeaseError), hold(root, night_lease(finding.survey, night)):
        ledger = read_ledger(root, finding.survey, night)
        if ledger is None or finding.path not in listed_files(ledger):
            root.remove(finding.path)
        return True
    return False
