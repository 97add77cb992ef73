"""Conditions on the survey's own fields: comparisons joined by ``and`` or ``;``, parsed, never evaluated as code.

Native names (``candidate.rb``, or ``rb`` where that is unambiguous) read raw values, sentinels included. A row passes
only if the condition is TRUE: a null passes neither it nor its negation.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import InputError

_TERM = re.compile(
    r"^\s*(?P<path>[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)\s*(?P<op><=|>=|==|!=|<>|=|<|>)\s*"
    r"(?P<value>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|'(?:[^']|'')*'|true|false)\s*$",
    re.IGNORECASE,
)
_COMPARE = {
    "<": pc.less,
    "<=": pc.less_equal,
    ">": pc.greater,
    ">=": pc.greater_equal,
    "=": pc.equal,
    "==": pc.equal,
    "!=": pc.not_equal,
    "<>": pc.not_equal,
}


@dataclass(frozen=True)
class Term:
    """One comparison of a field with a constant."""

    path: tuple[str, ...]
    operator: str
    value: int | float | str | bool


@dataclass(frozen=True)
class Condition:
    """All of its terms must be TRUE."""

    text: str
    terms: tuple[Term, ...]


def parse(text: str, schema: pa.Schema) -> Condition:
    """Parse a condition against the fields of a raw schema.

    Parameters
    ----------
    text : str
        For example ``"rb >= 0.55 and nbad = 0"``.
    schema : pyarrow.Schema
        The survey's superset; structs are reached by dots, lists not at all.

    Raises
    ------
    InputError
        Not a comparison, an unknown field, a field that is not a number or text, or an ambiguous short name.
    """
    fields = _leaves(schema)
    terms = []
    for piece in _split(text):
        match = _TERM.match(piece)
        if match is None:
            raise InputError(
                f"condition {piece.strip()!r} is not understood",
                mend='write comparisons such as "rb >= 0.55 and nbad = 0"',
            )
        path, kind = _resolve(match["path"], fields)
        terms.append(Term(path, match["op"], _constant(match["value"], kind, piece)))
    if not terms:
        raise InputError("the condition is empty", mend='leave it out, or write for example "rb >= 0.55"')
    return Condition(text, tuple(terms))


def _split(text: str) -> list[str]:
    """Split on ``;`` and ``and``, outside quotes."""
    pieces, current = [], ""
    for piece in re.split(r"('(?:[^']|'')*'|;|\band\b)", text, flags=re.IGNORECASE):
        if piece == ";" or piece.lower() == "and":
            pieces.append(current)
            current = ""
        else:
            current += piece
    pieces.append(current)
    return [piece for piece in pieces if piece.strip()]


def _leaves(schema: pa.Schema) -> dict[tuple[str, ...], pa.DataType]:
    found: dict[tuple[str, ...], pa.DataType] = {}

    def walk(path: tuple[str, ...], kind: pa.DataType) -> None:
        if pa.types.is_struct(kind):
            for child in kind:
                walk((*path, child.name), child.type)
        elif not pa.types.is_nested(kind):
            found[path] = kind

    for item in schema:
        walk((item.name,), item.type)
    return found


def _resolve(name: str, fields: dict[tuple[str, ...], pa.DataType]) -> tuple[tuple[str, ...], pa.DataType]:
    wanted = tuple(name.split("."))
    if wanted in fields:
        return wanted, fields[wanted]
    ends = [path for path in fields if path[-len(wanted) :] == wanted]
    if len(ends) == 1:
        return ends[0], fields[ends[0]]
    if ends:
        choices = ", ".join(".".join(path) for path in sorted(ends))
        raise InputError(f"field {name} of the condition is ambiguous", mend=f"write one of {choices}")
    raise InputError(f"field {name} of the condition is not in the survey's packets", mend="check its spelling")


def _constant(text: str, kind: pa.DataType, piece: str) -> int | float | str | bool:
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    if text.startswith("'") and is_text:
        return text[1:-1].replace("''", "'")
    if text.lower() in ("true", "false") and pa.types.is_boolean(kind):
        return text.lower() == "true"
    if not text.startswith("'") and text.lower() not in ("true", "false"):
        if pa.types.is_integer(kind):
            return int(text) if re.fullmatch(r"[-+]?\d+", text) else float(text)
        if pa.types.is_floating(kind):
            return float(text)
    raise InputError(f"condition {piece.strip()!r} compares a {kind} with {text}", mend="compare like with like")


def evaluate(condition: Condition, raw: pa.Table) -> np.ndarray:
    """Return where the condition is TRUE, as booleans (n,)."""
    passed = np.ones(raw.num_rows, dtype=bool)
    for term in condition.terms:
        data = raw.column(term.path[0])
        for name in term.path[1:]:
            data = pc.struct_field(data, name)
        # A float32 field is compared as the double it is, so that "rb >= 0.55" means the same in every tool.
        data = data.cast(pa.float64()) if pa.types.is_floating(data.type) else data
        result = _COMPARE[term.operator](data, pa.scalar(term.value))
        if pa.types.is_floating(data.type):  # NaN compares as unknown, not as different
            result = pc.and_kleene(result, pc.invert(pc.is_nan(data)))
        passed &= np.asarray(pc.fill_null(result, False))
    return passed
