"""The one schema of a release: what its science dataset has in any night."""

from __future__ import annotations

import json

import pyarrow as pa

from pipeline import paths
from pipeline.errors import StoreError
from pipeline.store import Root


def widened(root: Root, survey: str, release: str, schema: pa.Schema) -> tuple[pa.Schema, bool]:
    """Return a release's schema with the columns that are new in it, and whether there are any.

    Raises
    ------
    StoreError
        The stored schema is damaged, or has one of the columns with another type.
    """
    path = root.path(paths.release_schema_file(survey, release))
    if not path.is_file():
        return schema, True
    try:
        with pa.ipc.open_file(path) as file:
            known = file.schema
    except (OSError, pa.ArrowException) as error:
        raise StoreError(
            f"the schema of release {release} of {survey} cannot be read: {error}",
            mend=f"delete {path}; the next run writes it again",
        ) from error
    for field in schema:
        place = known.get_field_index(field.name)
        if place >= 0 and known.field(place).type != field.type:
            raise StoreError(
                f"column {field.name} is {known.field(place).type} in release {release}, and would be {field.type} now",
                mend="choose another --release",
            )
    whole = pa.unify_schemas([known, schema])
    return whole, not whole.equals(known, check_metadata=True)


def save_release_schema(root: Root, survey: str, release: str, schema: pa.Schema) -> None:
    """Widen the release's one science schema by the columns that are new in it."""
    schema, is_new = widened(root, survey, release, schema)
    if not is_new:
        return
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, schema):
        pass
    root.write_bytes(paths.release_schema_file(survey, release), sink.getvalue().to_pybytes())
    names = f"{survey}/science/releases.json"
    if not root.exists(names):
        root.write_text(names, json.dumps({"main": release}) + "\n")
