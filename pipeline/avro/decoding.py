"""Packets to Arrow tables by the kernel: the superset of all versions, rows in source order, faults beside them.

Floats keep their bits, except that a signalling NaN, which no survey writes, becomes the quiet one with the same
payload where a float is widened to a double. What the kernel is not made for (unions of several types, decimals, fields
that a re-encoder added) is read by :mod:`pipeline.avro.slow`, schema by schema.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.avro import kernel, slow
from pipeline.avro.arena import Arena, Layout, TooLargeError
from pipeline.avro.container import Datum
from pipeline.avro.frames import NO_SCHEMA, Frames
from pipeline.avro.primitives import NEED_BYTES, NEED_ROWS, OK, REASONS
from pipeline.avro.program import NotCompiledError, Program, compile_program
from pipeline.avro.rows import VERSION_FIELD, Decoded, cutout_schema, plan_schema, points_of, raw_schema
from pipeline.avro.schema import WriterSchema
from pipeline.avro.target import Target
from pipeline.surveys.superset import plain, unheld, widen

ARENA_BYTES = 256 << 20
"""Bodies decoded into one set of buffers; what is beyond begins the next."""
_CACHED = 64


def decode(
    data: Sequence[Datum],
    superset: pa.Schema,
    cutout_columns: Sequence[str],
    *,
    reencoded: bool = False,
    source: str | None = None,
    columns: Collection[str] | None = None,
) -> Decoded:
    """Decode datums of any mix of writer schemas: see :func:`decode_frames`, whose arguments these are.

    Parameters
    ----------
    data : sequence of Datum
        In source order.
    """
    frames = [_joined(data)] if data else []
    return decode_frames(frames, superset, cutout_columns, reencoded=reencoded, source=source, columns=columns)


def _joined(data: Sequence[Datum]) -> Frames:
    stops = np.cumsum([datum.length for datum in data], dtype=np.int64)
    places: dict[WriterSchema, int] = {}
    schema = np.array([places.setdefault(datum.schema, len(places)) for datum in data], dtype=np.int32)
    return Frames(
        np.frombuffer(b"".join(datum.body for datum in data), dtype=np.uint8),
        np.concatenate([[0], stops[:-1]]),
        stops,
        np.array([datum.offset for datum in data], dtype=np.int64),
        pa.nulls(len(data), pa.string()),
        schema,
        tuple(places),
    )


def decode_frames(
    frames: Sequence[Frames],
    superset: pa.Schema,
    cutout_columns: Sequence[str],
    *,
    reencoded: bool = False,
    source: str | None = None,
    columns: Collection[str] | None = None,
) -> Decoded:
    """Decode packets of any mix of writer schemas.

    Parameters
    ----------
    frames : sequence of Frames
        Consecutive, in source order; their own faults are left out.
    superset : pyarrow.Schema
        The survey's columns, cutouts included (:func:`pipeline.surveys.superset.superset`).
    cutout_columns : sequence of str
        Which of them are cutouts.
    reencoded : bool
        True for a source that someone else has written anew: top-level fields that the survey has not are then kept
        as JSON in ``origin_added``. In a native source such a field is an error.
    source : str, optional
        Named in the error.
    columns : collection of str, optional
        Top-level fields to decode; the others are checked and left null. All, if not given.

    Returns
    -------
    Decoded
        ``kept`` and ``faults`` count the packets of all frames, from 0.

    Raises
    ------
    SourceError
        A writer schema has a field that the superset cannot hold without loss.
    """
    chosen = None if columns is None else frozenset(columns)
    schemas = sorted(
        {frame.schemas[place] for frame in frames for place in np.unique(frame.schema).tolist() if place != NO_SCHEMA},
        key=lambda schema: schema.id,
    )
    programs = {schema: program_of(schema, superset, chosen, reencoded) for schema in schemas}
    fast = {schema: program for schema, program in programs.items() if isinstance(program, Program)}
    layout = _layout(_target(superset), tuple(fast.values()))
    pieces: list[_Piece] = []
    late: list[tuple[int, Datum]] = []  # what the kernel does not decode
    base = 0
    for frame in frames:
        _check(frame)
        for first, last in _runs(frame.schema):
            if frame.schema[first] == NO_SCHEMA:
                continue
            schema = frame.schemas[frame.schema[first]]
            if schema in fast:
                pieces.append(_Piece(frame, first, last, schema, base))
            else:
                late += [(base + place, _datum(frame, place, schema)) for place in range(first, last)]
        base += len(frame)
    which = {schema: i for i, schema in enumerate(fast)}
    results = [_decode_pieces(group, layout, which) for group in _groups(pieces)]
    decoded = _decoded(results, superset, cutout_columns)
    if not late:
        return decoded
    slowly = slow.decode(
        [datum for _, datum in late],
        superset,
        cutout_columns,
        reencoded=reencoded,
        source=source,
        columns=columns,
    )
    reasons = {late[index][1].schema.id: str(programs[late[index][1].schema]) for index in slowly.kept.tolist()}
    return _merged(decoded, slowly, np.array([place for place, _ in late], dtype=np.int64), reasons)


# --------------------------------------------------------------------------------------- programs
@lru_cache(maxsize=_CACHED)
def program_of(
    schema: WriterSchema, superset: pa.Schema, columns: frozenset[str] | None, reencoded: bool
) -> Program | str:
    """Return the program of a writer schema, or the reason why its packets are read the slow way."""
    if reencoded and any(name not in superset.names for name in schema.arrow.names):
        return "it has fields that a re-encoder added"
    if missing := unheld(superset, schema.arrow):
        return f"field {missing} has no column"  # the slow way tells so, if a single body is sound
    try:
        return compile_program(schema.source, _target(superset), columns)
    except NotCompiledError as error:
        return str(error)


@lru_cache(maxsize=_CACHED)
def _target(superset: pa.Schema) -> Target:
    return Target(superset)


@lru_cache(maxsize=_CACHED)
def _layout(target: Target, programs: tuple[Program, ...]) -> Layout:
    return Layout(target, programs)


# --------------------------------------------------------------------------------------- frames
def _check(frame: Frames) -> None:
    if len(frame) and (frame.start.min() < 0 or frame.stop.max() > len(frame.data) or (frame.stop < frame.start).any()):
        raise ValueError("frames reach beyond their buffer")


def _runs(schema: NDArray[np.int32]) -> Iterator[tuple[int, int]]:
    """Yield the stretches of packets that share a schema."""
    cuts = np.flatnonzero(np.diff(schema)) + 1
    ends = [*cuts.tolist(), len(schema)] if len(schema) else []
    yield from zip([0, *ends], ends, strict=False)


def _datum(frame: Frames, place: int, schema: WriterSchema) -> Datum:
    body = frame.body(place)
    return Datum(body, int(frame.offset[place]), len(body), schema)


# --------------------------------------------------------------------------------------- the kernel's caller
@dataclass(frozen=True, slots=True)
class _Piece:
    """Packets ``first`` to ``last`` of a frame, of one schema; the frame's first is packet ``base`` of all."""

    frame: Frames
    first: int
    last: int
    schema: WriterSchema
    base: int

    @property
    def packets(self) -> int:
        return self.last - self.first

    def cut(self, at: int) -> tuple[_Piece, _Piece]:
        return replace(self, last=at), replace(self, first=at)


