"""The lock of a night is a lease: it names its owner and its expiry, is renewed, and can be taken over when stale."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from pipeline import paths
from pipeline.errors import LeaseError, StoreError
from pipeline.store.root import Root, temporary_name

RENEW_SEC = 20.0
EXPIRE_SEC = 60.0
_TRIES = 8


def night_lease(survey: str, night: int) -> str:
    """Return the name of the lease of a night."""
    return f"{survey}-{paths.night_name(night)}"


@dataclass(frozen=True)
class Lease:
    """A held lock. :meth:`check` is the fence: call it before a commit."""

    root: Root
    name: str
    owner: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def path(self) -> Path:
        """The file that is the lock."""
        return self.root.path(paths.lease_file(self.name))

    def is_ours(self) -> bool:
        """Tell whether no other run has taken this lease over."""
        holder = _read(self.path)
        return holder is not None and holder.get("owner") == self.owner

    def check(self) -> None:
        """Raise :class:`LeaseError` if another run has taken this lease over."""
        if not self.is_ours():
            raise LeaseError(f"{self.name}: the lock was taken over by another run", mend="run again")


def _renew(held: list[Lease], stop: threading.Event) -> None:
    while not stop.wait(RENEW_SEC):
        for lease in tuple(held):
            # One that was taken over is let go: check() will tell. The disk may be full for a while: the next try
            # comes before expiry.
            with contextlib.suppress(OSError):
                if lease.is_ours():
                    draft = temporary_name(lease.path)
                    try:
                        draft.write_text(json.dumps(_record(lease.owner)))
                        draft.replace(lease.path)
                    finally:
                        draft.unlink(missing_ok=True)


def _record(owner: str) -> dict[str, object]:
    process = psutil.Process()
    return {
        "owner": owner,
        "host": socket.gethostname(),
        "pid": process.pid,
        "started": process.create_time(),
        "expires": time.time() + EXPIRE_SEC,
    }


def _read(path: Path) -> dict[str, object] | None:
    try:
        record = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (ValueError, OSError):
        return {}
    return record if isinstance(record, dict) else {}


def _is_stale(record: dict[str, object], path: Path) -> bool:
    """Tell whether the holder is gone: expired, or a process of this host that no longer runs."""
    expires = record.get("expires")
    if not isinstance(expires, float):  # half-written by a run that died: judge by the file's age
        with contextlib.suppress(OSError):
            return time.time() - path.stat().st_mtime > EXPIRE_SEC
        return True
    if time.time() > expires:
        return True
    if record.get("host") != socket.gethostname():
        return False
    try:
        return psutil.Process(int(str(record.get("pid")))).create_time() != record.get("started")
    except (psutil.NoSuchProcess, ValueError):
        return True


@contextlib.contextmanager
def hold(root: Root, name: str) -> Iterator[Lease]:
    """Hold one lease while the block runs; see :func:`hold_all`."""
    with hold_all(root, [name]) as (lease,):
        yield lease


@contextlib.contextmanager
def hold_all(root: Root, names: Iterable[str]) -> Iterator[list[Lease]]:
    """Hold leases while the block runs, renewed by one thread.

    Parameters
    ----------
    root : Root
        The archive.
    names : iterable of str
        What is locked: ``ztf-night=20181129``, or a run's staging. They are taken in this order; none is waited for.

    Raises
    ------
    LeaseError
        Another run holds one; those taken so far are given back.
    StoreError
        A lock cannot be written.
    """
    held: list[Lease] = []
    stop = threading.Event()
    thread = threading.Thread(target=_renew, args=(held, stop), name="leases", daemon=True)
    thread.start()
    try:
        for name in names:
            lease = Lease(root, name)
            try:
                _acquire(lease)
            except OSError as error:
                raise StoreError(
                    f"the lock {name} cannot be written: {error.strerror or error}",
                    mend="free some space, or mend its rights",
                ) from error
            held.append(lease)
        yield list(held)
    finally:
        stop.set()
        thread.join()
        for lease in held:
            if lease.is_ours():
                root.remove(paths.lease_file(lease.name))


def _acquire(lease: Lease) -> None:
    path = lease.path
    for _ in range(_TRIES):
        # The record is complete before it gets its name; link() fails if the name is taken.
        draft = temporary_name(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            draft.write_text(json.dumps(_record(lease.owner)))
            os.link(draft, path)
            return
        except FileExistsError:
            record = _read(path)
        except FileNotFoundError:
            continue  # another run, at its end, has just removed the empty folder
        finally:
            draft.unlink(missing_ok=True)
        if record is None:
            continue
        if not _is_stale(record, path):
            holder = f"process {record.get('pid')} on {record.get('host')}"
            raise LeaseError(f"{lease.name} is being run by {holder}", mend="wait for it to end, then run again")
        _evict(path, str(record.get("owner")))
    raise LeaseError(f"{lease.name}: the lock changes hands too fast", mend="run again")


def _evict(path: Path, stale_owner: str) -> None:
    """Take a stale lease away; if another run was faster and its lease is what we caught, give that back."""
    caught = temporary_name(path)
    with contextlib.suppress(FileNotFoundError):
        path.rename(caught)
        holder = _read(caught)
        if holder is not None and str(holder.get("owner")) != stale_owner:
            with contextlib.suppress(FileExistsError):
                os.link(caught, path)
        caught.unlink(missing_ok=True)


def release_dead(root: Root, name: str) -> bool:
    """Remove a lease that no living run holds; False if one does. Never takes away what was taken over meanwhile."""
    with contextlib.suppress(LeaseError), hold(root, name):
        return True
    return False


def is_held(root: Root, name: str) -> bool:
    """Tell whether a living run holds a lease."""
    path = root.path(paths.lease_file(name))
    record = _read(path)
    return record is not None and not _is_stale(record, path)
