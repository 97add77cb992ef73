"""The one door to the network: a session that the clients of astroquery and pyvo send their requests through.

It stands in for a ``requests.Session``. Every answer passes here first: it is bounded in size and in time, its status
is judged, and nothing that could be a trap for an XML parser goes further. The clients build the requests; what they
make of the answer is not looked at.
"""

from __future__ import annotations

import contextlib
import datetime
import email.utils
import io
import re
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

import httpx

from pipeline import __version__
from pipeline.catalogs.fetch.service import is_loopback

USER_AGENT = f"alertmill/{__version__}"
MAX_ANSWER_BYTES = 256 << 20
_PASSING = {408, 425, 429, 500, 502, 503, 504}
"""Statuses of a service that may be well again soon."""
_DECLARED_TYPE = re.compile(rb"<!\s*(?:DOCTYPE|ENTITY)", re.IGNORECASE)
_SHOWN = 200
_LONGEST_SEC = 1e9


class AnswerError(Exception):
    """One exchange failed.

    Parameters
    ----------
    message : str
        What happened, without any secret.
    retry_after_sec : float, optional
        How long the service asks to wait.
    is_final : bool
        Asking again cannot help.
    """

    def __init__(self, message: str, *, retry_after_sec: float | None = None, is_final: bool = False) -> None:
        super().__init__(message)
        self.retry_after_sec = retry_after_sec
        self.is_final = is_final


class Session:
    """What a client of astroquery or pyvo takes for a ``requests.Session``.

    Parameters
    ----------
    timeout_sec : float
        Longest time for an answer to arrive whole.
    max_bytes : int
        Largest answer, unpacked.

    Attributes
    ----------
    requests : int
        Requests sent.
    secrets : tuple of str
        Texts that no message may show.
    """

    def __init__(self, timeout_sec: float, *, max_bytes: int = MAX_ANSWER_BYTES) -> None:
        self.headers: dict[str, str] = {"User-Agent": USER_AGENT}
        self.hooks: dict[str, list[Any]] = {"response": []}
        self.requests = 0
        self.secrets: tuple[str, ...] = ()
        self._timeout_sec = timeout_sec
        self._max_bytes = max_bytes
        self._clients: dict[bool, httpx.Client] = {}
        self._answers: list[bytes] = []
        self._failures: list[AnswerError] = []

    def close(self) -> None:
        """Close all connections."""
        while self._clients:
            self._clients.popitem()[1].close()

    def exchange(self, send: Callable[[], Any]) -> bytes:
        """Let a client send its request, and return the body of the answer.

        Raises
        ------
        AnswerError
            There is no answer, or it cannot be used.
        """
        self._answers, self._failures = [], []
        try:
            with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
                warnings.simplefilter("ignore")
                send()
        except Exception as error:
            # The answer is judged by our own reader: the client's opinion of it counts only if there is none.
            if not self._failures and not self._answers:
                raise AnswerError(self.scrub(f"the request could not be sent: {error}"), is_final=True) from None
        if self._failures:
            raise self._failures[-1] from None
        if len(self._answers) != 1:
            raise AnswerError(f"the client sent {len(self._answers)} requests instead of one", is_final=True)
        return self._answers[0]

    def scrub(self, text: str) -> str:
        """Return a text in one short line, without secrets."""
        for secret in self.secrets:
            if secret:
                text = text.replace(secret, "***")
        line = " ".join(text.split())
        return line if len(line) <= _SHOWN else line[:_SHOWN] + "..."

    # ------------------------------------------------------------------------- what clients call
    def get(self, url: str, **given: Any) -> Reply:
        """Send a GET request."""
        return self.request("GET", url, **given)

    def post(self, url: str, **given: Any) -> Reply:
        """Send a POST request."""
        return self.request("POST", url, **given)

    def request(
        self,
        method: str,
        url: str,
        *,
        params: Any = None,
        data: Any = None,
        headers: Mapping[str, str] | None = None,
        files: Any = None,
        follow_redirects: bool = True,
        **_: Any,
    ) -> Reply:
        """Send a request, judge the answer, and keep its body; other arguments of ``requests`` are not heeded."""
        self.requests += 1
        form = {key: str(value) for key, value in data.items()} if isinstance(data, Mapping) else None
        content = data.encode() if isinstance(data, str) else data if form is None else None
        # Content and type are the request's own; who asks is told by us alone.
        own = {key: value for key, value in (headers or {}).items() if key.lower() == "content-type"}
        try:
            body, reply_headers = self._exchange(
                httpx.Request(
                    method,
                    url,
                    params=params,
                    data=form,
                    content=content,
                    files=files or None,
                    headers={**own, "User-Agent": self.headers["User-Agent"], "Accept-Encoding": "gzip, deflate"},
                ),
                follow_redirects,
            )
        except AnswerError as failure:
            self._failures.append(failure)
            raise
        self._answers.append(body)
        return Reply(body, reply_headers, url)

    def _exchange(self, request: httpx.Request, follow_redirects: bool) -> tuple[bytes, httpx.Headers]:
        started = time.monotonic()
        client = self._client_for(request.url.host)
        # A request made by itself does not take over the timeout of the client.
        request.extensions = {"timeout": client.timeout.as_dict()}
        try:
            answer = client.send(request, stream=True, follow_redirects=follow_redirects)
            try:
                body = self._read(answer, started)
            finally:
                answer.close()
        except httpx.TimeoutException:
            raise AnswerError(f"no answer within {self._timeout_sec:g} sec") from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError, UnicodeError) as error:
            raise AnswerError(self.scrub(f"no whole answer: {error or type(error).__name__}")) from None
        self._judge(answer, body)
        return body, answer.headers

    def _client_for(self, host: str) -> httpx.Client:
        """Return the client for a host; a proxy of the environment is for the world outside, not for this machine."""
        is_outside = not is_loopback(host)
        if is_outside not in self._clients:
            self._clients[is_outside] = httpx.Client(
                timeout=self._timeout_sec,
                trust_env=is_outside,
                max_redirects=5,
                limits=httpx.Limits(max_keepalive_connections=0),
            )
        return self._clients[is_outside]

    def _read(self, answer: httpx.Response, started: float) -> bytes:
        pieces, size = [], 0  # taken as they come: gathering them first would let a trickle go on for ever
        for piece in answer.iter_bytes():
            size += len(piece)
            if size > self._max_bytes:
                raise AnswerError(f"the answer is larger than {self._max_bytes >> 20} MB", is_final=True)
            if time.monotonic() - started > self._timeout_sec:
                raise AnswerError(f"no whole answer within {self._timeout_sec:g} sec")
            pieces.append(piece)
        return b"".join(pieces)

    def _judge(self, answer: httpx.Response, body: bytes) -> None:
        status = answer.status_code
        if status == 200:
            return
        said = self.scrub(plain_text(body))
        raise AnswerError(
            f"HTTP {status} {answer.reason_phrase}".strip() + (f": {said}" if said else ""),
            retry_after_sec=_retry_after(answer.headers.get("retry-after")),
            is_final=status not in _PASSING,
        )


