"""Fetch the part of a catalog that some alerts need: ask for their cells, keep the answers, build the catalog."""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from pipeline import healpix
from pipeline.catalogs.building import build
from pipeline.catalogs.fetch.answers import Answer, distinct, read_answer, within
from pipeline.catalogs.fetch.cells import Discs, discs_of, smaller_discs, wanted_cells
from pipeline.catalogs.fetch.politeness import Politeness
from pipeline.catalogs.fetch.requests import query_text, request_discs
from pipeline.catalogs.fetch.service import Service, check_service
from pipeline.catalogs.fetch.session import Session
from pipeline.catalogs.fetch.snapshot import Snapshot, newest_date, snapshot_of
from pipeline.catalogs.fetch.transients import read_key, read_list, read_marker, request_list
from pipeline.catalogs.opened import META, open_catalog
from pipeline.errors import InputError, ServiceError
from pipeline.xmatch import CatalogDeclaration

TIMEOUT_SEC = 300.0
DATED = "catalog"
"""Folder of the catalog built from a dated snapshot, within that of its answers."""
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Fetched:
    """What a fetch did.

    Attributes
    ----------
    name : str
        The catalog.
    snapshot_date : str
        Day of the answers, ``YYYY-MM-DD``.
    cells_wanted, cells_known, cells_asked : int
        Cells that hold the alerts; those answered before; those answered now.
    requests, retries : int
        Requests sent; how many of them because one before had failed.
    is_complete : bool
        Every cell wanted is answered.
    rows : int
        Sources in the catalog built.
    covered_deg2 : float
        Sky that it covers.
    digest, path : str
        Digest and folder of the catalog built.
    problem : str or None
        Why it is not complete.
    """

    name: str
    snapshot_date: str
    cells_wanted: int
    cells_known: int
    cells_asked: int
    requests: int
    retries: int
    is_complete: bool
    rows: int
    covered_deg2: float
    digest: str
    path: str
    problem: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def fetch(
    declaration: CatalogDeclaration,
    healpix_29: ArrayLike,
    folder: str | Path,
    *,
    today: datetime.date,
    as_of: datetime.date | None = None,
    url: str | None = None,
    chunk: int | None = None,
    timeout_sec: float = TIMEOUT_SEC,
    is_partial_allowed: bool = False,
    politeness: Politeness | None = None,
    environment: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> Fetched:
    """Fetch a catalog for the cells of some alerts, and build it.

    The catalog built holds all cells answered for this question on that day, those of earlier calls among them. Its
    coverage is these cells; sources are asked for within a margin around them, so that a disc around any alert in a
    cell is searched whole. A source within a position's radius is found, or there is none: elsewhere it is not covered.

    Parameters
    ----------
    declaration : CatalogDeclaration
        The catalog, with a ``[service]`` table.
    healpix_29 : array_like, shape (n,)
        Order-29 cells of the alerts; -1 where one has no position.
    folder : path
        Folder of built catalogs. The catalog is made in ``<folder>/<name>``. Where snapshots matter, one of each day is
        kept beside its answers, in ``<folder>/_fetch/<name>/<YYYYMMDD>-<question>/catalog``, and ``<folder>/<name>``
        is the newest of them.
    today : datetime.date
        The day, UTC.
    as_of : datetime.date, optional
        Day of the snapshot to go on with. Default: today where snapshots matter, else the newest that is there.
    url, chunk : optional
        Another address of the service; another number of cells in a request.
    timeout_sec : float
        Longest time for one answer to arrive whole.
    is_partial_allowed : bool
        Build the catalog from the cells answered, if the service fails before the end.
    politeness : Politeness, optional
        How to ask; default that of the declaration.
    environment : mapping, optional
        Environment variables; default those of the process.
    progress : callable, optional
        Told how many cells are answered, and of how many.

    Raises
    ------
    CatalogError
        The declaration, or what was fetched before, cannot be used.
    InputError
        The day cannot be asked for, or no key is given.
    ServiceError
        The service failed in spite of all tries; what it answered before is kept, and no catalog is built.
    """
    service = check_service(declaration, url=url, chunk=chunk)
    place = Path(folder)
    date = _date(declaration, service, place, today, as_of)
    snapshot = snapshot_of(place, declaration, service, int(date.strftime("%Y%m%d")))
    wanted = np.zeros(1, np.int64) if service.kind == "tns" else wanted_cells(service.order, healpix_29)
    todo = _not_answered(service, snapshot, wanted)
    if len(todo) and declaration.snapshot and date != today:
        raise InputError(
            f"{len(todo)} cells of {declaration.name} were not asked for on {date}",
            mend="what the service answers today cannot be dated back: leave out --as-of",
        )
    asking = _Asking(declaration, service, timeout_sec, politeness or Politeness(service.pause_sec))
    if service.kind == "tns" and len(todo):
        asking.take_key(environment)
    with contextlib.closing(asking.session):
        problem, answered = _ask_all(asking, snapshot, todo, len(wanted), progress, is_partial_allowed)
    chunks = snapshot.chunks()
    if not chunks:
        raise problem or InputError(f"no alert has a position: there is nothing to ask {declaration.name} for")
    file = snapshot.assemble(declaration, service, chunks, is_complete=problem is None)
    catalog = None
    for target in _targets(declaration, place, snapshot):
        catalog = build(declaration, file, target, covered=snapshot.covered(chunks), snapshot_date=date.isoformat())
    assert catalog is not None  # noqa: S101 - there is at least one target
    return Fetched(
        declaration.name, date.isoformat(), len(wanted), len(wanted) - len(todo), answered, asking.session.requests,
        asking.politeness.retries, problem is None, catalog.rows, catalog.meta["covered_deg2"], catalog.digest,
        str(catalog.path), None if problem is None else str(problem),
    )  # fmt: skip


def _date(
    declaration: CatalogDeclaration, service: Service, place: Path, today: datetime.date, as_of: datetime.date | None
) -> datetime.date:
    if as_of is not None and as_of > today:
        raise InputError(f"the day {as_of} of a snapshot has not come yet")
    if as_of is not None or declaration.snapshot:
        return as_of or today
    newest = newest_date(place, declaration, service)
    return today if newest is None else datetime.datetime.strptime(str(newest), "%Y%m%d").date()


def _targets(declaration: CatalogDeclaration, place: Path, snapshot: Snapshot) -> list[Path]:
    """Return where to build: beside the answers of a dated snapshot, and as the catalog unless a newer one is that."""
    current = place / declaration.name
    if not declaration.snapshot:
        return [current]
    dated = snapshot.folder / DATED
    if not (current / META).is_file():
        return [dated, current]
    standing = open_catalog(current).snapshot_date
    is_newest = standing is None or int(standing.replace("-", "")) <= snapshot.date
    return [dated, current] if is_newest else [dated]


def _not_answered(service: Service, snapshot: Snapshot, cells: NDArray[np.int64]) -> NDArray[np.int64]:
    covered = snapshot.covered()
    if service.kind == "tns":
        return cells[: 0 if len(covered) else 1]
    first = cells << (2 * (healpix.MAX_ORDER - service.order))
    return cells[~healpix.in_ranges(covered, first)]


def _ask_all(
    asking: _Asking,
    snapshot: Snapshot,
    todo: NDArray[np.int64],
    wanted: int,
    progress: Progress | None,
    is_partial_allowed: bool,
) -> tuple[ServiceError | None, int]:
    """Ask for the cells chunk by chunk; return what stopped it, if that is allowed, and how many were answered."""
    service, answered = asking.service, 0
    for start in range(0, len(todo), service.chunk):
        cells = todo[start : start + service.chunk]
        try:
            rows, query = asking.rows_of(cells)
        except ServiceError as error:
            if not is_partial_allowed:
                raise
            return error, answered
        ranges = healpix.ALL_SKY if service.kind == "tns" else healpix.ranges_of(service.order, cells)
        facts = {"catalog": asking.declaration.name, "date": snapshot.date, "service": service.url, "query": query}
        snapshot.add(rows, ranges, {**facts, "kind": service.kind, "cells": len(cells)})
        answered += len(cells)
        if progress is not None:
            progress(wanted - len(todo) + answered, wanted)
    return None, answered


class _Asking:
    """One service, asked for one catalog."""

    def __init__(
        self,
        declaration: CatalogDeclaration,
        service: Service,
        timeout_sec: float,
        politeness: Politeness,
    ) -> None:
        if not 0.0 < timeout_sec <= 86_400.0:
            raise InputError(f"a timeout of {timeout_sec:g} sec is not above 0 and at most a day")
        self.declaration, self.service, self.politeness = declaration, service, politeness
        self._key = self._marker = ""
        self.session = Session(timeout_sec)
        self._label = f"{service.kind} service {urlsplit(service.url).hostname}, catalog {declaration.name}"

    def take_key(self, environment: Mapping[str, str] | None) -> None:
        """Read the key that the service needs, and see to it that no message shows it."""
        self._key = read_key(self.service.key_variable, environment)
        self._marker = read_marker(environment)
        self.session.secrets = (self._key,)

    def rows_of(self, cells: NDArray[np.int64]) -> tuple[pa.Table, str]:
        """Return the sources in some cells and around them, each once, and what was asked."""
        if self.service.kind == "tns":
            return self.politeness.ask(self._list, self._label), f"POST {self.service.url}"
        discs = discs_of(self.service.order, cells, self.service.margin_arcsec)
        rows = within(self._discs(discs), discs)
        return distinct(rows), query_text(self.service, discs)

    def _list(self) -> pa.Table:
        body = request_list(self.service, self.session, self._key, self._marker)
        return read_list(body, self.declaration, self.service, self.session.scrub)

    def _discs(self, discs: Discs) -> pa.Table:
        """Return the rows in some discs, in smaller pieces where an answer is truncated or could be."""
        answer = self.politeness.ask(lambda: self._answer(discs), self._label)
        if not answer.is_cut:
            return answer.rows
        if len(discs) > 1:
            return pa.concat_tables([self._discs(half) for half in discs.halves()])
        smaller = smaller_discs(discs)
        if smaller is None:
            raise ServiceError(
                f"{self._label}: the answer is truncated even for a disc of {discs.radius_arcsec:.1f} arcsec "
                f"at {discs.ra[0]:.6f} {discs.dec[0]:.6f}",
                mend="raise maxrec in [service] of the declaration",
            )
        return self._discs(smaller)

    def _answer(self, discs: Discs) -> Answer:
        body = request_discs(self.service, discs, self.session)
        return read_answer(body, self.declaration, self.service, discs)
