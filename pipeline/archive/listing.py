"""What ledgers list: parts, releases, and the schema that files have in common."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from pipeline import paths
from pipeline.archive.pruning import Part
from pipeline.archive.rows import schema_of_file
from pipeline.errors import StoreError
from pipeline.store.ledger import links_dataset
from pipeline.store.root import Root
from pipeline.tables import ALERTS, EXPOSURES, FLAT, LINKS, PROVENANCE, REJECTS

DECLARED = {
    "science": FLAT,
    "alerts": ALERTS,
    "provenance": PROVENANCE,
    "rejects": REJECTS,
    "exposures": EXPOSURES,
    "links": LINKS,
}
"""Schemas to answer with where no file exists yet."""


def parts_of(root: Root, survey: str, night: int, ledger: Mapping[str, Any], dataset: str, release: str) -> list[Part]:
    """Return what a ledger lists for a dataset; a file of a whole night counts as a part too.

    Parameters
    ----------
    release : str
        Release of the science and links files.
    """
    if dataset not in paths.PART_DATASETS:
        name = links_dataset(release) if dataset == "links" else dataset
        files = ledger["night_files"].get(name) or []
        return [
            Part(survey, night, file["path"], int(file["rows"]), {dataset: str(root.path(file["path"]))})
            for file in files
        ]
    listed = []
    for part in ledger["parts"]:
        files = {name: str(root.path(file["path"])) for name, file in part["files"].items()}
        chosen = files.get("science" if release == "main" else f"science/{release}")
        if chosen is not None:
            files["science"] = chosen
        else:
            files.pop("science", None)
        if dataset in files:
            cells = part.get("cells")
            listed.append(
                Part(
                    survey,
                    night,
                    part["name"],
                    int(part["rows"]),
                    files,
                    part.get("mjd_min"),
                    part.get("mjd_max"),
                    None if cells is None else tuple(cells),
                )
            )
    return listed


def releases_of(ledger: Mapping[str, Any]) -> set[str]:
    """Return the releases that a night has."""
    return {str(ledger["release"]), *ledger.get("releases", {})}


def resolve_release(root: Root, survey: str, release: str) -> str:
    """Return the release that a name stands for; ``science/releases.json`` resolves ``main``.

    Raises
    ------
    StoreError
        That file is damaged.
    """
    try:
        named = json.loads(root.path(f"{survey}/science/releases.json").read_text(encoding="utf-8"))
        return str(named.get(release, release))
    except FileNotFoundError:
        return release
    except (OSError, ValueError, AttributeError) as error:
        raise StoreError(f"science/releases.json of {survey} cannot be read: {error}") from error


def release_schema(root: Root, survey: str, release: str) -> pa.Schema | None:
    """Return the one schema of a release's science, None if none is kept."""
    path = root.path(paths.release_schema_file(survey, release))
    if not path.is_file():
        return None
    try:
        with pa.ipc.open_file(path) as file:
            return file.schema.remove_metadata()
    except (OSError, pa.ArrowInvalid) as error:
        raise StoreError(f"the schema of release {release} of {survey} cannot be read: {error}") from error


def schema_of_parts(parts: Sequence[Part], dataset: str) -> pa.Schema:
    """Return the schema of a dataset's files: of the newest part, or of all files of a kind that differ by module."""
    if dataset in paths.PART_DATASETS:
        return schema_of_file(parts[-1].files[dataset])
    return pa.unify_schemas([schema_of_file(part.files[dataset]) for part in parts])
