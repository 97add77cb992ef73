"""Requests for discs of the sky, one function a kind of service, each through its client of astroquery.

The clients are imported when they are used: that takes seconds. Two of them are kept from asking more than was wanted.
``astroquery.gaia`` asks its archive for news when it is imported, so its base, the TAP client, is used with that
archive's address; the cross-match client loads the list of all tables first, so it is told the one that is meant.
"""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from pipeline.catalogs.fetch.answers import DISC
from pipeline.catalogs.fetch.cells import Discs
from pipeline.catalogs.fetch.service import Service
from pipeline.catalogs.fetch.session import Session, TapConnections

_UPLOAD = "asked"
_REGULAR = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_RESERVED = re.compile(
    "all|and|area|as|box|by|case|char|circle|close|contains|coord1|coord2|date|day|distance|double|exists|from|group|"
    "hour|in|intersects|is|join|key|level|like|log|max|min|minute|month|not|null|number|on|open|or|order|point|polygon|"
    "position|power|read|real|region|section|select|size|sum|table|time|top|type|union|unique|user|value|values|view|"
    "where|year|zone",
    re.IGNORECASE,
)
"""Words of ADQL 2.0 and SQL92 that catalogs use as names of columns."""


def request_discs(service: Service, discs: Discs, session: Session) -> bytes:
    """Ask a service for every source in some discs, and return its answer as it came.

    Raises
    ------
    AnswerError
        There is no answer, or one that tells a failure by its status.
    """
    send = {"xmatch": _xmatch, "vizier": _vizier, "simbad": _simbad, "tap": _tap, "gaia": _tap}[service.kind]
    with _quiet():
        call = send(service, discs, session)
    return session.exchange(call)


def query_text(service: Service, discs: Discs) -> str:
    """Return what is asked, in the service's own language, as it is kept beside the answer."""
    radius = f"{discs.radius_arcsec:.3f}"
    if service.kind == "xmatch":
        return f"request=xmatch cat2={service.table} distMaxArcsec={radius} MAXREC={service.maxrec}"
    if service.kind == "vizier":
        return f"-source={service.table} -out={','.join(service.asked)} -c.rs={radius} -out.max={service.maxrec}"
    return adql(
        service, discs if service.discs == "upload" else Discs(discs.ra[:1], discs.dec[:1], discs.radius_arcsec)
    )


def adql(service: Service, discs: Discs) -> str:
    """Return the ADQL query for the discs, which stand in an uploaded table or in the query itself."""
    names = [f"c.{_quoted(name)}" for name in service.asked]
    point = f"POINT('ICRS', c.{_quoted(service.ra)}, c.{_quoted(service.dec)})"
    radius = f"{discs.radius_arcsec / 3600.0:.9f}"
    further = f" AND ({service.where})" if service.where else ""
    if service.discs == "upload":
        circle = f"CIRCLE('ICRS', u.ask_ra, u.ask_dec, {radius})"
        return (  # the declaration names the table and may add a condition; nothing here comes from data
            f"SELECT TOP {service.maxrec} u.{DISC}, {', '.join(names)} FROM {service.table} AS c "  # noqa: S608
            f"JOIN TAP_UPLOAD.{_UPLOAD} AS u ON 1=CONTAINS({point}, {circle})" + further.replace(" AND", " WHERE", 1)
        )
    places = zip(discs.ra.tolist(), discs.dec.tolist(), strict=True)
    circles = [f"1=CONTAINS({point}, CIRCLE('ICRS', {ra:.9f}, {dec:.9f}, {radius}))" for ra, dec in places]
    return (
        f"SELECT TOP {service.maxrec} {', '.join(names)} FROM {service.table} AS c "  # noqa: S608
        f"WHERE ({' OR '.join(circles)}){further}"
    )


def _quoted(name: str) -> str:
    is_plain = _REGULAR.fullmatch(name) and not _RESERVED.fullmatch(name)
    return name if is_plain else f'"{name}"'


def _upload(discs: Discs) -> Any:
    from astropy.table import Table

    return Table({DISC: np.arange(len(discs)), "ask_ra": discs.ra, "ask_dec": discs.dec})


def _xmatch(service: Service, discs: Discs, session: Session) -> Callable[[], Any]:
    from astropy import units
    from astroquery.xmatch import XMatchClass

    class Client(XMatchClass):  # type: ignore[misc]
        def get_available_tables(self, *, cache: bool = True) -> list[str]:
            return [service.table.removeprefix("vizier:")]

    client = Client()
    client.URL, client._session = service.url, session
    return lambda: client.query_async(
        cat1=_upload(discs),
        cat2=service.table,
        max_distance=discs.radius_arcsec * units.arcsec,
        colRA1="ask_ra",
        colDec1="ask_dec",
        cache=False,
        MAXREC=service.maxrec,
    )


def _vizier(service: Service, discs: Discs, session: Session) -> Callable[[], Any]:
    from astropy import units
    from astropy.table import Table
    from astroquery.vizier import VizierClass

    class Client(VizierClass):  # type: ignore[misc]
        def _server_to_url(self, return_type: str = "votable") -> str:
            return service.url

    client = Client(columns=service.asked, catalog=service.table, row_limit=service.maxrec)
    client._session = session
    positions = Table({"_RAJ2000": discs.ra * units.deg, "_DEJ2000": discs.dec * units.deg})
    # VizieR reads "-c.rs" in arcsec; astroquery chooses the unit by that of the radius.
    radius = discs.radius_arcsec * units.arcsec
    return lambda: client.query_region_async(positions, radius=radius, cache=False)


def _simbad(service: Service, discs: Discs, session: Session) -> Callable[[], Any]:
    from astroquery.simbad import SimbadClass

    class Client(SimbadClass):  # type: ignore[misc]
        _session = session

        @property
        def tap(self) -> Any:
            # The class knows its mirrors by name and https alone; the service it makes takes any address.
            return type(super().tap)(service.url, session=session)

    client = Client()
    client._hardlimit = service.maxrec  # else the client asks for the service's capabilities first
    uploads = {_UPLOAD: _upload(discs)} if service.discs == "upload" else {}
    if uploads:
        return lambda: client.query_tap(adql(service, discs), maxrec=service.maxrec, **uploads)
    return lambda: client.tap.run_sync(adql(service, discs), maxrec=service.maxrec)  # query_tap would keep answers


def _tap(service: Service, discs: Discs, session: Session) -> Callable[[], Any]:
    from astroquery.utils.tap.conn.tapconn import TapConn
    from astroquery.utils.tap.core import TapPlus

    pieces = urlsplit(service.url)
    connections = TapConn(
        ishttps=pieces.scheme == "https",
        host=pieces.hostname,
        server_context="",
        tap_context=pieces.path.strip("/"),
        connhandler=TapConnections(service.url, session),
    )
    client = TapPlus(connhandler=connections)
    form = "votable_plain" if service.kind == "gaia" else "votable"
    uploaded = {"upload_resource": _upload(discs), "upload_table_name": _UPLOAD} if service.discs == "upload" else {}
    return lambda: client.launch_job(adql(service, discs), output_format=form, maxrec=service.maxrec, **uploaded)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what clients print and warn of when they are imported out of our output."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
