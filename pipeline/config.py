"""One configuration: defaults, then ``alertmill.toml``, then environment, then options; each value knows its origin."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from pipeline.errors import InputError

FILE_NAME = "alertmill.toml"
ENVIRONMENT_PREFIX = "ALERTMILL_"
_NOT_SETTINGS = ("ALERTMILL_TEST_", "ALERTMILL_BENCH_", "ALERTMILL_FUZZ_")
"""Variables that tests and benchmarks read."""
_STRICT = ConfigDict(extra="forbid", frozen=True)


class PartLimits(BaseModel):
    """A part ends at whichever of these comes first."""

    model_config = _STRICT
    max_alerts: int = Field(10_000, gt=0, description="alerts in a part")
    max_bytes: int = Field(256 << 20, gt=0, le=1 << 30, description="decoded bytes in a part")
    max_points: int = Field(5_000_000, gt=0, description="light-curve points in a part")


class Execution(BaseModel):
    """Where and how work is done; never changes a result."""

    model_config = _STRICT
    mode: Literal["serial", "dask"] = Field("dask", description="serial, or a Dask cluster")
    workers: int | None = Field(None, gt=0, description="worker processes; default one a core")
    scheduler: str | None = Field(None, description="address of a Dask scheduler, tcp://host:port")
    memory_limit: str = Field("2GiB", description="memory of one worker")
    task_retries: int = Field(2, ge=0, description="tries again of a task whose worker was lost")
    stall_timeout_sec: float = Field(3600.0, gt=0, description="a stage in which no task ends for so long has failed")
    prefect: bool = Field(True, description="run as a Prefect flow; --direct runs without")


class Config(BaseModel):
    """All settings."""

    model_config = _STRICT
    root: str = Field("./data", description="folder that holds the archive")
    survey: str = Field("ztf", description="survey of the input")
    release: str = Field("main", description="release that science is written to")
    cut: str | None = Field(None, description='input cut, for example "rb >= 0.55"; default none')
    max_rejects: float = Field(0.01, ge=0, le=1, description="share of undecodable packets above which a source fails")
    catalogs: tuple[str, ...] = Field(
        ("*",), description="catalogs to match: * for all that are built, NAME, NAME=FOLDER of a built one; or none"
    )
    catalog_folder: str | None = Field(None, description="folder of built catalogs; default ROOT/catalogs")
    skymaps: tuple[str, ...] = Field((), description="sky maps: EVENT that the archive knows, or EVENT=FILE")
    luminosity: bool = Field(False, description="write luminosities at the distance of the host galaxy")
    dust_map: str | None = Field(None, description="dust map that luminosities are corrected with; default none")
    models: tuple[str, ...] = Field(("supernova",), description="models, NAME (shipped) or NAME=FOLDER")
    schemas: str | None = Field(None, description="writer schemas: a folder or the address of a schema registry")
    report: bool = Field(True, description="write the night report")
    alarm: tuple[str, ...] = Field((), description="who is told of a failed or missing night: file:PATH, http(s)://...")
    part: PartLimits = Field(default_factory=PartLimits)
    execution: Execution = Field(default_factory=Execution)

    @field_validator("alarm")
    @classmethod
    def _check_alarm(cls, targets: tuple[str, ...]) -> tuple[str, ...]:
        for target in targets:
            if not target.startswith(("file:", "http://", "https://")):
                raise ValueError("an alarm goes to file:PATH, http://... or https://...")
        return targets


def load(
    options: Mapping[str, Any] | None = None,
    *,
    file: str | os.PathLike[str] | None = None,
    environment: Mapping[str, str] | None = None,
) -> tuple[Config, dict[str, str]]:
    """Return the configuration and the origin of each value.

    Parameters
    ----------
    options : mapping, optional
        Values from the command line by dotted name; None means not given.
    file : path, optional
        The configuration file; default ``alertmill.toml`` in the working folder, if it is there.
    environment : mapping, optional
        Environment variables; default those of the process. ``ALERTMILL_ROOT``, ``ALERTMILL_EXECUTION__WORKERS``.

    Returns
    -------
    Config, dict of str to str
        Origins by dotted name: ``default``, ``file NAME``, ``environment VARIABLE`` or ``option``.

    Raises
    ------
    InputError
        The file is missing or damaged, or a value is unknown or of the wrong type.
    """
    layers: list[tuple[dict[str, Any], str]] = [
        (_from_file(file), f"file {Path(file or FILE_NAME).name}"),
        (_from_environment(environment), "environment"),
        ({name: value for name, value in (options or {}).items() if value is not None}, "option"),
    ]
    origins = dict.fromkeys(flatten(Config().model_dump()), "default")
    merged: dict[str, Any] = {}
    for values, origin in layers:
        for name, value in flatten(values).items():
            merged[name] = value
            origins[name] = (
                f"environment {ENVIRONMENT_PREFIX}{name.replace('.', '__').upper()}"
                if origin == "environment"
                else origin
            )
    try:
        return Config.model_validate(_nest(merged)), origins
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(piece) for piece in first["loc"])
        known = ", ".join(sorted(flatten(Config().model_dump())))
        mend = f"known settings: {known}" if first["type"] == "extra_forbidden" else "see `alertmill config show`"
        origin = origins.get(name) or next((origins[key] for key in merged if key.startswith(name)), "option")
        raise InputError(f"setting {name} ({origin}): {first['msg']}", mend=mend) from error


def _from_file(file: str | os.PathLike[str] | None) -> dict[str, Any]:
    path = Path(file or FILE_NAME)
    if not path.is_file():
        if file is None:
            return {}
        raise InputError(f"configuration file {path} does not exist", mend="check --config")
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise InputError(f"configuration file {path} cannot be read: {error}", mend="mend its TOML") from error


def _from_environment(environment: Mapping[str, str] | None) -> dict[str, Any]:
    variables = os.environ if environment is None else environment
    values: dict[str, Any] = {}
    known = flatten(Config().model_dump())
    for variable, text in sorted(variables.items()):
        if not variable.upper().startswith(ENVIRONMENT_PREFIX):
            continue
        if variable.upper().startswith(_NOT_SETTINGS):
            continue
        name = variable[len(ENVIRONMENT_PREFIX) :].lower().replace("__", ".")
        if name not in known:
            raise InputError(
                f"environment variable {variable} names no setting", mend=f"known settings: {', '.join(sorted(known))}"
            )
        values[name] = [piece for piece in text.split(",") if piece] if isinstance(known[name], tuple) else text
    return values


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings by dotted name."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for name, value in flat.items():
        *parents, leaf = name.split(".")
        place: Any = nested
        for parent in parents:
            place = place.setdefault(parent, {}) if isinstance(place, dict) else place
        if isinstance(place, dict):  # else a section was given as a value, which validation tells
            place[leaf] = value
    return nested
