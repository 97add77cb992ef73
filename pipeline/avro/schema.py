"""Writer schemas: parsed once, named by version and digest, kept by the bytes of the header that carried them."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import fastavro
import pyarrow as pa

from pipeline.avro.check import Program, compile_schema
from pipeline.errors import PipelineError, SchemaError
from pipeline.surveys.superset import arrow_schema, full_name

UNKNOWN_VERSION = "unknown"
MAX_SCHEMA_BYTES = 4 << 20
MAX_VERSION = 80
"""Characters of a version: it stands beside every packet."""
_OWN_NAMES = {"null", "boolean", "int", "long", "float", "double", "bytes", "string"}
_OWN_NAMES |= {"record", "enum", "array", "map", "fixed", "error"}
_VERSION_IN_NAME = re.compile(r"\.v(\d+(?:_\d+)+)\.")


@dataclass(frozen=True, slots=True)
class WriterSchema:
    """One writer schema, ready to decode with.

    Attributes
    ----------
    version : str
        The schema's ``version`` attribute, else the version in its name (``lsst.v7_4.alert``), else what the transport
        declared, else ``"unknown"``.
    id : str
        ``version:digest``; equal for schemas that differ only in documentation, aliases or key order.
    digest : str
        sha256 of all that decides what bytes mean; two schemas are the same if it is, not if their ids are.
    parsed : dict
        The schema parsed for fastavro, without logical types: timestamps are read as the integers they are.
    arrow : pyarrow.Schema
        The same fields as Arrow types, all nullable.
    program : Program
        What the bounds check runs.
    source : dict
        The schema as it was written.
    """

    version: str
    id: str
    digest: str = field(repr=False)
    parsed: Any = field(repr=False, compare=False)
    arrow: pa.Schema = field(repr=False, compare=False)
    program: Program = field(repr=False, compare=False)
    source: Mapping[str, Any] = field(repr=False, compare=False)


def writer_schema(schema: Mapping[str, Any], declared: str | None = None) -> WriterSchema:
    """Return the :class:`WriterSchema` of an Avro record schema.

    Parameters
    ----------
    schema : dict
        As JSON gives it.
    declared : str, optional
        Version by the transport (the schema id of a wire message), used if the schema itself names none.

    Raises
    ------
    SchemaError
        It is not an Avro schema, not a record, or has a type that no column holds.
    """
    if not isinstance(schema, dict) or schema.get("type") != "record":
        raise SchemaError("the writer schema is not a record")
    try:
        program = compile_schema(schema)  # first: it bounds the size of what the others unfold
        parsed = fastavro.parse_schema(_lean(schema))
        arrow = arrow_schema(schema)
        digest = hashlib.sha256(_telling(schema).encode()).hexdigest()
    except PipelineError:
        raise
    except Exception as error:  # whatever a damaged schema provokes in the parser: KeyError, RecursionError ...
        raise SchemaError(f"the writer schema is not valid Avro: {_brief(error)}") from None
    version = version_of(schema) or declared or UNKNOWN_VERSION
    if len(version) > MAX_VERSION or not version.isprintable():
        raise SchemaError(f"the writer schema's version is none: {version[:20]!r}")
    return WriterSchema(version, f"{version}:{digest[:12]}", digest, parsed, arrow, program, schema)


def version_of(schema: Mapping[str, Any]) -> str | None:
    """Return the version that a schema names in its ``version`` attribute or its name, or None."""
    if version := schema.get("version"):
        return str(version)
    match = _VERSION_IN_NAME.search(full_name(schema, ""))
    return match[1].replace("_", ".") if match else None


def parse_text(text: bytes, declared: str | None = None) -> WriterSchema:
    """Return the :class:`WriterSchema` of a schema's JSON text.

    Raises
    ------
    SchemaError
        The text is not JSON, or not a schema that can be used.
    """
    if len(text) > MAX_SCHEMA_BYTES:
        raise SchemaError(f"the writer schema is {len(text)} bytes long, more than {MAX_SCHEMA_BYTES}")
    try:
        schema = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SchemaError(f"the writer schema is not JSON: {_brief(error)}") from None
    return writer_schema(schema, declared)


def _brief(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__} {text[:160]}".strip()


def _lean(schema: Any) -> Any:
    """Return the schema without documentation, defaults and logical types."""
    if isinstance(schema, list):
        return [_lean(kind) for kind in schema]
    if not isinstance(schema, dict):
        return schema
    out = {key: schema[key] for key in ("name", "namespace", "symbols", "size") if key in schema}
    out |= {key: _lean(schema[key]) for key in ("type", "items", "values") if key in schema}
    if "fields" in schema:
        out["fields"] = [{"name": f["name"], "type": _lean(f["type"])} for f in schema["fields"]]
    return out


def _telling(schema: Any) -> str:
    """Return a text that differs for schemas that mean different things.

    Without namespaces two types may share a name, or one that of a primitive: such a schema is taken as it is written.
    """
    text = json.dumps(_canonical(schema), separators=(",", ":"))
    names = [*_OWN_NAMES, *(name.rpartition(".")[2] for name in _names(schema))]
    return text if len(set(names)) == len(names) else text + json.dumps(schema, sort_keys=True)


def _names(schema: Any) -> Iterator[str]:
    """Yield the names of the types that a schema defines."""
    if isinstance(schema, list):
        for kind in schema:
            yield from _names(kind)
    elif isinstance(schema, dict):
        if schema["type"] in ("record", "enum", "fixed"):
            yield str(schema["name"])
        for key in ("type", "items", "values"):
            yield from _names(schema.get(key))
        for item in schema.get("fields", ()):
            yield from _names(item["type"])


def _canonical(schema: Any) -> Any:
    """Return the parts of a schema that decide what bytes mean, in one fixed form, without namespaces."""
    if isinstance(schema, list):
        return [_canonical(kind) for kind in schema]
    if isinstance(schema, str):
        return schema.rpartition(".")[2]
    kind = schema["type"]
    if isinstance(kind, (dict, list)):
        return _canonical(kind)
    name = str(schema.get("name", "")).rpartition(".")[2]
    if kind == "record":
        return ["record", name, [[f["name"], _canonical(f["type"])] for f in schema["fields"]]]
    if kind in ("array", "map"):
        return [kind, _canonical(schema["items" if kind == "array" else "values"])]
    rest = [schema[key] for key in ("logicalType", "symbols", "size") if key in schema]
    return [kind, name, *rest] if name or rest else kind
