"""An archive opened for reading."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import paths
from pipeline.archive import luminosities
from pipeline.archive.listing import (
    DECLARED,
    parts_of,
    release_schema,
    releases_of,
    resolve_release,
    schema_of_parts,
)
from pipeline.archive.pruning import Cone, Nights, Part, choose_nights, parse_mjd, prune
from pipeline.archive.rows import points_of, read_rows, rows_of_ids
from pipeline.archive.selection import NIGHT, Selection, check_where, choose_columns
from pipeline.errors import InputError, StoreError
from pipeline.store.ledger import read_ledger
from pipeline.store.root import Root, open_root

_MAIN = "main"


def open_archive(root: str | Path, *, survey: str | None = None) -> Archive:
    """Open an archive for reading.

    Parameters
    ----------
    root : str or path
        Folder that ``alertmill run`` has written.
    survey : str, optional
        Survey to read where a call names none; needed only if the archive holds several.

    Raises
    ------
    InputError
        The folder does not exist, is no archive, or was written by a newer alertmill; the survey is not in it.
    """
    archive = Archive(open_root(root), survey)
    if survey is not None and archive.surveys and survey not in archive.surveys:
        raise InputError(f"survey {survey!r} is not in the archive", mend=f"it holds {', '.join(archive.surveys)}")
    return archive


class Archive:
    """Nights, datasets and light curves of one root. Reads nothing until asked.

    Only files that a ledger lists are opened; whatever else lies in the folders is not part of the archive.
    """

    def __init__(self, root: Root, survey: str | None = None) -> None:
        self._root = root
        self._survey = survey
        self._ledgers: dict[tuple[str, int], tuple[int, dict[str, Any]]] = {}

    @property
    def root(self) -> str:
        """Absolute path of the root."""
        return self._root.folder

    @property
    def surveys(self) -> list[str]:
        """Surveys that have a ledger, sorted."""
        return sorted(path.parent.name for path in Path(self._root.folder).glob("*/ledger") if path.is_dir())

    def __repr__(self) -> str:
        """Say what the archive holds."""
        counts = {name: len(self.nights(name)) for name in self.surveys}
        held = ", ".join(f"{name}: {count:,} night{'' if count == 1 else 's'}" for name, count in counts.items())
        return f"<Archive {self._root.folder} ({held or 'no nights'})>"

    # ------------------------------------------------------------------------------------------ ledgers
    def nights(self, survey: str | None = None) -> list[int]:
        """Return the nights of a survey, ascending; those of every survey if none is named and there are several."""
        names = [survey or self._survey or ""] if survey or self._survey else self.surveys
        found: set[int] = set()
        for name in names:
            for file in Path(self._root.folder, name, "ledger").glob("night=*.json"):
                text = file.stem.removeprefix("night=")
                if text.isdigit():  # night=unknown holds no alerts
                    found.add(int(text))
        return sorted(found)

    def ledger(self, night: int | str, survey: str | None = None) -> dict[str, Any]:
        """Return the ledger of one night.

        Raises
        ------
        InputError
            The night is not in the archive.
        """
        name = self._resolve(survey)
        present = [] if name is None else self.nights(name)
        (chosen,) = choose_nights(night, present)
        return self._read_ledger(name or "", chosen)

    def releases(self, survey: str | None = None) -> list[str]:
        """Return the releases of the science dataset that the nights' ledgers name, sorted."""
        name = self._resolve(survey)
        if name is None:
            return []
        return sorted(set().union(*(releases_of(self._read_ledger(name, night)) for night in self.nights(name))))

    def _read_ledger(self, survey: str, night: int) -> dict[str, Any]:
        path = self._root.path(paths.ledger_file(survey, night))
        try:
            stamp = path.stat().st_mtime_ns
        except FileNotFoundError:
            raise InputError(f"night {night} of {survey} is no longer in the archive") from None
        known = self._ledgers.get((survey, night))
        if known is None or known[0] != stamp:
            ledger = read_ledger(self._root, survey, night)
            if ledger is None:
                raise InputError(f"night {night} of {survey} is no longer in the archive")
            known = self._ledgers[survey, night] = (stamp, ledger)
        return known[1]

    def _resolve(self, survey: str | None) -> str | None:
        """Return the survey meant, None if the archive holds none at all."""
        present = self.surveys
        name = survey or self._survey
        if name is not None:
            if name not in present and present:
                raise InputError(f"survey {name!r} is not in the archive", mend=f"it holds {', '.join(present)}")
            return name if present else None
        if len(present) > 1:
            raise InputError(f"the archive holds {', '.join(present)}", mend="name one: survey=...")
        return present[0] if present else None

    # ----------------------------------------------------------------------------------------- datasets
    def science(
        self,
        nights: Nights = None,
        *,
        columns: Sequence[str] | None = None,
        cone: Any = None,
        mjd: Any = None,
        where: pc.Expression | None = None,
        release: str = "main",
        survey: str | None = None,
        luminosity: bool = False,
        dust_map: str | Path | None = None,
    ) -> Selection:
        """Select from ``science``: ids, positions, times, magnitudes and every added value; what most people read.

        Parameters
        ----------
        nights : int, str, iterable of them, optional
            ``20181129``, ``"20181129:20181201"`` (both ends included), a list of either; all nights by default.
        columns : sequence of str, optional
            Columns of the result, ``night`` (int32) among them; all by default, ``night`` last.
        cone : tuple, optional
            ``(ra_deg, dec_deg, radius_deg)``; any of them may be an astropy angle, as in ``5 * u.arcsec``.
        mjd : tuple of float, optional
            First and last time in MJD (TAI), both included; None at either end is open.
        where : pyarrow.compute.Expression, optional
            Condition on columns of the dataset; a row with null there does not pass.
        release : str
            Release of the science dataset.
        survey : str, optional
            Needed if the archive holds several.
        luminosity : bool
            Add absolute magnitude and luminosity at the host's distance (``lum_*``): as the release has them, else
            made while reading.
        dust_map : str or path, optional
            With ``luminosity``: correct for extinction by this map (see :mod:`pipeline.dust`), whatever is stored.

        Returns
        -------
        Selection
            Lazy: nothing but ledgers has been read.

        Raises
        ------
        InputError
            A night, column, survey or release that is not there, or a condition that cannot be used; luminosities are
            asked for and the release has no hosts.
        """
        if luminosity and columns is not None:
            asked = [columns] if isinstance(columns, str) else list(columns)
            columns = [name for name in asked if name not in luminosities.COLUMNS]
        chosen = self._select("science", nights, columns, cone, mjd, where, release, survey)
        if not luminosity:
            return chosen
        return chosen.with_luminosities(luminosities.of_survey(self._resolve(survey), dust_map), is_all=columns is None)

    def alerts(
        self,
        nights: Nights = None,
        *,
        columns: Sequence[str] | None = None,
        cone: Any = None,
        mjd: Any = None,
        where: pc.Expression | None = None,
        survey: str | None = None,
    ) -> Selection:
        """Select from ``alerts``: the canonical alert with its light curve; parameters as in :meth:`science`."""
        return self._select("alerts", nights, columns, cone, mjd, where, _MAIN, survey)

    def raw(
        self,
        nights: Nights = None,
        *,
        columns: Sequence[str] | None = None,
        cone: Any = None,
        mjd: Any = None,
        where: pc.Expression | None = None,
        survey: str | None = None,
    ) -> Selection:
        """Select from ``raw``: the packet under its native names, without stamps; parameters as in :meth:`science`.

        Positions and times of the cuts are the canonical ones; ``where`` speaks of native columns, nested ones as
        ``pyarrow.compute.field("candidate", "magpsf")``.
        """
        return self._select("raw", nights, columns, cone, mjd, where, _MAIN, survey)

    def provenance(self, nights: Nights = None, *, survey: str | None = None) -> Selection:
        """Select from ``provenance``: where each alert's packet came from."""
        return self._select("provenance", nights, None, None, None, None, _MAIN, survey)

    def exposures(self, nights: Nights = None, *, survey: str | None = None) -> Selection:
        """Select the exposures of the nights."""
        return self._select("exposures", nights, None, None, None, None, _MAIN, survey)

    def links(self, nights: Nights = None, *, release: str = "main", survey: str | None = None) -> Selection:
        """Select the links that night modules found: streaks, tracklets, rankings."""
        return self._select("links", nights, None, None, None, None, release, survey)

    def rejects(self, nights: Nights = None, *, survey: str | None = None) -> Selection:
        """Select the packets that were not accepted, with their reasons; ``night`` is the packet's own, if known."""
        return self._select("rejects", nights, None, None, None, None, _MAIN, survey)

    def _select(
        self,
        dataset: str,
        nights: Nights,
        columns: Sequence[str] | None,
        cone: Any,
        mjd: Any,
        where: pc.Expression | None,
        release: str,
        survey: str | None,
    ) -> Selection:
        name = self._resolve(survey)
        parts = self._parts(name, nights, dataset, release)
        schema = self._schema(name, dataset, parts, release)
        if NIGHT.name not in schema.names:
            schema = schema.append(NIGHT)
        chosen = choose_columns(columns, schema, dataset)
        luminosities.check_stored(where, schema)
        check_where(where, schema, dataset)
        circle = None if cone is None else Cone.parse(cone)
        times = parse_mjd(mjd)
        luminous = luminosities.of_survey(name)
        return Selection(dataset, tuple(prune(parts, circle, times)), schema, chosen, where, circle, times, luminous)

    def _parts(self, survey: str | None, nights: Nights, dataset: str, release: str) -> list[Part]:
        present = [] if survey is None else self.nights(survey)
        chosen = choose_nights(nights, present)
        if survey is None:
            return []
        wanted = resolve_release(self._root, survey, release)
        ledgers = {night: self._read_ledger(survey, night) for night in chosen}
        held = {night: releases_of(ledger) for night, ledger in ledgers.items()}
        if dataset == "science" and held and not any(wanted in there for there in held.values()):
            there = sorted(set().union(*held.values()))
            raise InputError(f"no night asked for has release {release!r}", mend=f"they have {', '.join(there)}")
        listed = (parts_of(self._root, survey, night, ledger, dataset, wanted) for night, ledger in ledgers.items())
        return [part for parts in listed for part in parts]

    def _schema(self, survey: str | None, dataset: str, parts: Sequence[Part], release: str) -> pa.Schema:
        if survey is not None:
            wanted = resolve_release(self._root, survey, release)
            declared = release_schema(self._root, survey, wanted) if dataset == "science" else None
            if declared is not None:
                return declared
            if parts:
                return schema_of_parts(parts, dataset)
            # nothing was chosen: the columns are those of the newest night that has any, so conditions keep working
            for night in reversed(self.nights(survey)):
                listed = parts_of(self._root, survey, night, self._read_ledger(survey, night), dataset, wanted)
                if listed:
                    return schema_of_parts(listed, dataset)
        if dataset in DECLARED:
            return DECLARED[dataset]
        if survey is None:
            raise InputError(f"the archive holds no night: the columns of {dataset} are not known yet")
        from pipeline import surveys

        known = surveys.get(survey)
        native = [field for field in known.superset if field.name not in known.cutout_columns]
        own = [pa.field("alert_id", pa.int64()), pa.field("schema_version", pa.string())]
        return pa.schema([*own, *native, pa.field("origin_added", pa.string())])

    # -------------------------------------------------------------------------------------- single alerts
    def light_curve(
        self, alert_id: int, *, nights: Nights = None, survey: str | None = None, luminosity: bool = False
    ) -> pa.Table:
        """Return the light curve of one alert, one row per measurement, in time order.

        Parameters
        ----------
        alert_id : int
            ZTF candid, Rubin or ELAsTiCC diaSourceId.
        nights : optional
            Where to look; naming the night spares reading the ids of all others.
        luminosity : bool
            Add ``absolute_mag`` and ``nu_lnu_erg_s`` of every point at the distance of the alert's host.

        Returns
        -------
        pyarrow.Table
            Columns of :data:`pipeline.tables.LIGHT_CURVE_TYPE`: ``mjd``, ``flux_njy``, ``flux_err_njy``, ``band`` ...

        Raises
        ------
        InputError
            No such alert; luminosities are asked for and the release has no hosts.
        """
        if luminosity:
            wanted = pc.field("alert_id") == int(alert_id)
            chosen = self.science(nights, columns=["alert_id"], where=wanted, survey=survey)
            found = chosen.light_curves(luminosity=True)
            if found.num_rows == 0:
                raise InputError(f"no alerts for alert {alert_id}", mend="check the id and the nights")
            return points_of(found.column("light_curve").combine_chunks())
        return self._nested(alert_id, "light_curve", nights, survey)

    def upper_limits(self, alert_id: int, *, nights: Nights = None, survey: str | None = None) -> pa.Table:
        """Return the non-detections of one alert, one row each; parameters as in :meth:`light_curve`."""
        return self._nested(alert_id, "upper_limits", nights, survey)

    def cutouts(self, alert_ids: int | Iterable[int], *, nights: Nights = None, survey: str | None = None) -> pa.Table:
        """Return the stamps of some alerts as shipped, in the order asked for.

        They are fetched by row number from small row groups, so a few stamps of a large night cost little.

        Returns
        -------
        pyarrow.Table
            ``alert_id`` and the survey's own cutout columns; null where the packet had none.

        Raises
        ------
        InputError
            An alert is not there, or its night kept no stamps.
        """
        single = isinstance(alert_ids, (int, np.integer))
        ids = np.array([alert_ids] if single else list(alert_ids), dtype=np.int64)  # type: ignore[arg-type]
        return self._fetch(ids, "cutouts", None, nights, survey)

    def _nested(self, alert_id: int, column: str, nights: Nights, survey: str | None) -> pa.Table:
        table = self._fetch(np.array([alert_id], dtype=np.int64), "alerts", ["alert_id", column], nights, survey)
        return points_of(table.column(column).combine_chunks())

    def _fetch(
        self, ids: np.ndarray, dataset: str, columns: list[str] | None, nights: Nights, survey: str | None
    ) -> pa.Table:
        """Return rows by alert id, in the order of ``ids``; repeated ids give repeated rows."""
        name = self._resolve(survey)
        left = np.unique(ids)
        found: list[pa.Table] = []
        for part in self._parts(name, nights, dataset, _MAIN):
            if len(left) == 0:
                break
            rows = rows_of_ids(part, left)
            here = rows >= 0
            if here.any():
                table = read_rows(part.files[dataset], rows[here], columns)
                if not np.array_equal(table.column("alert_id").to_numpy(), left[here]):
                    raise StoreError(f"{dataset} does not hold the alerts of its part", part=part.name)
                found.append(table)
                left = left[~here]
        if len(left):
            told = ", ".join(map(str, left[:3])) + (" ..." if len(left) > 3 else "")
            mend = (
                "check the id and the nights" if dataset == "alerts" else "check the ids; the night may have kept none"
            )
            raise InputError(f"no {dataset} for alert {told}", mend=mend)
        if not found:
            raise InputError(f"no alert was asked for from {dataset}")
        table = pa.concat_tables(found)
        order = np.argsort(table.column("alert_id").to_numpy(), kind="stable")
        sorted_ids = table.column("alert_id").to_numpy()[order]
        return table.take(pa.array(order[np.searchsorted(sorted_ids, ids)]))