class Reply:
    """What a client takes for a ``requests.Response``."""

    def __init__(self, content: bytes, headers: httpx.Headers, url: str) -> None:
        self.status_code = 200
        self.content = content
        self.headers = headers
        self.url = url
        self.raw = _Raw(content)

    @property
    def text(self) -> str:
        """The body as text."""
        return self.content.decode("utf-8", "replace")

    def raise_for_status(self) -> None:
        """Do nothing: a status that is no success has been told already."""


class _Raw:
    """The body as the stream that pyvo reads."""

    def __init__(self, content: bytes) -> None:
        stream = io.BytesIO(content)
        self.read: Callable[..., bytes] = lambda size=-1, **_: stream.read(size)
        self.close = stream.close


class TapConnections:
    """What the TAP client of astroquery takes for its maker of connections.

    Parameters
    ----------
    address : str
        Scheme and host of the service.
    session : Session
        Through which all goes.
    """

    def __init__(self, address: str, session: Session) -> None:
        pieces = urlsplit(address)
        self._origin = f"{pieces.scheme}://{pieces.netloc}"
        self._session = session

    def get_connection(self, **_: Any) -> TapConnections:
        """Return a connection."""
        return self

    def request(self, method: str, context: str, data: Any = None, headers: Mapping[str, str] | None = None) -> None:
        """Send a request, as ``http.client`` would."""
        self._reply = self._session.request(method, self._origin + context, data=data, headers=headers)

    def getresponse(self) -> TapConnections:
        """Return the answer: this object again."""
        return self

    status, reason = 200, "OK"

    def getheaders(self) -> list[tuple[str, str]]:
        """Return the headers of the answer."""
        return list(self._reply.headers.items())

    def read(self) -> bytes:
        """Return the body of the answer."""
        return self._reply.content


def check_xml(body: bytes) -> None:
    """Raise :class:`AnswerError` for what is no plain XML: another kind of file, another encoding, document types."""
    start = body[:512].lstrip(b"\xef\xbb\xbf \t\r\n")
    if not start.startswith(b"<") or b"\0" in body:
        raise AnswerError(f"the answer is no VOTable: it begins {plain_text(start)[:60]!r}")
    if b"<html" in start.lower() or b"<!doctype html" in start.lower():
        raise AnswerError(f"the answer is a web page: {plain_text(body)[:120]!r}")
    if _DECLARED_TYPE.search(body):
        raise AnswerError("the answer declares a document type or entities, which a VOTable needs not", is_final=True)


def plain_text(body: bytes) -> str:
    """Return the words of an XML or HTML document, or of a plain text, in one short line."""
    text = body[:20_000].decode("utf-8", "replace")
    text = re.sub(r"(?is)<(script|style|head)\b.*?</\1\s*>", " ", text)
    return " ".join(re.sub(r"<[^>]*>", " ", text).split())[:_SHOWN]


def _retry_after(value: str | None) -> float | None:
    """Return the seconds that a ``Retry-After`` header asks for, given as a number or as a date."""
    if value is None:
        return None
    if re.fullmatch("[0-9]+", value.strip()):
        return min(float(value), _LONGEST_SEC)
    try:
        moment = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    return max(0.0, (moment - datetime.datetime.now(datetime.UTC)).total_seconds())
