"""A lazy selection of rows and columns from one dataset; nothing is read until it is asked for."""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from pyarrow import fs

from pipeline.archive.luminosities import COLUMNS, Luminosities, with_luminosities
from pipeline.archive.pruning import Cone, Part
from pipeline.archive.rows import file_of, read_rows, rows_of_ids
from pipeline.errors import InputError, PartError
from pipeline.stages.luminosity import REQUIRES

if TYPE_CHECKING:
    import duckdb
    import pandas
    import polars

NIGHT = pa.field("night", pa.int32(), metadata={"doc": "observing night, YYYYMMDD"})
"""Column that every result can have: it stands in folder names, not in the files."""
_BATCH_ROWS = 32_768
_HEAVY_BATCH_ROWS = 2_500


@dataclass(frozen=True)
class Selection:
    """Rows of one dataset, chosen by night, time, cone and condition, with the columns asked for.

    Made by :class:`pipeline.archive.Archive`; every ``to_*`` reads. The selection is a snapshot: it names the files
    that the ledgers listed when it was made.

    Parameters
    ----------
    dataset : str
        ``science``, ``alerts``, ``raw`` ...
    parts : tuple of Part
        Parts that are left after pruning.
    full_schema : pyarrow.Schema
        Schema of the dataset, ``night`` at its end.
    columns : tuple of str
        Columns of the result, in order.
    where : pyarrow.compute.Expression, optional
        Condition on columns of the dataset.
    cone : Cone, optional
        Cut exactly, after pruning.
    mjd : tuple of float, optional
        First and last time (TAI), both included.
    luminous : Luminosities, optional
        How the survey's luminosities are made, where that is known.
    made : tuple of str
        Columns of ``full_schema`` that are made while reading and stand in no file.
    """

    dataset: str
    parts: tuple[Part, ...]
    full_schema: pa.Schema
    columns: tuple[str, ...]
    where: pc.Expression | None = None
    cone: Cone | None = None
    mjd: tuple[float, float] | None = None
    luminous: Luminosities | None = None
    made: tuple[str, ...] = ()

    @property
    def schema(self) -> pa.Schema:
        """Schema of the result."""
        return pa.schema([self.full_schema.field(name) for name in self.columns])

    @property
    def files(self) -> list[str]:
        """Files that would be opened: what pruning left."""
        return [part.files[self.dataset] for part in self.parts]

    def __repr__(self) -> str:
        """Say what is selected, without reading it."""
        nights = sorted({part.night for part in self.parts})
        told = f"{nights[0]} to {nights[-1]}" if len(nights) > 1 else "".join(map(str, nights)) or "no night"
        rows = sum(part.rows for part in self.parts)
        size = f"{len(self.parts)} parts, up to {rows:,} rows, {len(self.columns)} columns"
        return f"<Selection of {self.dataset}: {told}, {size}>"

    def with_luminosities(self, luminous: Luminosities | None, *, is_all: bool) -> Selection:
        """Return the selection with ``lum_*`` added, made while reading where they are not stored.

        Parameters
        ----------
        luminous : Luminosities, optional
            How they are made; with a dust map of its own, what is stored is not used.
        is_all : bool
            Every column was asked for: ``night`` stays last.

        Raises
        ------
        InputError
            The dataset has no hosts.
        """
        stored = self.full_schema.names
        is_fresh = luminous is not None and luminous.dust is not None
        last = [NIGHT.name] if is_all else []
        kept = [name for name in self.columns if name not in (*last, *COLUMNS)]
        return replace(
            self,
            full_schema=with_luminosities(self.full_schema),
            columns=(*kept, *COLUMNS, *last),
            luminous=luminous,
            made=tuple(name for name in COLUMNS if is_fresh or name not in stored),
        )

    # ------------------------------------------------------------------------------------------ reading
    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield record batches in archive order (night, part, row), none of them empty."""
        if not self._is_cut or self._has_positions:
            yield from self._scan(self.parts, self._condition(), self.cone)
            return
        for part in self.parts:
            ids = self._ids_cut_elsewhere(part)
            if len(ids):
                chosen = pc.field("alert_id").isin(ids)
                yield from self._scan((part,), chosen if self.where is None else chosen & self.where, None)

    def to_arrow(self) -> pa.Table:
        """Read into an Arrow table."""
        return pa.Table.from_batches(list(self.batches()), schema=self.schema)

    def to_pandas(self) -> pandas.DataFrame:
        """Read into a pandas frame with Arrow-backed columns: ids stay int64, nulls stay nulls."""
        import pandas

        return self.to_arrow().to_pandas(types_mapper=pandas.ArrowDtype)

    def to_polars(self) -> polars.DataFrame:
        """Read into a polars frame."""
        try:
            import polars
        except ImportError as error:
            raise _not_installed("polars") from error
        frame = polars.from_arrow(self.to_arrow())
        if not isinstance(frame, polars.DataFrame):
            raise TypeError("polars.from_arrow did not return a frame")
        return frame

    def to_duckdb(self, connection: duckdb.DuckDBPyConnection | None = None) -> duckdb.DuckDBPyRelation:
        """Return a DuckDB relation.

        Without a cone it is lazy: DuckDB pushes its own projections and filters down into the files. With a cone the
        rows are read first, since the exact cut is made here.

        Parameters
        ----------
        connection : duckdb.DuckDBPyConnection, optional
            Where to put it; an in-memory database of its own otherwise.
        """
        try:
            import duckdb
        except ImportError as error:
            raise _not_installed("duckdb") from error
        connection = connection or duckdb.connect()
        if self.cone is not None or self.mjd is not None or self._made_here or not self.parts:
            return connection.from_arrow(self.to_arrow())
        source = self._files(self.parts)
        if self.where is not None:
            source = source.filter(self.where)
        quoted = ", ".join('"' + name.replace('"', '""') + '"' for name in self.columns)
        return connection.from_arrow(source).project(quoted)

    def count(self) -> int:
        """Return the number of rows; from the ledger alone where nothing has to be tested."""
        if self.where is None and not self._is_cut:
            return sum(part.rows for part in self.parts)
        if self.cone is None and (self.mjd is None or self._has_positions):
            return int(self._files(self.parts).count_rows(filter=self._condition())) if self.parts else 0
        return sum(batch.num_rows for batch in replace(self, columns=("alert_id",)).batches())

    def light_curves(self, *, upper_limits: bool = False, luminosity: bool = False) -> pa.Table:
        """Read with the light curve of every row beside it.

        The ``alerts`` part that belongs to each part is zipped by position and its alert ids are verified.

        Parameters
        ----------
        upper_limits : bool
            Also add the non-detections.
        luminosity : bool
            Add to every point, at the distance of the row's host, the lists ``absolute_mag`` (null where the flux is
            not positive) and ``nu_lnu_erg_s``; null where there is no distance.

        Returns
        -------
        pyarrow.Table
            Columns of the selection, then ``light_curve`` (struct of lists of equal length, see
            :data:`pipeline.tables.LIGHT_CURVE_TYPE`) and, if asked for, ``upper_limits``.

        Raises
        ------
        PartError
            The two datasets do not hold the same alerts.
        InputError
            Luminosities are asked for, and the dataset has no hosts.
        """
        nested = ["light_curve", "upper_limits"] if upper_limits else ["light_curve"]
        nested = [name for name in nested if name not in self.columns]
        luminous = self._luminosities() if luminosity else None
        needed = ["alert_id", *(luminous.needed_for_points(self.full_schema) if luminous else [])]
        with_id = replace(self, columns=tuple(dict.fromkeys([*self.columns, *needed])))
        tables = []
        for part in self.parts:
            table = replace(with_id, parts=(part,)).to_arrow()
            if table.num_rows == 0:
                continue
            rows = rows_of_ids(part, table.column("alert_id").to_numpy())
            found = read_rows(file_of(part, "alerts"), rows, ["alert_id", *nested])
            if not found.column("alert_id").equals(table.column("alert_id")):
                raise PartError(f"alerts and {self.dataset} do not hold the same alerts", part=part.name)
            tables.append(self._beside(table, found, nested, luminous))
        if tables:
            return pa.concat_tables(tables)
        from pipeline.tables import ALERTS

        nothing = pa.schema([*self.schema, *(ALERTS.field(name) for name in nested)]).empty_table()
        return self._beside(with_id.schema.empty_table(), nothing, nested, luminous)

    def _beside(self, table: pa.Table, found: pa.Table, nested: list[str], luminous: Luminosities | None) -> pa.Table:
        """Return the columns asked for with the nested ones of the same rows, with luminosities where asked for."""
        out = table.select(list(self.columns))
        for name in nested:
            field, column = found.schema.field(name), found.column(name)
            if luminous is not None and name == "light_curve":
                column = luminous.add_to_points(column, table)
                field = field.with_type(column.type)
            out = out.append_column(field, column)
        return out

    def _luminosities(self) -> Luminosities:
        if self.luminous is None:
            raise InputError(f"luminosities of {self.dataset} cannot be made: the survey's bands are not known")
        return self.luminous

    # ----------------------------------------------------------------------------------------- the scan
    @property
    def _made_here(self) -> bool:
        return not set(self.made).isdisjoint(self.columns)

    @property
    def _is_cut(self) -> bool:
        return self.cone is not None or self.mjd is not None

    @property
    def _has_positions(self) -> bool:
        """Whether canonical position and time stand in the dataset itself; a native ``ra`` is another quantity."""
        return self.dataset in ("science", "alerts")

    def _condition(self) -> pc.Expression | None:
        """Return everything that the reader itself can test: condition, times, and the cone's declination band."""
        tests = [] if self.where is None else [self.where]
        if self.mjd is not None:
            tests += [pc.field("mjd") >= self.mjd[0], pc.field("mjd") <= self.mjd[1]]
        if self.cone is not None:
            # a little wider than the cone: rounding must never lose a row that the exact cut would keep
            reach = self.cone.radius_deg * (1 + 1e-9) + 1e-9
            tests += [pc.field("dec") >= self.cone.dec - reach, pc.field("dec") <= self.cone.dec + reach]
        return functools.reduce(lambda left, right: left & right, tests) if tests else None

    def _scan(self, parts: Sequence[Part], condition: Any, cone: Cone | None) -> Iterator[pa.RecordBatch]:
        if not parts:
            return
        stored = [name for name in self.columns if name not in self.made]
        beside = [*(["ra", "dec"] if cone else []), *(REQUIRES if self._made_here else [])]
        needed = list(dict.fromkeys([*stored, *beside]))
        heavy = any(pa.types.is_nested(field.type) for field in self.schema)
        scanner = self._files(parts).scanner(
            columns=needed,
            filter=condition,
            batch_size=_HEAVY_BATCH_ROWS if heavy else _BATCH_ROWS,
            batch_readahead=2 if heavy else 8,
            fragment_readahead=1 if heavy else 4,
        )
        try:
            for batch in scanner.to_batches():
                if cone is not None:
                    inside = cone.contains(batch.column("ra").to_numpy(), batch.column("dec").to_numpy())
                    batch = batch.filter(pa.array(inside))
                if batch.num_rows:
                    yield self._shaped(batch)
        except OSError as error:
            raise PartError(
                f"a file that the ledger lists cannot be read: {error}",
                dataset=self.dataset,
                mend="open the archive again if it was just rerun, else run `alertmill verify`",
            ) from error

    def _shaped(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return the columns asked for, those made here included."""
        made = self._luminosities().columns_of(batch) if self._made_here else {}
        columns = [made[name].combine_chunks() if name in self.made else batch.column(name) for name in self.columns]
        return pa.RecordBatch.from_arrays(columns, schema=self.schema)

    def _files(self, parts: Sequence[Part]) -> ds.FileSystemDataset:
        return ds.FileSystemDataset.from_paths(
            [file_of(part, self.dataset) for part in parts],
            schema=self.full_schema,
            format=ds.ParquetFileFormat(),
            filesystem=fs.LocalFileSystem(),
            partitions=[self._folder(part) for part in parts],
        )

    def _folder(self, part: Part) -> pc.Expression:
        """Return what the folder says of a part; rejects have a night of their own, which may be another."""
        if self.full_schema.field(NIGHT.name).metadata == NIGHT.metadata:
            return pc.field(NIGHT.name) == pa.scalar(part.night, NIGHT.type)
        return pc.scalar(True)

    def _ids_cut_elsewhere(self, part: Part) -> pa.Array:
        """Return the ids of the rows within cone and times, from the alerts of a dataset that has no positions."""
        from pipeline.tables import ALERTS

        names = ("alert_id",)
        schema = ALERTS.append(NIGHT)
        beside = replace(self, dataset="alerts", parts=(part,), full_schema=schema, columns=names, where=None)
        return beside.to_arrow().column("alert_id").combine_chunks()


# ------------------------------------------------------------------------------------------- building
def choose_columns(columns: Sequence[str] | str | None, schema: pa.Schema, dataset: str) -> tuple[str, ...]:
    """Return the columns asked for, every one of ``schema`` for None.

    Raises
    ------
    InputError
        A column that the dataset does not have; close matches are named.
    """
    if columns is None:
        return tuple(schema.names)
    asked = [columns] if isinstance(columns, str) else list(columns)
    for name in asked:
        if name not in schema.names:
            raise unknown_column(str(name), schema, dataset)
    if len(set(asked)) != len(asked):
        raise InputError("a column is asked for twice", dataset=dataset)
    return tuple(asked)


def check_where(where: Any, schema: pa.Schema, dataset: str) -> None:
    """Raise :class:`InputError` unless ``where`` is a condition on columns of ``schema``."""
    if where is None:
        return
    mend = 'give a pyarrow expression, for example pyarrow.compute.field("diff_mag") < 18'
    if not isinstance(where, pc.Expression):
        raise InputError(f"where is a {type(where).__name__}, not a condition", mend=mend)
    try:
        ds.dataset(schema.empty_table()).scanner(filter=where).to_table()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
        named = re.search(r"FieldRef\.Name\((.*?)\)", str(error))
        if named and named.group(1) not in schema.names:
            raise unknown_column(named.group(1), schema, dataset) from error
        raise InputError(f"the condition {where} cannot be used: {str(error).splitlines()[0]}", mend=mend) from error


def unknown_column(name: str, schema: pa.Schema, dataset: str) -> InputError:
    """Return the error for a column that is not there."""
    near = difflib.get_close_matches(name, schema.names, n=3, cutoff=0.5)
    mend = f"did you mean {' or '.join(near)}?" if near else "see the schema: archive.science().schema.names"
    return InputError(f"there is no column {name!r}", dataset=dataset, mend=mend)


def _not_installed(package: str) -> InputError:
    return InputError(f"{package} is not installed", mend="pip install 'alertmill[readers]'")
