"""The root: one folder that holds an archive, with its layout version."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from pipeline import paths
from pipeline.errors import StoreError

_FORGOTTEN_SEC = 600.0
"""A small file that has been in the making for so long was forgotten, whichever machine began it."""


@dataclass(frozen=True)
class Root:
    """A folder that holds an archive. Picklable; opens nothing.

    Parameters
    ----------
    folder : str
        Absolute path.
    """

    folder: str

    def path(self, relative: str) -> Path:
        """Return the absolute path of something within the root."""
        return Path(self.folder, relative)

    def exists(self, relative: str) -> bool:
        """Tell whether a file or folder is there."""
        return self.path(relative).exists()

    def files(self, folder: str, pattern: str = "*") -> Iterator[str]:
        """Yield the relative paths of the files below ``folder`` whose names match, sorted; none if it is absent."""
        base = self.path(folder)
        if base.is_dir():
            for path in sorted(base.rglob(pattern)):
                if path.is_file():
                    yield path.relative_to(self.folder).as_posix()

    def write_text(self, relative: str, text: str) -> None:
        """Write a small file so that a reader sees either the old one or the whole new one."""
        self.write_bytes(relative, text.encode())

    def write_bytes(self, relative: str, data: bytes) -> None:
        """Write a small file so that a reader sees either the old one or the whole new one."""
        target = self.path(relative)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = temporary_name(target)
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(target.parent)

    def move(self, moves: Mapping[str, str]) -> None:
        """Move files within the root, origin to destination, in the order given, and make that durable.

        What stands at a destination is replaced.
        """
        folders: set[Path] = set()
        for origin, destination in moves.items():
            target = self.path(destination)
            if target.parent not in folders:
                target.parent.mkdir(parents=True, exist_ok=True)
                folders.add(target.parent)
            self.path(origin).replace(target)
        # A new folder is there for good only when the folders above it are written too.
        above = {parent for folder in folders for parent in folder.parents if parent.is_relative_to(self.folder)}
        for folder in sorted(folders | above, key=lambda path: -len(path.parts)):
            sync_folder(folder)

    def remove(self, relative: str) -> None:
        """Delete a file if it is there, and the folders that it leaves empty."""
        path = self.path(relative)
        path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # not empty, or just removed by another run
            for parent in path.parents:
                if parent == Path(self.folder):
                    break
                parent.rmdir()

    def dead_temporaries(self) -> list[str]:
        """Return the unfinished small files that killed runs left beside ledgers, leases and schemas."""
        folders = [paths.LEASES, ".", "*/ledger", "*/schemas", "*/science", "*/science/*", "events/*"]
        found = {path for folder in folders for path in Path(self.folder).glob(f"{folder}/.*.tmp") if _is_dead(path)}
        return sorted(path.relative_to(self.folder).as_posix() for path in found)


def temporary_name(target: Path) -> Path:
    """Return a name beside ``target`` for writing it; it tells the process, so that a dead one's can be removed."""
    return target.with_name(f".{target.name}.{_host()}-{os.getpid()}-{uuid.uuid4().hex[:12]}.tmp")


def _host() -> str:
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


def _is_dead(temporary: Path) -> bool:
    host, pid, _ = f"--{temporary.name.removesuffix('.tmp').rpartition('.')[2]}".rsplit("-", 2)
    if host.lstrip("-") == _host() and pid.isdigit() and not psutil.pid_exists(int(pid)):
        return True
    with contextlib.suppress(OSError):
        return time.time() - temporary.stat().st_mtime > _FORGOTTEN_SEC
    return False


def sync_folder(folder: Path) -> None:
    """Make renames in ``folder`` durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def open_root(location: str | os.PathLike[str], *, create: bool = False) -> Root:
    """Open a root for reading, or for writing too.

    Parameters
    ----------
    location : str or path
        The folder.
    create : bool
        Make it if it is absent, and check that it can be written.

    Raises
    ------
    StoreError
        Absent, not a folder, not writable, or written by a newer alertmill.
    """
    text = os.fspath(location)
    if "://" in text:
        raise StoreError(
            f"root {text} is not a folder", mend="give a local folder; object stores are not supported yet"
        )
    folder = Path(text).expanduser().absolute()
    if not os.fsencode(folder).decode("utf-8", "ignore") == str(folder):
        raise StoreError(f"root {text!a} has a name that is not UTF-8", mend="choose another --root")
    if folder.exists() and not folder.is_dir():
        raise StoreError(f"root {text} is a file, not a folder", mend="give the folder that is to hold the archive")
    if not create:
        if not folder.is_dir():
            raise StoreError(
                f"root {text} does not exist", mend="give --root a folder that `alertmill run` has written"
            )
        if not (folder / paths.ROOT_FILE).is_file():
            raise StoreError(
                f"{text} holds no archive ({paths.ROOT_FILE} is missing)", mend="give --root another folder"
            )
    root = Root(str(folder))
    if (folder / paths.ROOT_FILE).is_file():
        _check_layout(root, text)
    if create:
        _make_writable(root, text)
    return root


def _check_layout(root: Root, text: str) -> None:
    try:
        layout = json.loads(root.path(paths.ROOT_FILE).read_text())["layout"]
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise StoreError(
            f"{text}/{paths.ROOT_FILE} cannot be read: {error}", mend="restore it from a backup"
        ) from error
    if not isinstance(layout, int) or layout > paths.LAYOUT_VERSION:
        raise StoreError(
            f"root {text} has layout {layout}, this alertmill knows up to {paths.LAYOUT_VERSION}",
            mend="use a newer alertmill",
        )


def _make_writable(root: Root, text: str) -> None:
    try:
        Path(root.folder).mkdir(parents=True, exist_ok=True)
        if not root.exists(paths.ROOT_FILE):
            root.write_text(paths.ROOT_FILE, json.dumps({"layout": paths.LAYOUT_VERSION}) + "\n")
        elif not os.access(root.folder, os.W_OK):
            raise PermissionError(13, "Permission denied")
    except OSError as error:
        raise StoreError(f"root {text} cannot be written: {error.strerror}", mend="choose another --root") from error
