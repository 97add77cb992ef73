"""The events that an archive knows: every version of every notice, and what holds now.

``<root>/events/<name>/v<NNN>.json`` is one version, beside it its sky maps, named by their content. Versions are
numbered in the order in which they were issued, not in which they came: whatever the order of arrival, a store ends up
the same. Nothing is ever deleted; a retraction is a version like others.
"""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import CatalogError, LeaseError, StoreError
from pipeline.skymap import SkyMap, event_name, parse_skymap
from pipeline.skymap.notices import Event, parse_notices
from pipeline.skymap.notices.event import event_from_dict, sha256_of
from pipeline.store import Root, hold, open_root

FOLDER = "events"
MAX_VERSIONS = 999
_WAIT_SEC = 30.0
_PAUSE_SEC = 0.1


@dataclass(frozen=True)
class StoredEvent:
    """One version of an event as the store holds it.

    Attributes
    ----------
    event : Event
        What its notice says, without the bytes of its sky maps; ``event.version`` is the number in the store.
    digest : str
        The notice's own :attr:`pipeline.skymap.notices.Event.digest`: it stays when versions are numbered anew.
    source : str
        Name of the file that it came in.
    skymap_sha256, combined_sha256 : str or None
        Of its sky map, and of the one combined with another observatory's.
    is_new : bool
        False where the store had it already.
    """

    event: Event
    digest: str
    source: str
    skymap_sha256: str | None
    combined_sha256: str | None
    is_new: bool = False

    @property
    def name(self) -> str:
        """Name of the event."""
        return self.event.name

    @property
    def version(self) -> int:
        """Number of the version, from 1."""
        return self.event.version

    @property
    def is_localised(self) -> bool:
        """Whether this version says where."""
        return self.skymap_sha256 is not None or self.event.circle is not None

    @property
    def order(self) -> tuple[Any, ...]:
        """What sorts the versions of one event: the order of issue."""
        return *self.event.order[:-1], self.digest

    def as_dict(self) -> dict[str, Any]:
        """Return it as its file holds it."""
        told = self.event.as_dict()
        told["skymap_sha256"] = self.skymap_sha256
        if told["external"] is not None:
            told["external"]["skymap_sha256"] = self.combined_sha256
        return {**told, "digest": self.digest, "source": self.source}


