"""The public list of the Transient Name Server: one zipped CSV file, read without unpacking to disk."""

from __future__ import annotations

import csv
import io
import os
import re
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from pipeline.catalogs.fetch.answers import DEC, RA, kept_schema, typed
from pipeline.catalogs.fetch.service import Service
from pipeline.catalogs.fetch.session import AnswerError, Session, plain_text
from pipeline.errors import InputError
from pipeline.xmatch import CatalogDeclaration

MAX_PLAIN_BYTES = 1 << 30
_HEADER_LINES = 3
_KEY = re.compile(r"[\x21-\x7e]{1,200}")


def read_key(variable: str, environment: Mapping[str, str] | None = None) -> str:
    """Return the key that an environment variable holds, or the file that ``<variable>_FILE`` names.

    Raises
    ------
    InputError
        There is none, or it cannot be one.
    """
    variables = os.environ if environment is None else environment
    text, file = variables.get(variable, ""), variables.get(f"{variable}_FILE", "")
    if not text and file:
        try:
            text = Path(file).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"the key file that {variable}_FILE names cannot be read") from error
    text = text.strip()
    if not _KEY.fullmatch(text):
        what = "holds no key" if text else "is not set"
        raise InputError(f"environment variable {variable} {what}", mend=f"set {variable} or {variable}_FILE")
    return text


def read_marker(environment: Mapping[str, str] | None = None) -> str:
    """Return the User-Agent by which TNS knows a bot or user, made of ``TNS_BOT_ID`` and ``TNS_BOT_NAME``.

    Raises
    ------
    InputError
        One of them is not set.
    """
    variables = os.environ if environment is None else environment
    number, name = variables.get("TNS_BOT_ID", ""), variables.get("TNS_BOT_NAME", "")
    if not number.isdigit() or not re.fullmatch(r"[A-Za-z0-9 _.-]{1,80}", name):
        raise InputError(
            "TNS_BOT_ID (a number) and TNS_BOT_NAME are not set",
            mend="they stand on the page of your bot at TNS, where its key is made",
        )
    return f'tns_marker{{"tns_id":{number},"type":"bot","name":"{name}"}}'


def request_list(service: Service, session: Session, key: str, marker: str) -> bytes:
    """Ask for the list; the key is in the body of the request alone, and no redirect is followed with it."""
    session.headers["User-Agent"] = marker
    return session.exchange(lambda: session.post(service.url, data={"api_key": key}, follow_redirects=False))


def read_list(
    body: bytes, declaration: CatalogDeclaration, service: Service, scrub: Callable[[str], str] = str
) -> pa.Table:
    """Return the rows of the zipped list; ``scrub`` takes secrets out of what an error quotes.

    Raises
    ------
    AnswerError
        It is no zip file of one table, too large, damaged, empty, or lacks a column.
    """
    try:
        return _rows(_unzipped(body), declaration, service)
    except AnswerError as error:
        error.args = (scrub(str(error)),)
        raise


def _rows(plain: bytes, declaration: CatalogDeclaration, service: Service) -> pa.Table:
    start = _start_of_table(plain, service)
    types = dict.fromkeys(service.asked, pa.string())
    convert = pa.csv.ConvertOptions(include_columns=service.asked, column_types=types, quoted_strings_can_be_null=True)
    parse = pa.csv.ParseOptions(newlines_in_values=True)
    try:
        table = pa.csv.read_csv(pa.BufferReader(plain[start:]), parse_options=parse, convert_options=convert)
    except pa.ArrowException as error:
        raise AnswerError(f"the list cannot be read: {str(error)[:150]}") from None
    if not len(table):
        raise AnswerError("the list is empty")
    schema = kept_schema(declaration, service)
    names = [service.ra, service.dec, *(theirs for theirs, _ in service.columns)]
    columns = [
        typed(table[name].combine_chunks(), field.type, name, declaration.missing)
        for field, name in zip(schema, names, strict=True)
    ]
    rows = pa.table(columns, schema=schema)
    if rows[RA].null_count == len(rows) or rows[DEC].null_count == len(rows):
        raise AnswerError("no row of the list has a position")
    limits = pc.min_max(rows[RA]).as_py(), pc.min_max(rows[DEC]).as_py()
    if limits[0]["min"] < 0 or limits[0]["max"] > 360 or limits[1]["min"] < -90 or limits[1]["max"] > 90:
        raise AnswerError("the list has positions that are none")
    return rows


def _unzipped(body: bytes) -> bytes:
    """Return the one file of a zip archive, never more than the bound, whatever its directory says."""
    try:
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            inside = [item for item in archive.infolist() if not item.is_dir()]
            if len(inside) != 1:
                raise AnswerError(f"the zip file holds {len(inside)} files instead of one")
            with archive.open(inside[0]) as opened:
                plain = opened.read(MAX_PLAIN_BYTES + 1)
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, NotImplementedError, RuntimeError) as error:
        said = plain_text(body)[:100] if body.lstrip()[:1] in (b"<", b"{") else str(error)
        raise AnswerError(f"the answer is no whole zip file: {said}") from None
    if len(plain) > MAX_PLAIN_BYTES:
        raise AnswerError(f"the list is larger than {MAX_PLAIN_BYTES >> 20} MB", is_final=True)
    return plain


def _start_of_table(plain: bytes, service: Service) -> int:
    """Return where the line of column names begins; a line that dates the file stands before it."""
    start, seen = 0, ""
    for _ in range(_HEADER_LINES):
        stop = plain.find(b"\n", start)
        line = plain[start : stop if stop >= 0 else len(plain)].decode("utf-8", "replace")
        names = next(csv.reader([line]), [])
        if service.ra in names:
            missing = [name for name in service.asked if name not in names]
            if missing:
                raise AnswerError(f"the list lacks column {', '.join(missing)}")
            return start
        seen = seen or line
        if stop < 0:
            break
        start = stop + 1
    raise AnswerError(f"the list has no column {service.ra}; it begins {seen[:60]!r}")