@dataclass(frozen=True, slots=True)
class _Result:
    """What one arena gave: columns, places of its rows, faults, and runs of (version, rows)."""

    columns: list[pa.Array]
    kept: NDArray[np.int64]
    faults: list[tuple[int, str]]
    versions: list[tuple[str, int]]


def _groups(pieces: Sequence[_Piece]) -> Iterator[list[_Piece]]:
    """Gather pieces for one arena each."""
    group: list[_Piece] = []
    room = ARENA_BYTES
    for piece in pieces:
        while piece.packets:
            sizes = np.cumsum(piece.frame.stop[piece.first : piece.last] - piece.frame.start[piece.first : piece.last])
            fitting = int(np.searchsorted(sizes, room, "right"))
            if fitting == 0 and group:
                yield group
                group, room = [], ARENA_BYTES
                continue
            fitting = max(fitting, 1)
            now, piece = piece.cut(piece.first + fitting)
            group.append(now)
            room -= int(sizes[fitting - 1])
    if group:
        yield group


def _decode_pieces(pieces: Sequence[_Piece], layout: Layout, which: dict[WriterSchema, int]) -> list[_Result]:
    """Decode the packets of one group; a group that does not fit Arrow's offsets is halved."""
    try:
        return [_decode_group(pieces, layout, which)]
    except TooLargeError:
        packets = sum(piece.packets for piece in pieces)
        if packets == 1:
            place = pieces[0].base + pieces[0].first
            told = "the packet holds more items or text than a column can"
            return [_Result([], np.zeros(0, np.int64), [(place, told)], [])]
        first, second = _halves(pieces, packets // 2)
        return _decode_pieces(first, layout, which) + _decode_pieces(second, layout, which)


def _halves(pieces: Sequence[_Piece], packets: int) -> tuple[list[_Piece], list[_Piece]]:
    halves: tuple[list[_Piece], list[_Piece]] = ([], [])
    for piece in pieces:
        parts = piece.cut(piece.first + min(packets, piece.packets))
        packets -= parts[0].packets
        for half, part in zip(halves, parts, strict=True):
            half += [part] if part.packets else []
    return halves


def _decode_group(pieces: Sequence[_Piece], layout: Layout, which: dict[WriterSchema, int]) -> _Result:
    n_bytes = sum(int((p.frame.stop[p.first : p.last] - p.frame.start[p.first : p.last]).sum()) for p in pieces)
    arena = Arena(layout, sum(piece.packets for piece in pieces), n_bytes)
    kept, faults, versions = [], [], []
    for piece in pieces:
        bad = _run(arena, piece, which[piece.schema])
        faults += bad
        good = np.ones(piece.packets, dtype=bool)
        good[[place - piece.base - piece.first for place, _ in bad]] = False
        kept.append(np.flatnonzero(good) + (piece.base + piece.first))
        versions.append((piece.schema.version, len(kept[-1])))
    return _without_double_keys(_Result(arena.finish(), np.concatenate(kept), faults, versions), layout.target)


def _run(arena: Arena, piece: _Piece, which: int) -> list[tuple[int, str]]:
    """Run the kernel over one piece; return the packets at fault. Where room is wanting, it is made."""
    frame, program = piece.frame, arena.layout.programs[which]
    view = frame.data[:]
    view.flags.writeable = False
    starts = np.ascontiguousarray(frame.start[piece.first : piece.last])
    stops = np.ascontiguousarray(frame.stop[piece.first : piece.last])
    counters = np.zeros((3, program.n_loops), dtype=np.int64)
    before = arena.domains[kernel.ROWS_NOW].copy()
    faults: list[tuple[int, str]] = []
    i = 0
    while True:
        i, status, position, field = kernel.run(
            view,
            starts,
            stops,
            i,
            program.code,
            arena.tables[which],
            program.symbols,
            program.symbol_at,
            arena.domains,
            counters,
            arena.heap,
            arena.buffers,
            *arena.views,
        )
        if status == OK:
            break
        arena.undo()
        if status == NEED_ROWS:
            arena.grow_rows(field, position)
        elif status == NEED_BYTES:
            arena.grow_texts(int(arena.tables[which][kernel.TEXT_AT, field]), position)
        else:
            place = piece.first + i
            at = int(frame.offset[place]) + position - int(starts[i])
            faults.append((piece.base + place, _reason(program, status, field, int(stops[i]) - position, at)))
            i += 1
    arena.fill(which, before)
    return faults


def _without_double_keys(result: _Result, target: Target) -> _Result:
    """Return the result without packets that have a key twice in a map: a reader that makes a dict of it loses one."""
    doubles: dict[int, str] = {}
    for node, column in zip(target.columns, result.columns, strict=True):
        if node.has_maps and len(column) > column.null_count:
            values = widen(column, plain(column.type)).to_pylist()  # a date of any year
            rows = (row for row, value in enumerate(values) if _has_double_key(value))
            doubles |= dict.fromkeys(rows, f"field {node.path}: a key stands twice in a map")
    if not doubles:
        return result
    keep = np.ones(len(result.kept), dtype=bool)
    keep[list(doubles)] = False
    faults = [*result.faults, *((int(result.kept[row]), reason) for row, reason in doubles.items())]
    ends = np.cumsum([0, *(rows for _, rows in result.versions)])
    versions = [
        (version, int(keep[first:last].sum()))
        for (version, _), first, last in zip(result.versions, ends, ends[1:], strict=False)
    ]
    mask = pa.array(keep)
    return _Result([column.filter(mask) for column in result.columns], result.kept[keep], faults, versions)


def _has_double_key(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_has_double_key, value.values()))
    if not isinstance(value, list):
        return False
    if value and isinstance(value[0], tuple):  # the entries of a map
        return len({key for key, _ in value}) < len(value) or any(_has_double_key(item) for _, item in value)
    return any(map(_has_double_key, value))


