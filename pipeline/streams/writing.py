"""Results as files: whole or not there at all, the same bytes for the same rows."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import InputError
from pipeline.followup.files import OUT_SUFFIXES, check_target, write_table
from pipeline.store.root import temporary_name

_ROW_GROUP = 131_072


class Rows:
    """Collects tables of one schema; Parquet goes to disk as it comes, in row groups of equal size."""

    def __init__(self, target: Path, schema: pa.Schema) -> None:
        self.rows = 0
        self._target = target
        self._schema = schema
        self._kept: list[pa.Table] = []
        self._waiting = 0
        self._draft = temporary_name(target)
        is_parquet = target.suffix.lower() == ".parquet"
        self._writer = pq.ParquetWriter(self._draft, schema, compression="zstd") if is_parquet else None

    def add(self, table: pa.Table) -> None:
        """Append rows."""
        self.rows += len(table)
        self._waiting += len(table)
        self._kept.append(table.cast(self._schema))
        if self._writer is not None and self._waiting >= _ROW_GROUP:
            whole = pa.concat_tables(self._kept)
            cut = len(whole) // _ROW_GROUP * _ROW_GROUP
            self._writer.write_table(whole.slice(0, cut), row_group_size=_ROW_GROUP)
            self._kept, self._waiting = [whole.slice(cut)], len(whole) - cut

    def finish(self) -> None:
        """Write what is left and put the file in place."""
        rest = pa.concat_tables([self._schema.empty_table(), *self._kept])
        if self._writer is None:
            write_table(rest, self._target)
        else:
            self._writer.write_table(rest, row_group_size=_ROW_GROUP)
            self._writer.close()
            self._draft.replace(self._target)

    def abandon(self) -> None:
        """Leave nothing behind, unless it is finished."""
        if self._writer is not None:
            self._writer.close()
        self._draft.unlink(missing_ok=True)


@contextmanager
def written_rows(out: str | Path, schema: pa.Schema) -> Iterator[Rows]:
    """Give where to add rows of a table; the file is there once all of them are.

    Raises
    ------
    InputError
        The file's form is not known, or it cannot be written.
    """
    target = check_target(out, OUT_SUFFIXES, "--out")
    try:
        rows = Rows(target, schema)
    except OSError as error:
        raise _unwritable(target, error) from error
    try:
        yield rows
        rows.finish()
    except OSError as error:
        raise _unwritable(target, error) from error
    finally:
        rows.abandon()


@contextmanager
def written_folder(out: str | Path, names: tuple[str, ...]) -> Iterator[Path]:
    """Give a draft of a folder of files; it takes the place of ``out`` once all of them are written.

    Raises
    ------
    InputError
        ``out`` exists and holds something else than such files, or cannot be written.
    """
    target = Path(out).absolute()
    if target.exists() and (not target.is_dir() or {item.name for item in target.iterdir()} - set(names)):
        raise InputError(f"{out} exists and holds something else", mend="name another folder with --out")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as made:
            draft = Path(made) / "new"
            draft.mkdir()
            yield draft
            if target.exists():
                target.rename(Path(made) / "old")
            draft.rename(target)
            shutil.rmtree(Path(made) / "old", ignore_errors=True)
    except OSError as error:
        raise _unwritable(target, error) from error


def _unwritable(path: Path, error: OSError) -> InputError:
    return InputError(f"{path} cannot be written: {error.strerror or error}", mend="choose another --out")
