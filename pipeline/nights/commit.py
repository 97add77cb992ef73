"""The commit: files into place, then the ledger; a night changes at the moment its ledger is replaced."""

from __future__ import annotations

import json
import platform
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import pyarrow as pa

import pipeline
from pipeline import paths
from pipeline.errors import ConservationError
from pipeline.nights.run import Run
from pipeline.nights.settle import NightPlan
from pipeline.store import Root, write_ledger
from pipeline.store.ledger import check_ledger, listed_files

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
    """Put one night in place and write its ledger.

    Raises
    ------
    ConservationError
        The sums differ; nothing was moved.
    """
    ledger = _ledger(run, plan, finished)
    check_ledger(ledger)
    _check_rejects(ledger, finished)
    moves = _final_paths(run, plan.night, ledger)
    for origin, destination in sorted(moves.items(), key=lambda move: ("/science/" in move[1], move[1])):
        run.root.move(origin, destination)
    change = _change(plan, ledger)
    write_ledger(run.root, ledger, plan.night)
    _sweep_night(run.root, run.survey, plan.night, ledger)
    return ledger, change


def _ledger(run: Run, plan: NightPlan, finished: Mapping[str, Any]) -> dict[str, Any]:
    sources = [plan.sources[name] for name in sorted(plan.sources)]
    reasons: dict[str, int] = {}
    for entry in sources:
        for reason, count in entry["reasons"].items():
            reasons[reason] = reasons.get(reason, 0) + count
    before = plan.before or {}
    releases = dict(before.get("releases", {}))
    releases[run.config.release] = {"definitions": run.definitions}
    night_files = {**before.get("night_files", {}), **finished["files"]}
    sizes: dict[str, int] = {}
    ledger: dict[str, Any] = {
        "layout": paths.LAYOUT_VERSION,
        "survey": run.survey,
        "night": paths.night_name(plan.night).removeprefix("night="),
        "status": "complete",
        "revision": int(before.get("revision", 0)) + 1,
        "release": run.config.release,
        "counts": plan.counts,
        "reasons": dict(sorted(reasons.items())),
        "notes": dict(sorted(plan.notes.items())),
        "sources": sources,
        "parts": plan.parts,
        "night_files": night_files,
        "bytes": sizes,
        "groups": run.recipe.describe(run.definitions),
        "releases": releases,
        "timing": run.timing,
        "environment": _environment(),
        "settings": run.config.model_dump(mode="json", exclude={"root", "execution", "alarm"}),
    }
    for file in listed_files(ledger).values():
        dataset = _dataset_of(file, ledger)
        sizes[dataset] = sizes.get(dataset, 0) + file["bytes"]
    return ledger


def _dataset_of(file: Mapping[str, Any], ledger: Mapping[str, Any]) -> str:
    for part in ledger["parts"]:
        for dataset, entry in part["files"].items():
            if entry is file:
                return dataset
    return next(name for name, group in ledger["night_files"].items() if any(entry is file for entry in group))


def _check_rejects(ledger: Mapping[str, Any], finished: Mapping[str, Any]) -> None:
    """Every packet that is counted as refused stands in the rejects dataset."""
    for entry in ledger["sources"]:
        counts = entry["counts"]
        told = counts["conflicting"] + counts["rejected"] + counts["cut"] + counts["other_night"]
        kept = finished["rejects"].get(entry["name"], 0)
        if told != kept:
            raise ConservationError(
                f"{ledger['survey']} {ledger['night']}: {told} packets were refused, {kept} stand in rejects",
                source=entry["name"],
            )


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


def _sweep_night(root: Root, survey: str, night: int, ledger: Mapping[str, Any]) -> None:
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


def save_schemas(run: Run, schemas: Mapping[str, str]) -> None:
    """Keep every writer schema that was met: with it rows of ``raw`` turn back into packets."""
    for identity, text in schemas.items():
        relative = paths.schema_file(run.survey, identity)
        if not run.root.exists(relative):
            run.root.write_text(relative, text + "\n")


def save_release_schema(run: Run, schema: pa.Schema) -> None:
    """Widen the release's one science schema by columns that are new in it."""
    relative = paths.release_schema_file(run.survey, run.config.release)
    path = run.root.path(relative)
    if path.is_file():
        with pa.ipc.open_file(path) as file:
            known = file.schema
        schema = pa.unify_schemas([known, schema])
        if schema.equals(known, check_metadata=True):
            return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    with pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_file(sink, schema):
        pass
    temporary.replace(path)
    releases = f"{run.survey}/science/releases.json"
    if not run.root.exists(releases):
        run.root.write_text(releases, json.dumps({"main": run.config.release}) + "\n")


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