class EventStore:
    """The events of an archive.

    Parameters
    ----------
    root : Root or path
        The archive. It is made when the first event is added.
    """

    def __init__(self, root: Root | str | os.PathLike[str]) -> None:
        self._root = root if isinstance(root, Root) else Root(str(Path(root).expanduser().absolute()))

    # -------------------------------------------------------------------------------------------- writing
    def add(self, data: bytes, source: str = "notice") -> StoredEvent:
        """Take one notice; see :meth:`add_all`.

        Raises
        ------
        CatalogError
            It is no notice, or there are several.
        """
        stored = self.add_all(data, source)
        if len(stored) != 1:
            raise CatalogError(f"{len(stored)} notices where one is wanted", source=source)
        return stored[0]

    def add_all(self, data: bytes, source: str = "notice") -> list[StoredEvent]:
        """Take the notices of one file.

        All are read before anything is written; a notice that the store has already changes nothing.

        Parameters
        ----------
        data : bytes
            See :func:`pipeline.skymap.notices.parse_notices`.
        source : str
            Name of the file; kept, and named in errors.

        Raises
        ------
        CatalogError
            One of them is no notice, or its sky map is none.
        StoreError
            The archive cannot be written.
        """
        events = parse_notices(data, source)
        for event in events:
            for fits in _maps(event).values():
                parse_skymap(fits, event.name, source)
        root = open_root(self._root.folder, create=True)
        return [self._add(root, event, source) for event in events]

    def _add(self, root: Root, event: Event, source: str) -> StoredEvent:
        maps = _maps(event)
        combined = None if event.external is None else event.external.skymap_fits
        new = StoredEvent(event, event.digest, source, sha256_of(event.skymap_fits), sha256_of(combined), is_new=True)
        with _locked(root, event.name):
            known = self.versions(event.name)
            same = next((item for item in known if item.digest == new.digest), None)
            if same is not None:
                return same
            if len(known) >= MAX_VERSIONS:
                raise StoreError(f"event {event.name} has {len(known)} versions already")
            try:
                for sha256, fits in maps.items():
                    if not root.exists(_map_file(event.name, sha256)):
                        root.write_bytes(_map_file(event.name, sha256), fits)
                self._write(root, known, new)
            except OSError as error:
                raise StoreError(f"event {event.name} cannot be kept: {error.strerror or error}") from error
        return next(
            dataclasses.replace(item, is_new=True) for item in self.versions(new.name) if item.digest == new.digest
        )

    def _write(self, root: Root, known: tuple[StoredEvent, ...], new: StoredEvent) -> None:
        """Give all versions their numbers, the new one among them.

        Those behind it move up, the last one first: a process that is killed meanwhile leaves one version twice, never
        none, and :meth:`versions` drops what is there twice.
        """
        for number, item in enumerate(known, 1):  # mends what a killed process left
            self._put(root, item, number)
        wanted = sorted([*known, new], key=lambda item: item.order)
        for number in range(len(wanted), 0, -1):
            self._put(root, wanted[number - 1], number)
        for path in sorted(root.files(f"{FOLDER}/{new.name}", "v*.json"))[len(wanted) :]:
            root.remove(path)

    def _put(self, root: Root, item: StoredEvent, number: int) -> None:
        text = json.dumps({**item.as_dict(), "version": number}, indent=1) + "\n"
        path = f"{FOLDER}/{item.name}/v{number:03d}.json"
        if not root.exists(path) or root.path(path).read_text(encoding="utf-8") != text:
            root.write_text(path, text)

    # -------------------------------------------------------------------------------------------- reading
    def names(self) -> tuple[str, ...]:
        """Return the names of all events, sorted."""
        base = self._root.path(FOLDER)
        return tuple(sorted(path.name for path in base.glob("*") if any(path.glob("v*.json"))))

    def versions(self, name: str) -> tuple[StoredEvent, ...]:
        """Return all versions of an event in the order of issue; none of an event that is not known.

        Raises
        ------
        StoreError
            One of them is damaged.
        """
        found: dict[str, StoredEvent] = {}
        for path in self._root.files(f"{FOLDER}/{event_name(name) or '-'}", "v*.json"):
            item = _read(self._root.path(path))
            found.setdefault(item.digest, item)
        ordered = sorted(found.values(), key=lambda item: item.order)
        return tuple(_numbered(item, number) for number, item in enumerate(ordered, 1))

    def current(self, name: str) -> StoredEvent | None:
        """Return the version that holds: the newest, or None if the event is not known or was retracted."""
        versions = self.versions(name)
        return None if not versions or versions[-1].event.is_retraction else versions[-1]

    def located(self, name: str, version: int | None = None, *, allow_test: bool = False) -> StoredEvent:
        """Return the version whose sky map stands for an event.

        That is, of the newest version of each stream that says where, the one with the smallest radius: a later notice
        of a coarser instrument does not undo what a finer one has found. Sky maps come before circles.

        Parameters
        ----------
        name : str
            The event, in any spelling that gives its name.
        version : int, optional
            This one, even if the event was retracted later.
        allow_test : bool
            Accept test and simulated events too.

        Raises
        ------
        CatalogError
            The event is not known, was retracted, is a test, or says nowhere where it was.
        """
        versions = self.versions(name)
        if not versions:
            known = ", ".join(self.names()[:10]) or "none"
            raise CatalogError(f"there is no event {name}; known: {known}", mend="add its notice: alertmill events add")
        last = versions[-1]
        if version is None and last.event.is_retraction:
            raise CatalogError(
                f"event {name} was retracted on {last.event.created_utc} (version {last.version})",
                mend="a version can still be exported",
            )
        if any(item.event.is_test for item in versions) and not allow_test:
            raise CatalogError(
                f"event {name} is a test or simulated", mend="export its map and give it as a file, if you mean it"
            )
        if version is not None and not 1 <= version <= len(versions):
            raise CatalogError(f"event {name} has versions 1 to {len(versions)}, no {version}")
        wanted = versions if version is None else versions[version - 1 : version]
        newest: dict[str, StoredEvent] = {}
        for item in wanted:
            if item.event.is_retraction:  # what came before it does not count again when an update follows
                newest.pop(item.event.stream, None)
            elif item.is_localised:
                newest[item.event.stream] = item
        if not newest:
            url = next((item.event.skymap_url for item in reversed(wanted) if item.event.skymap_url), None)
            mend = f"its map is at {url}: give it as {name}=FILE" if url else "wait for a notice that tells more"
            raise CatalogError(f"no notice of event {name} says where it was", mend=mend)
        return min(newest.values(), key=lambda item: (item.skymap_sha256 is None, _radius_deg(item), -item.version))

    def skymap(
        self, name: str, version: int | None = None, *, combined: bool = False, allow_test: bool = False
    ) -> SkyMap:
        """Return the sky map of an event: as shipped, or a Fisher distribution of its error circle.

        Parameters
        ----------
        name, version, allow_test
            See :meth:`located`.
        combined : bool
            The map combined with the other observatory's, of a coincident event.

        Raises
        ------
        CatalogError
            As of :meth:`located`; or there is no combined map, or the file of a map is damaged.
        """
        return self.skymap_of(self.located(name, version, allow_test=allow_test), combined=combined)

    def skymap_of(self, stored: StoredEvent, *, combined: bool = False) -> SkyMap:
        """Return the sky map of one version; see :meth:`skymap`.

        Its event time is that of the notice, or, where a notice of follow-up only tells when it observed, that of the
        last notice which tells the trigger's; not known if none does.
        """
        if combined and stored.combined_sha256 is None:
            raise CatalogError(f"version {stored.version} of event {stored.name} has no combined sky map")
        event_mjd = self._trigger_mjd(stored)
        fits = self.map_bytes(stored, combined=combined)
        if fits is not None:
            return dataclasses.replace(parse_skymap(fits, stored.name, stored.source), event_mjd=event_mjd)
        circle = stored.event.circle
        if circle is None:
            raise CatalogError(f"version {stored.version} of event {stored.name} has no sky map")
        from pipeline.skymap import fisher_skymap

        return fisher_skymap(
            stored.name,
            event_mjd,
            circle.ra,
            circle.dec,
            circle.radius_deg,
            containment=circle.containment,
            systematic_deg=circle.systematic_deg,
        )

    def map_bytes(self, stored: StoredEvent, *, combined: bool = False) -> bytes | None:
        """Return the FITS bytes of a version's map as shipped; None where it has none.

        Raises
        ------
        CatalogError
            The file is absent or damaged.
        """
        sha256 = stored.combined_sha256 if combined else stored.skymap_sha256
        if sha256 is None:
            return None
        path = self._root.path(_map_file(stored.name, sha256))
        try:
            data = path.read_bytes()
        except OSError as error:
            raise CatalogError(f"sky map cannot be read: {error.strerror}", source=str(path)) from error
        if sha256_of(data) != sha256:
            raise CatalogError("sky map is damaged", source=str(path), mend="remove it and add the notice again")
        return data

    def pinned(self, name: str, digest: str) -> StoredEvent:
        """Return the version with this digest, whatever its number is by now.

        Raises
        ------
        CatalogError
            It is not there any more.
        """
        for item in self.versions(name):
            if item.digest == digest:
                return item
        raise CatalogError(f"the notice {digest[:8]} of event {name} is gone", mend="run again")

    def _trigger_mjd(self, stored: StoredEvent) -> float | None:
        if stored.event.time_is_trigger:
            return stored.event.time_mjd
        told = [item.event.time_mjd for item in self.versions(stored.name) if item.event.time_is_trigger]
        return told[-1] if told else None


