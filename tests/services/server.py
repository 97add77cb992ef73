"""A loopback server that answers as the catalog services do, and misbehaves as scripted.

It speaks CDS X-Match, VizieR, TAP (SIMBAD, Gaia and plain) and the list of TNS. Matches are found by brute force. What
it does is scripted per request: ``script`` holds names of behaviours; the last holds for all further requests.
"""

from __future__ import annotations

import csv
import email
import io
import re
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from urllib.parse import parse_qs

import numpy as np
from astropy.table import Table

from services import documents
from services.sky import Sky

PATHS = {
    "xmatch": "/xmatch/api/v1/sync",
    "vizier": "/viz-bin/votable",
    "simbad": "/simbad/sim-tap",
    "gaia": "/tap-server/tap",
    "tap": "/archive/tap",
    "tns": "/system/files/tns_public_objects/tns_public_objects.csv.zip",
}
FORMS = {"simbad": "binary", "gaia": "tabledata", "tap": "binary2"}


class Request:
    """What was received: path, headers, form fields, files, raw body."""

    def __init__(self, path: str, headers: dict[str, str], body: bytes) -> None:
        self.path, self.headers, self.body = path, headers, body
        self.time = time.monotonic()
        self.fields: dict[str, str] = {}
        self.files: dict[str, bytes] = {}
        kind = headers.get("content-type", "")
        if kind.startswith("multipart/"):
            message = email.message_from_bytes(f"Content-Type: {kind}\r\n\r\n".encode() + body)
            for part in message.get_payload():
                name = part.get_param("name", header="content-disposition")
                data = part.get_payload(decode=True)
                if part.get_filename():
                    self.files[name] = data
                else:
                    self.fields[name] = data.decode().rstrip("\r\n")
        elif kind.startswith("application/x-www-form-urlencoded"):
            self.fields = {name: values[0] for name, values in parse_qs(body.decode()).items()}

    @property
    def kind(self) -> str:
        return next(kind for kind, path in PATHS.items() if self.path.startswith(path))


