"""Answers of services: VOTables to Arrow tables of the declared columns, or a failure; never a doubtful value."""

from __future__ import annotations

import gzip
import io
import warnings
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.catalogs.fetch.cells import TOLERANCE_ARCSEC, Discs
from pipeline.catalogs.fetch.service import ADQL_KINDS, Service
from pipeline.catalogs.fetch.session import MAX_ANSWER_BYTES, AnswerError, check_xml, plain_text
from pipeline.xmatch import CatalogDeclaration

RA, DEC, DISC = "_kept_ra_deg", "_kept_dec_deg", "ask_id"
_ROUND_LEADS = {"1", "2", "3", "5"}
_LEAST_ROUND = 50
_SLACK_ARCSEC = 1.0
_MOTION_YEARS = 30.0
"""Services that place sources at J2000 are at most that far from the epochs in use."""


@dataclass(frozen=True)
class Answer:
    """The rows of one answer.

    Attributes
    ----------
    rows : pyarrow.Table
        Schema of :func:`kept_schema`.
    is_cut : bool
        It is, or may be, only the beginning of the true answer: it has to be asked for in smaller pieces.
    """

    rows: pa.Table
    is_cut: bool


def kept_schema(declaration: CatalogDeclaration, service: Service) -> pa.Schema:
    """Return the schema under which answers are kept: positions in degrees, then columns as in the catalog's file."""
    types = {item.source: item.arrow_type for item in declaration.columns}
    kept = [(name, types.get(name, pa.float64())) for _, name in service.columns]
    return pa.schema([(RA, pa.float64()), (DEC, pa.float64()), *kept])


def read_answer(body: bytes, declaration: CatalogDeclaration, service: Service, discs: Discs) -> Answer:
    """Return the rows of an answer to a request for some discs.

    Raises
    ------
    AnswerError
        It is no VOTable, reports an error, is truncated in the middle, lacks a column or has others, holds a value that
        is none of its column's type, another unit, a row without position or outside the discs, or a row twice.
    """
    table, status = _parse(_unpacked(body), service)
    is_cut = status == "OVERFLOW"
    if table is None:
        if is_cut:
            raise AnswerError("the answer is truncated to no row at all")
        return Answer(kept_schema(declaration, service).empty_table(), False)
    names = _names(table, service)
    _check_units(table, names, declaration, service)
    rows = _rows(table, names, declaration, service)
    disc = _disc_of(table, names, discs, service)
    _check_positions(rows, discs, declaration)
    if service.duplicates == "refuse":
        _check_twins(rows, disc)
    if is_cut and not len(rows):
        raise AnswerError("the answer is truncated to no row at all")
    return Answer(rows, is_cut or len(rows) >= service.maxrec or is_round(len(rows)))


def is_round(rows: int) -> bool:
    """Return whether a number of rows looks like a limit (50, 100, 2000, ...), which a service may not have told."""
    text = str(rows)
    return rows >= _LEAST_ROUND and text[0] in _ROUND_LEADS and set(text[1:]) == {"0"}


def within(rows: pa.Table, discs: Discs) -> pa.Table:
    """Return the rows that lie in one of the discs, whatever else was asked beside them."""
    edge = Discs(discs.ra, discs.dec, discs.radius_arcsec - TOLERANCE_ARCSEC / 2.0)
    is_in = np.isfinite(edge.distance_arcsec(rows[RA].to_numpy(), rows[DEC].to_numpy(), 0.0))
    return rows.filter(pa.array(is_in))


def distinct(rows: pa.Table) -> pa.Table:
    """Return every row once, in an order that only the rows themselves decide."""
    keys = [(name, "ascending") for name in rows.column_names]
    rows = rows.combine_chunks().take(pc.sort_indices(rows, sort_keys=keys))
    return rows.filter(pa.array(~_repeats(rows)))


def _repeats(rows: pa.Table) -> np.ndarray:
    """Return which rows of a sorted table equal the one before; null equals null."""
    if len(rows) < 2:
        return np.zeros(len(rows), dtype=bool)
    same = np.ones(len(rows) - 1, dtype=bool)
    for column in rows.columns:
        later, sooner = column[1:], column[:-1]
        equal = pc.fill_null(pc.equal(later, sooner), False)
        both_null = pc.and_(later.is_null(), sooner.is_null())
        same &= pc.or_(equal, both_null).to_numpy(zero_copy_only=False)
    return np.concatenate([[False], same])


