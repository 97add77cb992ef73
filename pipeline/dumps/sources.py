"""What an input holds: its sources, each one file or one folder of packets, found by content and not by name."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from isal import isal_zlib

from pipeline.avro.container import MAGIC, FrameError, HeaderCache
from pipeline.avro.wire import is_wire
from pipeline.dumps.deflate import ZLIB_ERROR
from pipeline.dumps.tar import BLOCK, is_header
from pipeline.errors import InputError, SourceError

NATIVE = "native"
PEER_MARKER = "fink_broker_version"
"""The column that the peer's re-encoded packets carry, Parquet and Avro alike."""

_HEAD_BYTES = 64 << 10


@dataclass(frozen=True, slots=True)
class Source:
    """One source of an input.

    Attributes
    ----------
    name : str
        Relative, unique within the input; what ledgers show.
    path : str
        Where it is.
    kind : str
        ``folder`` (packets, one a file), ``tar``, ``tar.gz``, ``avro`` (a container), ``wire`` (one message) or
        ``parquet`` (a re-encoded table: a file or a folder of files).
    size : int
        Bytes; of a folder, of its members.
    mtime_ns : int
        Last change; of a folder, the latest of its members.
    state : str
        Digest of the names, sizes and times of all its files, the time of their last change of any kind included:
        another state may be another content, even where size and ``mtime_ns`` are equal.
    origin : str
        ``native``, or who has written the packets anew: ``fink-transfer-parquet``, ``fink-transfer-avro``,
        ``parquet``.
    """

    name: str
    path: str
    kind: str
    size: int
    mtime_ns: int
    origin: str
    state: str = ""


def list_sources(paths: Sequence[str]) -> list[Source]:
    """Return the sources that ``paths`` hold.

    A file is one source. A folder is one source with all the packets in it, at any depth; archives and Parquet files
    in it are sources of their own (all Parquet files together are one).

    Parameters
    ----------
    paths : sequence of str
        Files and folders.

    Returns
    -------
    list of Source
        In the order given, those within a folder by name. A folder without any packet is a source with none.

    Raises
    ------
    InputError
        A path is missing, unreadable, given twice, an empty file, or of a kind that is not known.
    """
    roots = [Path(path) for path in paths]
    for root in roots:
        if not root.exists():
            raise InputError(f"input {root} does not exist", mend="check the path")
    real = [root.resolve() for root in roots]
    if len(set(real)) < len(real):
        raise InputError(f"input {next(r for r in roots if real.count(r.resolve()) > 1)} is given twice")
    out: list[Source] = []
    for root, name in zip(roots, _unique_names(real), strict=True):
        try:
            out.extend(_of_folder(root, name) if root.is_dir() else [_of_file(root, name)])
        except OSError as error:
            raise InputError(f"input {root} cannot be read: {error.strerror or error}") from None
    return out


def check_unchanged(sources: Sequence[Source]) -> None:
    """Raise :class:`SourceError` if a source is no longer what it was when it was listed."""
    for source in sources:
        path = Path(source.path)
        try:
            now = _of_folder(path, source.name) if path.is_dir() else [_of_file(path, source.name)]
        except (InputError, OSError):
            now = []
        if not any(one.kind == source.kind and one.state == source.state for one in now):
            raise SourceError("it changed while it was read", source=source.name, mend="run again when it is whole")


def _unique_names(roots: list[Path]) -> list[str]:
    """Return the last parts of each path, as few as tell them apart."""
    for depth in range(1, max((len(root.parts) for root in roots), default=1) + 1):
        names = ["/".join(printable(part) for part in root.parts[-depth:] if part != root.anchor) for root in roots]
        if len(set(names)) == len(names):
            return names
    raise InputError("two inputs have one name")


def printable(name: str) -> str:
    """Return a file name as valid Unicode: a byte that is not UTF-8 is written as its hexadecimal escape."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def walk_files(folder: Path) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Yield (relative name, entry) of every file below ``folder``, sorted by relative name."""
    pending = [("", str(folder))]
    found: list[tuple[str, os.DirEntry[str]]] = []
    while pending:
        prefix, path = pending.pop()
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    pending.append((f"{prefix}{entry.name}/", entry.path))
                elif entry.is_file():
                    found.append((f"{prefix}{entry.name}", entry))
    yield from sorted(found, key=lambda item: item[0])


def is_packet(name: str, head: bytes) -> bool:
    """Whether a member is a packet, by its first bytes or its name (AppleDouble ``._x.avro`` is none)."""
    base = name.rpartition("/")[2].lower()
    return head[:4] == MAGIC or (base.endswith(".avro") and not base.startswith("._"))


def member_role(name: str, path: str) -> str:
    """Return what a file of a folder is: ``packet``, ``tar``, ``tar.gz``, ``parquet`` or ``other``."""
    base = name.rpartition("/")[2].lower()
    if base.startswith("."):
        return "other"
    if base.endswith((".tar", ".tar.gz", ".tgz")):
        return "tar" if base.endswith(".tar") else "tar.gz"
    if base.endswith(".parquet"):
        return "parquet"
    if is_packet(name, b""):
        return "packet"
    with Path(path).open("rb") as file:
        return "packet" if is_packet(name, file.read(len(MAGIC))) else "other"