class CatalogServer:
    """The server; ``with CatalogServer(sky) as server`` runs it in a thread."""

    def __init__(self, sky: Sky, script: tuple[str, ...] = ("well",), *, cap: int = 1_000_000) -> None:
        self.sky, self.script, self.cap = sky, list(script), cap
        self.requests: list[Request] = []
        self.tns = documents.tns([])
        self.key = "the-right-key"
        self.retry_after = "1"
        self.stopped = threading.Event()
        self._lock = threading.Lock()
        self._httpd = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"server_of_tests": self}))
        self._httpd.daemon_threads = True
        self._thread = threading.Thread(target=self._httpd.serve_forever, kwargs={"poll_interval": 0.02})

    def __enter__(self) -> CatalogServer:
        self._thread.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stopped.set()
        self._httpd.shutdown()
        self._httpd.server_close()
        self._thread.join()

    def url(self, kind: str) -> str:
        return f"http://127.0.0.1:{self._httpd.server_address[1]}{PATHS[kind]}"

    def receive(self, request: Request) -> str:
        """Note a request; return how it is to be answered."""
        with self._lock:
            self.requests.append(request)
            return self.script.pop(0) if len(self.script) > 1 else self.script[0]

    def asked_discs(self) -> int:
        """Number of discs in all requests together."""
        return sum(len(parse(request)[1]) for request in self.requests)

    # ------------------------------------------------------------------------------------- answers
    def answer(self, request: Request, behaviour: str) -> bytes:
        """Return the body for a request, right or wrong as told."""
        if request.kind == "tns":
            return self._tns(request, behaviour)
        names, discs, radius, maxrec = parse(request)
        found = [
            (number, row) for number, (ra, dec) in enumerate(discs) for row in self.sky.rows_within(ra, dec, radius)
        ]
        if "upload" not in request.fields.get("UPLOAD", "") and request.kind in FORMS and not request.files:
            found = sorted({(0, row) for _, row in found})
        if behaviour == "outside":
            found.append((0, int(np.argmax(np.abs(self.sky.ra - discs[0][0])))))
        if behaviour == "twice":
            found += found[:1]
        limit = min(maxrec, self.cap)
        is_cut = len(found) > limit
        found = found[:limit]
        if behaviour == "silent cap":
            is_cut = False
        if behaviour == "always cut":
            is_cut = True
        table = self._table(request, names, np.array(found, dtype=np.int64).reshape(-1, 2), behaviour)
        if request.kind == "xmatch":
            return documents.xmatch(table, is_cut)
        if request.kind == "vizier":
            return documents.vizier(table, is_cut, request.body.decode(), maxrec)
        return documents.tap(table, is_cut, FORMS[request.kind])

    def _table(self, request: Request, names: list[str], found: np.ndarray, behaviour: str) -> Table:
        number, rows = found.T
        table = Table()
        if request.kind == "xmatch":
            table["angDist"] = np.zeros(len(rows))
            table["angDist"].unit = "arcsec"
            table["ask_id"], table["ask_ra"] = number, np.zeros(len(rows))
            names = list(self.sky.columns)
        elif request.kind == "vizier":
            table["_q"] = number + 1
        elif request.files:
            table["ask_id"] = number
        for name in names:
            table[name] = self.sky.columns[name][rows]
            if name in self.sky.units:
                table[name].unit = self.sky.units[name]
        if behaviour == "fewer columns":
            table.remove_column(names[-1])
        elif behaviour == "other columns":
            table.rename_column(names[-1], "somethingelse")
        elif behaviour == "other units":
            table["mag"].unit = "Jy"
        elif behaviour == "radians":
            table["ra"].unit = "rad"
        elif behaviour == "empty row":
            table["ra"] = np.where(np.arange(len(table)) == 0, np.nan, table["ra"])
        elif behaviour == "wrong disc":
            table["_q" if request.kind == "vizier" else "ask_id"] = 999_999
        elif behaviour == "words":
            table["mag"] = np.array(["Fail"] * len(table))
        return table

    def _tns(self, request: Request, behaviour: str) -> bytes:
        if request.fields.get("api_key") != self.key:
            return b'{"id_code":401,"id_message":"Unauthorized","data":{"api_key":"' + request.body + b'"}}'
        return self.tns[: len(self.tns) // 2] if behaviour == "half a zip" else self.tns


def parse(request: Request) -> tuple[list[str], list[tuple[float, float]], float, int]:
    """Return (columns, discs, radius_arcsec, maxrec) of a request, by the rules of its service."""
    if request.kind == "xmatch":
        rows = list(csv.DictReader(io.StringIO(request.files["cat1"].decode())))
        fields = request.fields
        assert fields["request"] == "xmatch" and fields["RESPONSEFORMAT"] == "votable", fields
        discs = [(float(row[fields["colRA1"]]), float(row[fields["colDec1"]])) for row in rows]
        assert float(fields["distMaxArcsec"]) <= 180.0
        return [], discs, float(fields["distMaxArcsec"]), int(fields["MAXREC"])
    if request.kind == "vizier":
        script = request.body.decode()
        pairs = dict(line.split("=", 1) for line in script.splitlines() if line[:1] == "-" and "<<" not in line)
        listed = script.split("-c=<<====AstroqueryList\n")[1].split("\n====AstroqueryList")[0].splitlines()
        discs = [tuple(map(float, re.fullmatch(r"([\d.]+)([+-][\d.]+)", text).groups())) for text in listed]
        names = [
            name for key in ("-out", "-out.add") for name in pairs.get(key, "").split(",") if name not in ("", "_q")
        ]
        return names, discs, float(pairs["-c.rs"]), int(pairs["-out.max"])
    fields = request.fields
    assert fields["REQUEST"] == "doQuery" and fields["LANG"] == "ADQL", fields
    query = fields["QUERY"]
    names = [name.strip().removeprefix("c.") for name in re.search(r"TOP \d+ (.*?) FROM", query)[1].split(",")]
    maxrec = min(int(re.search(r"TOP (\d+)", query)[1]), int(fields["MAXREC"]))
    if "TAP_UPLOAD" in query:
        name, _, param = fields["UPLOAD"].partition(",param:")
        table = Table.read(io.BytesIO(request.files[param]), format="votable")
        assert f"TAP_UPLOAD.{name} AS u" in query
        radius = float(re.search(r"u\.ask_dec, ([\d.]+)\)", query)[1])
        discs = list(zip(table["ask_ra"].tolist(), table["ask_dec"].tolist(), strict=True))
        return [item for item in names if item != "u.ask_id"], discs, radius * 3600, maxrec
    circles = re.findall(r"CIRCLE\('ICRS', ([-\d.]+), ([-\d.]+), ([\d.]+)\)", query)
    return names, [(float(ra), float(dec)) for ra, dec, _ in circles], float(circles[0][2]) * 3600, maxrec


class _Handler(BaseHTTPRequestHandler):
    server_of_tests: CatalogServer
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        request = Request(self.path, {name.lower(): value for name, value in self.headers.items()}, body)
        server = self.server_of_tests
        behaviour = server.receive(request)
        if behaviour == "dead":
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
        elif behaviour.isdigit():
            headers = {"Retry-After": server.retry_after} if behaviour in ("429", "503") and server.retry_after else {}
            self._send(
                int(behaviour), documents.error("Service is busy") if behaviour != "404" else documents.HTML, headers
            )
        elif behaviour == "slow":
            server.stopped.wait(5.0)
        elif behaviour == "drip":
            self._drip(server.answer(request, behaviour))
        elif behaviour == "moved":
            self._send(307, b"", {"Location": server.url("tap")})
        else:
            fixed = {
                "html": documents.HTML,
                "error": documents.error("out of memory, key " + server.key),
                "bomb": documents.BOMB,
                "nothing": b"",
            }
            whole = fixed[behaviour] if behaviour in fixed else server.answer(request, behaviour)
            if behaviour == "half":  # a proxy that lost the end and does not know
                whole = whole[: len(whole) * 2 // 3]
            self._send(200, whole, {}, length=len(whole) + (100 if behaviour == "cut off" else 0))

    do_GET = do_POST  # noqa: N815 - the name is the library's

    def _send(self, status: int, body: bytes, headers: dict[str, str], length: int | None = None) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = True

    def _drip(self, body: bytes) -> None:
        """A byte now and then: each arrives in time, the whole never."""
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        for at in range(len(body)):
            if self.server_of_tests.stopped.wait(0.03):
                break
            try:
                self.wfile.write(body[at : at + 1])
                self.wfile.flush()
            except OSError:
                break
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Say nothing."""