def _unpacked(body: bytes) -> bytes:
    """Return the body, unpacked where the service sent a gzip file, within the bound for answers."""
    if not body.startswith(b"\x1f\x8b"):
        return body
    try:
        with gzip.open(io.BytesIO(body)) as packed:
            plain = packed.read(MAX_ANSWER_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise AnswerError(f"the answer cannot be unpacked: {error}") from None
    if len(plain) > MAX_ANSWER_BYTES:
        raise AnswerError(f"the answer is larger than {MAX_ANSWER_BYTES >> 20} MB", is_final=True)
    return plain


def _parse(body: bytes, service: Service) -> tuple[Any, str]:
    """Return the one table of a VOTable (None if it has none) and its status."""
    from astropy.io import votable

    check_xml(body)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = votable.parse(io.BytesIO(body), verify="ignore", invalid="exception")
            tables = list(tree.iter_tables())
    except Exception as error:  # astropy raises many kinds for what is not well-formed
        raise AnswerError(f"the answer is no whole VOTable: {plain_text(str(error).encode())[:120]}") from None
    infos = [*tree.infos, *(info for item in tree.resources for info in item.infos)]
    infos += [info for table in tables for info in table.infos]
    states = [(str(info.value).upper(), info.content) for info in infos if str(info.name).upper() == "QUERY_STATUS"]
    wrong = [(value, text) for value, text in states if value not in ("OK", "OVERFLOW")]
    wrong += [
        ("ERROR", f"{item.value} {item.content or ''}") for item in infos if str(item.name) in ("Error", "Errors")
    ]
    if wrong:
        raise AnswerError(f"the service reports {wrong[0][0]}: {plain_text(str(wrong[0][1] or '').encode())}")
    results = [table for table in tables if table.fields]
    if len(results) > 1:
        raise AnswerError(f"the answer has {len(results)} tables instead of one")
    # DALI: an answer begins with its status. VizieR has none where nothing was cut, but repeats the query.
    is_told = states or (service.kind == "vizier" and any(str(info.name) == "queryParameters" for info in infos))
    if not is_told or (not results and service.kind != "vizier"):
        raise AnswerError("the answer is a VOTable without " + ("a status" if not is_told else "a table"))
    is_cut = any(value == "OVERFLOW" for value, _ in states)
    return (results[0] if results else None), ("OVERFLOW" if is_cut else "OK")


def _names(table: Any, service: Service) -> dict[str, int]:
    """Return where each column that was asked for stands; TAP services may have changed its case."""
    present = [str(field.name) for field in table.fields]
    lower = [name.lower() for name in present]
    own = {"xmatch": [DISC], "vizier": ["_q"]}.get(service.kind, [DISC] if service.discs == "upload" else [])
    found = {}
    for name in [*service.asked, *own]:
        if name in present:
            found[name] = present.index(name)
        elif lower.count(name.lower()) == 1:
            found[name] = lower.index(name.lower())
    missing = [name for name in [*service.asked, *own] if name not in found]
    if missing:
        raise AnswerError(f"the answer lacks column {', '.join(missing)}; it has {', '.join(present)[:120]}")
    others = [name for at, name in enumerate(present) if at not in found.values()]
    if others and service.kind in ADQL_KINDS:
        raise AnswerError(f"the answer has column {', '.join(others)[:120]}, which was not asked for")
    return found


def _check_units(table: Any, at: dict[str, int], declaration: CatalogDeclaration, service: Service) -> None:
    units = {item.source: item.unit for item in declaration.columns}
    if declaration.motion is not None:
        units |= {declaration.motion.pmra: "mas/yr", declaration.motion.pmdec: "mas/yr"}
    wanted = [
        (service.ra, "deg"),
        (service.dec, "deg"),
        *((theirs, units[source]) for theirs, source in service.columns),
    ]
    for name, unit in wanted:
        given = table.fields[at[name]].unit
        if unit and given is not None and str(given) and not is_same_unit(str(given), unit):
            raise AnswerError(f"column {name} is in {given}, declared in {unit}")


def is_same_unit(given: str, declared: str) -> bool:
    """Return whether two units are one, however they are spelt."""
    from astropy import units

    def parsed(text: str) -> Any:
        return units.Unit(text.strip("'\""), parse_strict="silent")

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        one, other = parsed(given), parsed(declared)
    if isinstance(one, units.UnrecognizedUnit) or isinstance(other, units.UnrecognizedUnit):
        return given.strip().lower() == declared.strip().lower()
    return bool(one == other)


def _rows(table: Any, at: dict[str, int], declaration: CatalogDeclaration, service: Service) -> pa.Table:
    schema = kept_schema(declaration, service)
    columns = []
    for field, name in zip(schema, [service.ra, service.dec, *(theirs for theirs, _ in service.columns)], strict=True):
        raw = _arrow(table.array[table.fields[at[name]].ID], name)
        columns.append(typed(raw, field.type, name, declaration.missing))
    return pa.table(columns, schema=schema)


def _arrow(values: Any, name: str) -> pa.Array:
    data, mask = np.ma.getdata(values), np.ma.getmaskarray(values)
    if data.dtype.kind in "SOU":
        texts = [item.decode("utf-8", "replace") if isinstance(item, bytes) else item for item in data.tolist()]
        if not all(item is None or isinstance(item, str) for item in texts):
            raise AnswerError(f"column {name} holds lists of values")
        return pa.array([None if item is None else item.strip() for item in texts], mask=mask, type=pa.string())
    if data.ndim != 1:
        raise AnswerError(f"column {name} holds lists of values")
    return pa.array(np.ascontiguousarray(data.astype(data.dtype.newbyteorder("="))), mask=mask)


def typed(data: pa.Array, target: pa.DataType, name: str, missing: tuple[str, ...]) -> pa.Array:
    """Return values in the declared type; what does not fit it is a failure, not a null."""
    if pa.types.is_string(data.type):
        none = pc.is_in(data, value_set=pa.array(["", *missing], pa.string()))
        data = pc.if_else(none, pa.scalar(None, pa.string()), data)
    if pa.types.is_floating(data.type):
        data = pc.if_else(pc.is_finite(data), data, pa.scalar(None, data.type))
    if pa.types.is_string(data.type) != pa.types.is_string(target) and pa.types.is_floating(data.type):
        raise AnswerError(f"column {name} holds numbers with fractions where texts are declared")
    try:
        return data.cast(target, safe=not (pa.types.is_floating(target) and pa.types.is_floating(data.type)))
    except pa.ArrowException as error:
        raise AnswerError(f"column {name} holds what is no {target}: {str(error)[:120]}") from None


def _disc_of(table: Any, at: dict[str, int], discs: Discs, service: Service) -> pa.Array:
    """Return for which disc each row was given, checked; all zero where the service does not tell."""
    own = "_q" if service.kind == "vizier" else DISC
    if own not in at:
        return pa.array(np.zeros(len(table.array), dtype=np.int64))
    numbers = typed(_arrow(table.array[table.fields[at[own]].ID], own), pa.int64(), own, ())
    first = 1 if service.kind == "vizier" else 0
    if numbers.null_count or (
        len(numbers) and (pc.min(numbers).as_py() < first or pc.max(numbers).as_py() >= first + len(discs))
    ):
        raise AnswerError(f"column {own} numbers positions that were not asked for")
    return numbers


def _check_positions(rows: pa.Table, discs: Discs, declaration: CatalogDeclaration) -> None:
    if rows[RA].null_count or rows[DEC].null_count:
        raise AnswerError("the answer has a row without position")
    if not len(rows):
        return
    slack = np.full(len(rows), _SLACK_ARCSEC)
    if declaration.motion is not None:
        names = declaration.motion.pmra, declaration.motion.pmdec
        motion = [pc.fill_null(rows[name].cast(pa.float64()), 0.0).to_numpy() for name in names]
        slack += np.hypot(*motion) * 1e-3 * _MOTION_YEARS
    is_out = ~np.isfinite(discs.distance_arcsec(rows[RA].to_numpy(), rows[DEC].to_numpy(), slack))
    if is_out.any():
        row = int(np.argmax(is_out))
        place = f"{rows[RA][row].as_py():.6f} {rows[DEC][row].as_py():.6f}"
        raise AnswerError(f"{int(is_out.sum())} rows lie outside the sky that was asked for, the first at {place}")


def _check_twins(rows: pa.Table, disc: pa.Array) -> None:
    sorted_rows = rows.append_column(DISC, disc)
    keys = [(name, "ascending") for name in sorted_rows.column_names]
    twins = int(_repeats(sorted_rows.take(pc.sort_indices(sorted_rows, sort_keys=keys))).sum())
    if twins:
        raise AnswerError(f"the answer has {twins} rows twice")