def _maps(event: Event) -> dict[str, bytes]:
    combined = None if event.external is None else event.external.skymap_fits
    return {str(sha256_of(fits)): fits for fits in (event.skymap_fits, combined) if fits is not None}


def _map_file(name: str, sha256: str) -> str:
    return f"{FOLDER}/{name}/{sha256[:16]}.fits"


def _radius_deg(item: StoredEvent) -> float:
    return 0.0 if item.event.circle is None else item.event.circle.radius_deg


def _numbered(item: StoredEvent, number: int) -> StoredEvent:
    return dataclasses.replace(item, event=dataclasses.replace(item.event, version=number))


def _read(path: Path) -> StoredEvent:
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        digest, source = str(told.pop("digest")), str(told.pop("source"))
        combined = told["external"]["skymap_sha256"] if told["external"] is not None else None
        return StoredEvent(event_from_dict(told, {}), digest, source, told["skymap_sha256"], combined)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(
            f"{path.parent.name}/{path.name} of the events cannot be read: {error}",
            mend="remove it and add the notice again",
        ) from error


@contextmanager
def _locked(root: Root, name: str) -> Iterator[None]:
    """Hold the event while the block runs; another process that adds to it is waited for."""
    until = time.monotonic() + _WAIT_SEC
    while True:
        try:
            with hold(root, f"event-{name}"):
                yield
            return
        except LeaseError:
            if time.monotonic() > until:
                raise
            time.sleep(_PAUSE_SEC)
