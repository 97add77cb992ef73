"""What a run is told to enrich with, found and opened before any work begins."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline import models
from pipeline.catalogs import open_catalog
from pipeline.config import Config
from pipeline.dust import open_dust_map
from pipeline.errors import CatalogError, InputError
from pipeline.events import EventStore
from pipeline.science import SCIENCE
from pipeline.skymap import SkyMap, event_name
from pipeline.skymaps import read_skymap

ALL, NONE = "*", "none"
_CATALOG_META = "meta.json"


@dataclass(frozen=True)
class MapSource:
    """Where a sky map stands: a file, or one version of an event that the archive knows.

    Attributes
    ----------
    event : str
        Name of the event in columns.
    path : str
        The file, or the root of the archive.
    digest : str
        Of the map, when the run was prepared.
    version : int or None
        Number of the version in the archive at that time; None of a file.
    notice : str or None
        Digest of its notice, by which it is found whatever number it has later.
    """

    event: str
    path: str
    digest: str
    version: int | None = None
    notice: str | None = None

    def open(self) -> SkyMap:
        """Return the map.

        Raises
        ------
        CatalogError
            It is not there any more, or is another one.
        """
        if self.notice is None:
            skymap = read_skymap(self.path, self.event)
        else:
            store = EventStore(self.path)
            skymap = store.skymap_of(store.pinned(self.event, self.notice))
        if skymap.digest != self.digest:
            raise CatalogError(f"the sky map of {self.event} changed while the run was going on", mend="run again")
        return skymap


@dataclass(frozen=True)
class Recipe:
    """Where the resources stand, with the digest each had when the run was prepared. Picklable, hashable.

    Attributes
    ----------
    catalogs, models : tuple of (name, path, digest)
        A model's path is empty for one that is shipped.
    skymaps : tuple of MapSource
        By event.
    survey : str
        Whose alerts are enriched.
    luminosity : bool
        Whether luminosities are written where there are hosts.
    dust_map : str or None
        Path of the dust map that they are corrected with.
    dust_digest : str or None
        Its digest.
    """

    catalogs: tuple[tuple[str, str, str], ...]
    skymaps: tuple[MapSource, ...]
    models: tuple[tuple[str, str, str], ...]
    survey: str = "ztf"
    luminosity: bool = False
    dust_map: str | None = None
    dust_digest: str | None = None


def make_recipe(config: Config) -> Recipe:
    """Find and open everything a run enriches with.

    Raises
    ------
    CatalogError
        A catalog, sky map, model or dust map is absent or damaged; or an event was retracted, is a test, or says
        nowhere where it was.
    InputError
        One is given twice, or luminosities are asked for and no catalog has host galaxies.
    """
    catalogs = []
    has_hosts = False
    folder = Path(config.catalog_folder or Path(config.root) / "catalogs")
    for name, path in _named(expanded(config.catalogs, folder), "catalog"):
        catalog = open_catalog(Path(path) if path else folder / name)
        if catalog.name != name:
            raise CatalogError(f"{path or folder / name} holds catalog {catalog.name}, not {name}", mend="name it so")
        catalogs.append((name, str(catalog.path), catalog.digest))
        has_hosts |= catalog.declaration.host is not None
    if config.luminosity and not has_hosts:
        raise InputError(
            "luminosities need distances, and none of the catalogs has host galaxies",
            mend="build one that has, for example mangrove; see `alertmill catalogs list`",
        )
    chosen = []
    for name, path in _named(config.models, "model"):
        model = models.load(name, None if path is None else Path(path))
        chosen.append((name, "" if path is None else str(Path(path).absolute()), model.digest))
    missing = sorted({resource for module in SCIENCE.values() for resource in module.resources} - {"model"})
    if missing:
        raise InputError(f"science modules want resources that no setting gives: {', '.join(missing)}")
    dust = open_dust_map(config.dust_map) if config.luminosity and config.dust_map else None
    return Recipe(
        tuple(catalogs),
        tuple(_map_source(event, path, config) for event, path in _named(config.skymaps, "skymap", event_name)),
        tuple(chosen),
        config.survey,
        config.luminosity,
        None if dust is None else str(Path(str(config.dust_map)).absolute()),
        None if dust is None else dust.digest,
    )


def expanded(catalogs: Sequence[str], folder: Path) -> tuple[str, ...]:
    """Return what is named, with ``*`` replaced by every other catalog built in the folder, sorted; of ``none``, none.

    Raises
    ------
    InputError
        ``none`` stands beside others.
    """
    if NONE in catalogs and len(catalogs) > 1:
        raise InputError("--catalog none stands beside other catalogs", mend="leave it out, or them")
    names = [item for item in catalogs if item not in (ALL, NONE)]
    if ALL not in catalogs:
        return tuple(names)
    named = {item.partition("=")[0] for item in names}
    built = {path.parent.name for path in folder.glob(f"*/{_CATALOG_META}") if not path.parent.name.startswith(".")}
    return (*names, *sorted(built - named))


def _map_source(event: str, path: str | None, config: Config) -> MapSource:
    if path is not None:
        skymap = read_skymap(path, event)
        return MapSource(skymap.event, str(Path(path).absolute()), skymap.digest)
    root = Path(config.root).expanduser().absolute()
    store = EventStore(root)
    if not store.versions(event):
        known = ", ".join(store.names()[:10]) or "none"
        raise CatalogError(
            f"there is no event {event} in the archive; known: {known}",
            mend="add its notice with `alertmill events add`, or write EVENT=FILE",
        )
    stored = store.located(event)
    return MapSource(stored.name, str(root), store.skymap_of(stored).digest, stored.version, stored.digest)


def _named(items: Sequence[str], what: str, spelling: Callable[[str], str] = str) -> list[tuple[str, str | None]]:
    pairs = [(name, path or None) for name, _, path in (item.partition("=") for item in items)]
    names = [spelling(name) for name, _ in pairs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice or "" in names:
        raise InputError(f"{what} {', '.join(twice) or '(without a name)'} is given twice or without a name")
    return pairs