def _reason(program: Program, status: int, field: int, left: int, at: int) -> str:
    if status == kernel.STRAY:
        return f"{left} stray bytes follow the last field at byte {at}"
    return f"field {program.fields[field].path}: {REASONS[status]} at byte {at}"


# --------------------------------------------------------------------------------------- tables
def _decoded(groups: Sequence[Sequence[_Result]], superset: pa.Schema, cutout_columns: Sequence[str]) -> Decoded:
    results = [result for group in groups for result in group]
    tables = [_table(result, superset) for result in results if len(result.kept)]
    whole = pa.concat_tables(tables) if tables else plan_schema(superset).empty_table()
    kept = np.concatenate([np.zeros(0, np.int64), *(result.kept for result in results)])
    faults = [fault for result in results for fault in result.faults]
    return _divided(whole, cutout_columns, superset, kept, faults)


def _table(result: _Result, superset: pa.Schema) -> pa.Table:
    n = len(result.kept)
    declared = pa.array([version for version, _ in result.versions], pa.string())
    versions = declared.take(pa.array(np.repeat(np.arange(len(declared)), [rows for _, rows in result.versions])))
    if VERSION_FIELD in superset.names and superset.field(VERSION_FIELD).type == pa.string():
        own = result.columns[superset.get_field_index(VERSION_FIELD)]
        versions = pc.if_else(pc.fill_null(pc.not_equal(own, ""), False), own, versions)
    return pa.table([versions, *result.columns, pa.nulls(n, pa.string())], schema=plan_schema(superset))


def _divided(
    whole: pa.Table,
    cutout_columns: Sequence[str],
    superset: pa.Schema,
    kept: NDArray[np.int64],
    faults: list[tuple[int, str]],
) -> Decoded:
    raw = whole.select(raw_schema(superset, cutout_columns).names)
    cutouts = whole.select(cutout_schema(superset, cutout_columns).names)
    return Decoded(raw, cutouts, points_of(whole), kept, sorted(faults))


def _merged(fast: Decoded, slowly: Decoded, places: NDArray[np.int64], reasons: dict[str, str]) -> Decoded:
    """Return the rows of both in source order; ``places`` are those of the packets that went the slow way."""
    kept = np.concatenate([fast.kept, places[slowly.kept]])
    order = np.argsort(kept, kind="stable")
    raw, cutouts = (
        pa.concat_tables(pair).take(pa.array(order))
        for pair in ((fast.raw, slowly.raw), (fast.cutouts, slowly.cutouts))
    )
    points = np.concatenate([fast.points, slowly.points])[order]
    faults = sorted([*fast.faults, *((int(places[index]), reason) for index, reason in slowly.faults)])
    return Decoded(raw, cutouts, points, kept[order], faults, reasons)
