"""The commit: files into place, then the ledger; a night changes at the moment its ledger is replaced."""

from __future__ import annotations

import platform
import socket
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import pipeline
from pipeline import paths
from pipeline.errors import LeaseError, PartError
from pipeline.nights.enrich import science_dataset
from pipeline.nights.enrichment import describe
from pipeline.nights.run import Run, release_entry
from pipeline.nights.settle import NightPlan
from pipeline.store import Root, read_ledger, write_ledger
from pipeline.store.ledger import check_ledger, links_dataset, listed_files

_LIBRARIES = ("numpy", "pyarrow", "fastavro", "astropy", "numba", "scipy", "light-curve", "xgboost-cpu", "dask")


@dataclass(frozen=True)
class Change:
    """What a commit changed, by part name."""

    night: int
    added: tuple[str, ...]
    replaced: tuple[str, ...]
    removed: tuple[str, ...]
    unchanged: int

    @property
    def is_empty(self) -> bool:
        """Whether nothing changed."""
        return not (self.added or self.replaced or self.removed)


def commit_night(run: Run, plan: NightPlan, finished: Mapping[str, Any]) -> tuple[dict[str, Any], Change]:
    """Put one night in place and write its ledger. The run holds the night's lease.

    Raises
    ------
    ConservationError
        The sums differ; nothing was moved.
    LeaseError
        Another run has taken the night over; the night is as that run leaves it.
    PartError
        The disk refused.
    """
    ledger = _ledger(run, plan, finished)
    check_ledger(ledger)
    moves = _final_paths(run, plan.night, ledger)
    try:
        _fence(run, plan)
        run.root.move(dict(sorted(moves.items(), key=lambda move: ("/science/" in move[1], move[1]))))
        _fence(run, plan)
        write_ledger(run.root, ledger, plan.night)
    except OSError as error:
        raise PartError(
            f"the night cannot be committed: {error.strerror or error}", mend="free some space, or mend its rights"
        ) from error
    sweep_night(run.root, run.survey, plan.night, ledger)
    return ledger, _change(plan, ledger)


def _fence(run: Run, plan: NightPlan) -> None:
    """Raise :class:`LeaseError` unless the night is still this run's and as it was when the run settled it."""
    run.leases[plan.night].check()
    before, now = plan.before, read_ledger(run.root, run.survey, plan.night)
    if (before or {}).get("revision") != (now or {}).get("revision"):
        raise LeaseError(f"{paths.night_name(plan.night)} was changed by another run meanwhile", mend="run again")


def _ledger(run: Run, plan: NightPlan, finished: Mapping[str, Any]) -> dict[str, Any]:
    sources = [plan.sources[name] for name in sorted(plan.sources)]
    before = plan.before or {}
    kept = _other_releases(run, plan)
    releases = {name: entry for name, entry in before.get("releases", {}).items() if name in kept}
    releases[run.config.release] = release_entry(run)
    links = {links_dataset(name): before["night_files"].get(links_dataset(name), []) for name in kept}
    night_files = {
        "exposures": finished["files"]["exposures"],
        **links,
        links_dataset(run.config.release): finished["files"]["links"],
        "rejects": plan.rejects,
    }
    return {
        "layout": paths.LAYOUT_VERSION,
        "survey": run.survey,
        "night": paths.night_name(plan.night).removeprefix("night="),
        "status": "complete",
        "revision": int(before.get("revision", 0)) + 1,
        "release": run.config.release,
        "counts": plan.counts,
        "reasons": _sum(entry["reasons"] for entry in sources),
        "notes": _sum([*(entry["notes"] for entry in sources), plan.notes]),
        "sources": sources,
        "parts": plan.parts,
        "night_files": night_files,
        "bytes": _sizes(plan.parts, night_files),
        "groups": describe(run.recipe, run.definitions),
        "work": {name: dict(sorted(parts.items())) for name, parts in plan.work.items()},
        "releases": releases,
        "timing": run.timing,
        "environment": _environment(),
        "settings": run.config.model_dump(mode="json", exclude={"root", "execution", "alarm"}),
    }


def _other_releases(run: Run, plan: NightPlan) -> list[str]:
    """Return the other releases that stay; their files are put into the plan.

    A release is of the night's alerts, all of them: where these changed, its science and links go, and are made again
    when that release is run.
    """

    def alerts(parts: Sequence[Mapping[str, Any]]) -> dict[str, str]:
        return {part["name"]: part["files"]["alerts"]["sha256"] for part in parts}

    before = plan.before or {"parts": [], "releases": {}}
    others = [name for name in before["releases"] if name != run.config.release]
    former = {part["name"]: part["files"] for part in before["parts"]}
    is_same = alerts(before["parts"]) == alerts(plan.parts)
    for part in plan.parts:
        for dataset in map(science_dataset, others):
            part["files"].pop(dataset, None)
            if is_same and dataset in former[part["name"]]:
                part["files"][dataset] = former[part["name"]][dataset]
    if others and not is_same:
        run.observer.note(
            f"{paths.night_name(plan.night)}: its alerts changed; release {', '.join(others)} has to be run again"
        )
    return others if is_same else []


