"""Writer schemas of wire messages by schema id: from a folder, a schema registry, the survey's package, or ours."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fastavro.schema
import httpx

from pipeline.avro.schema import WriterSchema, writer_schema
from pipeline.errors import InputError, SchemaError, SourceError
from pipeline.surveys.superset import known_schemas

TIMEOUT_SEC = 10.0
_VERSION_IN_FILE = re.compile(r"(?:^|\.v)(\d+)[._](\d+)(?:\.alert)?\.avsc$")
_ID_IN_FILE = re.compile(r"^(\d+)\.avsc$")


def id_of_version(version: str) -> int:
    """Return the schema id of a version by Rubin's rule: major * 100 + minor (7.4 is 704)."""
    major, minor = version.split(".")[:2]
    return int(major) * 100 + int(minor)


def version_of_id(schema_id: int) -> str:
    """Return the version that Rubin's rule gives a schema id."""
    return f"{schema_id // 100}.{schema_id % 100}"


class SchemaResolver:
    """Returns the writer schema of a schema id; asks its sources in turn and remembers.

    Parameters
    ----------
    survey : str
        Whose shipped schemas are the last resort.
    folder : str, optional
        Folder (searched at any depth) of ``704.avsc``, ``7.4.avsc`` or ``lsst.v7_4.alert.avsc``; parts of a schema
        that stand in files of their own are found beside it.
    url : str, optional
        Schema registry (Confluent's HTTP interface).
    cache : str, optional
        Folder that keeps what the registry answered: an id names one schema for ever.

    Raises
    ------
    InputError
        The folder does not exist.
    """

    def __init__(
        self, survey: str, *, folder: str | None = None, url: str | None = None, cache: str | None = None
    ) -> None:
        self._survey = survey
        self._url = url.rstrip("/") if url else None
        self._cache = Path(cache) if cache else None
        self._known: dict[int, WriterSchema] = {}
        self._files = dict(_files(Path(folder))) if folder else {}

    def __call__(self, schema_id: int) -> WriterSchema:
        """Return the writer schema of ``schema_id``.

        Raises
        ------
        SourceError
            No source knows it, the registry cannot be reached, or what it gives cannot be used.
        """
        if schema_id not in self._known:
            self._known[schema_id] = self._resolve(schema_id)
        return self._known[schema_id]

    def _resolve(self, schema_id: int) -> WriterSchema:
        sources: list[Callable[[int], dict[str, Any] | None]] = [
            self._from_folder,
            self._from_registry,
            _from_package,
            self._from_shipped,
        ]
        for source in sources:
            found = source(schema_id)
            if found is None:
                continue
            try:
                return writer_schema(found, version_of_id(schema_id))
            except SchemaError as error:
                raise SourceError(f"the schema of id {schema_id} cannot be used: {error.message}") from None
        raise SourceError(
            f"schema id {schema_id} (version {version_of_id(schema_id)} by Rubin's rule) is not known",
            mend="name a folder of .avsc files or a schema registry that has it",
        )

    def _from_folder(self, schema_id: int) -> dict[str, Any] | None:
        return _load(self._files[schema_id]) if schema_id in self._files else None

    def _from_shipped(self, schema_id: int) -> dict[str, Any] | None:
        return known_schemas(self._survey).get(version_of_id(schema_id))

    def _from_registry(self, schema_id: int) -> dict[str, Any] | None:
        if self._url is None:
            return None
        kept = None
        if self._cache is not None:
            kept = self._cache / hashlib.sha256(self._url.encode()).hexdigest()[:16] / f"{schema_id}.avsc"
            if kept.is_file():
                return _load(kept)
        text = self._ask(schema_id)
        if text is None:
            return None
        try:
            schema = json.loads(json.loads(text)["schema"])
        except (ValueError, KeyError, TypeError, RecursionError):
            raise SourceError(f"the schema registry {self._url} gives no schema for id {schema_id}") from None
        if kept is not None:
            kept.parent.mkdir(parents=True, exist_ok=True)
            unfinished = kept.with_suffix(f".{os.getpid()}.new")
            unfinished.write_text(json.dumps(schema), "utf-8")
            unfinished.replace(kept)
        return schema

    def _ask(self, schema_id: int) -> str | None:
        try:
            answer = httpx.get(f"{self._url}/schemas/ids/{schema_id}", timeout=TIMEOUT_SEC, follow_redirects=True)
            if answer.status_code == httpx.codes.NOT_FOUND:
                return None
            answer.raise_for_status()
        except httpx.HTTPError as error:
            raise SourceError(
                f"the schema registry {self._url} cannot be asked for id {schema_id}: {error}",
                mend="check its address, or name a folder of .avsc files",
            ) from None
        return answer.text


def _files(folder: Path) -> Iterator[tuple[int, Path]]:
    if not folder.is_dir():
        raise InputError(f"folder of schemas {folder} does not exist", mend="check the path")
    for file in sorted(folder.rglob("*.avsc")):
        if match := _ID_IN_FILE.search(file.name):
            yield int(match[1]), file
        elif (match := _VERSION_IN_FILE.search(file.name)) and _is_whole(file):
            yield id_of_version(f"{match[1]}.{match[2]}"), file


def _is_whole(file: Path) -> bool:
    """Whether a file describes packets: ``7.4.avsc``, or the one called alert among the parts of a schema."""
    return file.name[0].isdigit() or file.name.endswith(".alert.avsc")


def _load(file: Path) -> dict[str, Any]:
    try:
        return fastavro.schema.load_schema(str(file), _write_hint=False)
    except Exception as error:  # fastavro's own errors have no common base
        raise SourceError(f"schema file {file} cannot be used: {' '.join(str(error).split())[:160]}") from None


def _from_package(schema_id: int) -> dict[str, Any] | None:
    """Look the schema up in the ``lsst.alert.packet`` package, without importing it."""
    try:
        spec = importlib.util.find_spec("lsst.alert.packet")
    except ModuleNotFoundError:
        return None
    major, minor = divmod(schema_id, 100)
    for root in (spec.submodule_search_locations or []) if spec else []:
        file = Path(root, "schema", str(major), str(minor), f"lsst.v{major}_{minor}.alert.avsc")
        if file.is_file():
            return _load(file)
    return None
