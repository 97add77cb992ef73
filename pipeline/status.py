"""What is in an archive, and whether it is what the ledgers say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipeline import paths
from pipeline.errors import InputError
from pipeline.nights.commit import strays
from pipeline.store import Root, open_root, read_ledgers
from pipeline.store.lease import is_held
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
        ledgers = read_ledgers(root, name)
        chosen = [ledger for key, ledger in ledgers.items() if night is None or key == night]
        if ledgers or survey:
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

    Raises
    ------
    InputError
        There is no archive.
    """
    root = open_root(location)
    files, findings = 0, []
    for name in [survey] if survey else list(SURVEYS):
        for night, ledger in read_ledgers(root, name).items():
            if (start is not None and night < start) or (stop is not None and night > stop):
                continue
            files += len(listed_files(ledger))
            findings += _verify_night(root, name, night, ledger)
    findings += _leftovers(root)
    return files, findings


def _verify_night(root: Root, survey: str, night: int, ledger: dict[str, Any]) -> list[Finding]:
    found = []
    name = ledger["night"]
    try:
        check_ledger(ledger)
    except Exception as error:
        found.append(Finding(survey, name, "unbalanced", paths.ledger_file(survey, night), str(error)))
    listed = listed_files(ledger)
    for path, file in listed.items():
        if not root.exists(path):
            found.append(Finding(survey, name, "lost", path))
        elif sha256_of(root.path(path)) != file["sha256"]:
            found.append(Finding(survey, name, "damaged", path, "its sha256 is not the ledger's"))
    found += [Finding(survey, name, "stray", path) for path in strays(root, survey, night, set(listed))]
    return found


def _leftovers(root: Root) -> list[Finding]:
    """Return staging folders and leases of runs that no longer live."""
    found = [
        Finding("", "", "stray", path, "lease of a run that ended")
        for path in root.files(paths.LEASES, "*.json")
        if not is_held(root, path.rsplit("/", 1)[1].removesuffix(".json"))
    ]
    staging = root.path(paths.STAGING)
    for folder in sorted(staging.iterdir()) if staging.is_dir() else []:
        survey, _, key = folder.name.rpartition("-")
        if not is_held(root, f"{survey}-run-{key}"):
            relative = folder.relative_to(root.folder).as_posix()
            found.append(Finding("", "", "stray", relative, "staging of a run that ended; the same run would go on"))
    return found


def repair(location: str, findings: list[Finding]) -> list[str]:
    """Remove strays; a lost or damaged part can only come from its source again, which is told.

    Returns
    -------
    list of str
        What was done and what is left to do, one line each.
    """
    import shutil

    root = open_root(location)
    lines = []
    for finding in findings:
        if finding.kind == "stray":
            path = root.path(finding.path)
            if path.is_dir():
                shutil.rmtree(path)
            else:
                root.remove(finding.path)
            lines.append(f"removed {finding.path}")
    broken = sorted({(f.survey, f.night) for f in findings if f.kind in ("lost", "damaged", "unbalanced")})
    for survey, night in broken:
        ledger = next((one for one in read_ledgers(root, survey).values() if one["night"] == night), None)
        sources = ", ".join(entry["name"] for entry in ledger["sources"]) if ledger else "its sources"
        named = f" {night}" if night != "unknown" else ""
        lines.append(f"run again: alertmill run{named} --survey {survey} --input <{sources}> --force")
    return lines