def _sum(many: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for counts in many:
        total.update(counts)
    return dict(sorted(total.items()))


def _sizes(
    parts: Sequence[Mapping[str, Any]], night_files: Mapping[str, Sequence[Mapping[str, Any]]]
) -> dict[str, int]:
    sizes: Counter[str] = Counter()
    for part in parts:
        sizes.update({dataset: file["bytes"] for dataset, file in part["files"].items()})
    for dataset, group in night_files.items():
        sizes.update({dataset: sum(file["bytes"] for file in group)} if group else {})
    return dict(sizes)


def _final_paths(run: Run, night: int, ledger: dict[str, Any]) -> dict[str, str]:
    """Give every staged file its final path in the ledger; return the moves."""
    moves: dict[str, str] = {}
    for part in ledger["parts"]:
        for dataset, file in part["files"].items():
            _place(file, dataset, run, night, moves)
    for dataset, group in ledger["night_files"].items():
        for file in group:
            _place(file, dataset, run, night, moves)
    return moves


def _place(file: dict[str, Any], dataset: str, run: Run, night: int, moves: dict[str, str]) -> None:
    if file["path"].startswith(f"{paths.STAGING}/"):
        folder = paths.dataset_folder(run.survey, dataset.split("/")[0], night, run.config.release)
        destination = f"{folder}/{file['path'].rsplit('/', 1)[1]}"
        moves[file["path"]] = destination
        file["path"] = destination


def _change(plan: NightPlan, ledger: Mapping[str, Any]) -> Change:
    def hashes(parts: list[dict[str, Any]]) -> dict[str, list[str]]:
        return {part["name"]: [part["files"][d]["sha256"] for d in sorted(part["files"])] for part in parts}

    old, new = hashes((plan.before or {}).get("parts", [])), hashes(ledger["parts"])
    return Change(
        plan.night,
        tuple(name for name in new if name not in old),
        tuple(name for name in new if name in old and old[name] != new[name]),
        tuple(name for name in old if name not in new),
        sum(1 for name in new if old.get(name) == new[name]),
    )


def sweep_night(root: Root, survey: str, night: int, ledger: Mapping[str, Any]) -> None:
    """Remove the files of this night that the new ledger does not list: former parts, leftovers of a killed commit."""
    listed = set(listed_files(ledger))
    for relative in strays(root, survey, night, listed):
        root.remove(relative)


def strays(root: Root, survey: str, night: int, listed: set[str]) -> list[str]:
    """Return the files in a night's folders that are not listed."""
    base, name = root.path(survey), paths.night_name(night)
    folders = [folder for folder in sorted(base.iterdir()) if folder.is_dir()] if base.is_dir() else []
    for dataset in paths.RELEASED_DATASETS:
        released = base / dataset
        folders += [folder for folder in sorted(released.iterdir()) if folder.is_dir()] if released.is_dir() else []
    found = []
    for folder in folders:
        relative = (folder / name).relative_to(root.folder).as_posix()
        found += [path for path in root.files(relative) if path not in listed]
    return found


def saved_schemas(run: Run) -> dict[str, str]:
    """Return the writer schemas that the archive has, by id."""
    known = {}
    for relative in run.root.files(f"{run.survey}/schemas", "*.avsc"):
        version, _, digest = relative.rsplit("/", 1)[1].removesuffix(".avsc").rpartition("-")
        known[f"{version}:{digest}"] = run.root.path(relative).read_text(encoding="utf-8")
    return known


def save_schemas(run: Run, schemas: Mapping[str, str]) -> None:
    """Keep every writer schema that was met: with it rows of ``raw`` turn back into packets."""
    for identity, text in schemas.items():
        relative = paths.schema_file(run.survey, identity)
        if not run.root.exists(relative):
            run.root.write_text(relative, text + "\n")


@lru_cache
def _environment() -> dict[str, Any]:
    from importlib.metadata import PackageNotFoundError, version

    versions = {}
    for library in _LIBRARIES:
        try:
            versions[library] = version(library)
        except PackageNotFoundError:
            continue
    return {
        "alertmill": pipeline.__version__,
        "python": platform.python_version(),
        "host": socket.gethostname(),
        "machine": platform.machine(),
        "libraries": versions,
    }