def _of_folder(folder: Path, name: str) -> list[Source]:
    out: list[Source] = []
    found: dict[str, list[os.DirEntry[str]]] = {"packet": [], "parquet": []}
    for relative, entry in walk_files(folder):
        role = member_role(relative, entry.path)
        if role in found:
            found[role].append(entry)
        elif role != "other":
            out.append(_of_file(Path(entry.path), f"{name}/{printable(relative)}"))
    if found["parquet"]:
        # packets and tables in one folder are two sources, and two names
        label = f"{name}/*.parquet" if found["packet"] else name
        origin = _parquet_origin(pq.read_schema(found["parquet"][0].path))
        out.insert(0, _gathered(label, folder, "parquet", found["parquet"], origin))
    if found["packet"] or not out:
        first = found["packet"][0].path if found["packet"] else None
        out.insert(0, _gathered(name, folder, "folder", found["packet"], _avro_origin(first)))
    return out


def _gathered(name: str, folder: Path, kind: str, entries: list[os.DirEntry[str]], origin: str) -> Source:
    stats = [entry.stat() for entry in entries]
    latest = max((stat.st_mtime_ns for stat in stats), default=folder.stat().st_mtime_ns)
    state = _state((entry.path, stat) for entry, stat in zip(entries, stats, strict=True))
    return Source(name, str(folder), kind, sum(stat.st_size for stat in stats), latest, origin, state)


def _state(files: Iterable[tuple[str, os.stat_result]]) -> str:
    digest = hashlib.sha256()
    for path, stat in files:
        told = f"{stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns} {stat.st_ino}"
        digest.update(os.fsencode(path) + b"\0" + told.encode() + b"\n")
    return digest.hexdigest()[:32]


def _of_file(path: Path, name: str) -> Source:
    stat = path.stat()
    if stat.st_size == 0:
        raise InputError(f"input {path} is empty", mend="fetch it again")
    with path.open("rb") as file:
        kind = _kind(file.read(_HEAD_BYTES), path)
    origin = NATIVE
    if kind == "parquet":
        origin = _parquet_origin(_read_schema(path))
    elif kind == "avro":
        origin = _avro_origin(str(path))
    return Source(name, str(path), kind, stat.st_size, stat.st_mtime_ns, origin, _state([(str(path), stat)]))


def _kind(head: bytes, path: Path) -> str:
    if head[:4] == MAGIC:
        return "avro"
    if head[:4] == b"PAR1":
        return "parquet"
    if head[:2] == b"\x1f\x8b":
        try:
            inner = isal_zlib.decompressobj(31).decompress(head, BLOCK)
        except ZLIB_ERROR as error:
            raise InputError(f"input {path} is a damaged gzip file ({error})", mend="fetch it again") from None
        if _is_tar(inner, path) or (len(inner) < BLOCK and _is_called_tar(path)):
            return "tar.gz"
        raise InputError(f"input {path} is a gzip file, but not of a tar archive", mend="decompress it first")
    if _is_tar(head[:BLOCK], path):
        return "tar"
    if _is_called_tar(path) or path.name.lower().endswith(".parquet"):
        raise InputError(f"input {path} is damaged: its first bytes are not those of its kind", mend="fetch it again")
    if is_wire(head):
        return "wire"
    if path.name.lower().endswith(".avro"):
        return "avro"
    raise InputError(
        f"input {path} is of no known kind", mend="give a folder of packets, .tar, .tar.gz, .avro or .parquet"
    )


def _is_tar(block: bytes, path: Path) -> bool:
    """Whether a file begins with a tar header; zeros are an archive without members only if the name says so."""
    return is_header(block) and (any(block) or _is_called_tar(path))


def _is_called_tar(path: Path) -> bool:
    return path.name.lower().endswith((".tar", ".tar.gz", ".tgz"))


def _read_schema(path: Path) -> pa.Schema:
    try:
        return pq.read_schema(path)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"input {path} is a damaged Parquet file ({' '.join(str(error).split())[:120]})") from None


def _parquet_origin(schema: pa.Schema) -> str:
    return "fink-transfer-parquet" if PEER_MARKER in schema.names else "parquet"


def _avro_origin(path: str | None) -> str:
    """Return who wrote the packet at ``path``: a damaged one is native until decoding says what is wrong with it."""
    if path is None:
        return NATIVE
    with Path(path).open("rb") as file:
        head = file.read(8 << 20)
    try:
        names = HeaderCache(1).get(head).schema.arrow.names
    except FrameError:
        return NATIVE
    return "fink-transfer-avro" if PEER_MARKER in names else NATIVE


# --------------------------------------------------------------------------------------- identity
def file_sha256(path: str) -> str:
    """Return the sha256 of one file."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def source_sha256(source: Source) -> str:
    """Return the sha256 of a source; of a folder, of its sorted members' names and sha256."""
    path = Path(source.path)
    if not path.is_dir():
        return file_sha256(source.path)
    wanted = "parquet" if source.kind == "parquet" else "packet"
    digest = hashlib.sha256()
    for name, entry in walk_files(path):
        if member_role(name, entry.path) == wanted:
            digest.update(os.fsencode(name) + b"\0" + file_sha256(entry.path).encode() + b"\n")
    return digest.hexdigest()
