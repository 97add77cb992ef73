"""Tables and pictures as files: written whole or not at all, read within limits."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from pipeline.errors import InputError
from pipeline.store.root import temporary_name

OUT_SUFFIXES = (".parquet", ".csv", ".vot", ".fits")
IN_SUFFIXES = (".parquet", ".pq", ".csv", ".fits", ".fit", ".fits.gz", ".vot", ".votable", ".xml")
_MOST_BYTES = 4 << 30
_FITS_LETTERS = {"int16": "I", "int32": "J", "int64": "K", "float": "E", "double": "D"}
_HELD = {"int8": pa.int16(), "uint8": pa.int16(), "uint16": pa.int32(), "uint32": pa.int64(), "uint64": pa.string()}
"""How FITS and VOTable hold whole numbers that they have no type for, or none with a value to spare for null."""
_NO_MARKUP = re.compile(rb"<!(DOCTYPE|ENTITY)", re.IGNORECASE)


def check_target(path: str | Path, suffixes: tuple[str, ...], option: str) -> Path:
    """Return the path of a file to write.

    Raises
    ------
    InputError
        Its suffix tells no known form, or its folder is not there.
    """
    target = Path(path)
    if target.suffix.lower() not in suffixes:
        raise InputError(f"the form of {option} {path} is not known", mend=f"known are {', '.join(suffixes)}")
    if not target.parent.is_dir():
        raise InputError(f"folder {target.parent} of {option} does not exist", mend="make it first")
    if target.is_dir():
        raise InputError(f"{option} {path} is a folder", mend="name a file")
    return target


def named_for(path: Path, event: str, *, among: int) -> Path:
    """Return the file of one event: with its name before the suffix where there are several."""
    return path if among == 1 else path.with_name(f"{path.stem}-{event}{path.suffix}")


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees the old one or the whole new one."""
    _write(path, lambda draft: draft.write_bytes(content))


def write_table(table: pa.Table, path: Path) -> None:
    """Write a table in the form that the file's suffix tells; null stays null in each.

    In FITS that is NaN, TNULL, an empty text and a logical of byte 0; units and descriptions go with Parquet, FITS and
    VOTable.

    Raises
    ------
    InputError
        The file cannot be written, or its form cannot hold a column.
    """
    write = {".parquet": _parquet, ".csv": _csv, ".vot": _votable, ".fits": _fits}[path.suffix.lower()]
    nested = [item.name for item in table.schema if pa.types.is_nested(item.type)]
    if nested and path.suffix.lower() != ".parquet":
        raise InputError(f"{path.name} cannot hold the lists of column {nested[0]}", mend="write Parquet")
    _write(path, lambda draft: write(table, draft))


def _write(path: Path, write: Callable[[Path], Any]) -> None:
    draft = temporary_name(path)
    try:
        write(draft)
        draft.replace(path)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}", mend="choose another file") from error
    except (pa.ArrowException, TypeError) as error:  # bytes that are no text, half floats: not every form has them
        raise InputError(f"{path.name} cannot hold a column: {error}", mend="write Parquet") from error
    finally:
        draft.unlink(missing_ok=True)


def _parquet(table: pa.Table, draft: Path) -> None:
    pq.write_table(table, draft, compression="zstd")


def _csv(table: pa.Table, draft: Path) -> None:
    pa.csv.write_csv(table, draft)


def _fits(table: pa.Table, draft: Path) -> None:
    from astropy.io import fits

    table, columns, nulls = _held(table), [], {}
    for item in table.schema:
        data = table.column(item.name).combine_chunks()
        is_null = data.is_null().to_numpy(zero_copy_only=False)
        metadata = item.metadata or {}
        options: dict[str, Any] = {"name": item.name, "unit": metadata.get(b"unit", b"").decode() or None}
        if pa.types.is_boolean(item.type):
            columns.append(fits.Column(format="L", array=_filled(data, False), **options))
            nulls[item.name] = is_null
        elif (letter := _FITS_LETTERS.get(str(item.type))) and pa.types.is_floating(item.type):
            columns.append(fits.Column(format=letter, array=_filled(data, np.nan), **options))
        elif letter:
            least = int(np.iinfo(f"i{ {'I': 2, 'J': 4, 'K': 8}[letter] }").min)
            null = {"null": least} if is_null.any() else {}
            columns.append(fits.Column(format=letter, array=_filled(data, least if null else 0), **null, **options))
        else:
            texts = [(text or "").encode("ascii", "backslashreplace") for text in data.cast(pa.string()).to_pylist()]
            width = max((len(text) for text in texts), default=0) or 1
            columns.append(fits.Column(format=f"{width}A", array=np.array(texts, dtype=f"S{width}"), **options))
    made = fits.BinTableHDU.from_columns(columns)
    for name, is_null in nulls.items():
        np.rec.recarray.field(made.data, name)[is_null] = 0  # the standard's undefined logical
    for number, item in enumerate(table.schema, start=1):
        if (item.metadata or {}).get(b"doc"):
            made.header[f"TCOMM{number}"] = item.metadata[b"doc"].decode().encode("ascii", "replace").decode()[:200]
    draft.write_bytes(_bytes_of(fits.HDUList([fits.PrimaryHDU(), made]).writeto))


def _held(table: pa.Table) -> pa.Table:
    return table.cast(pa.schema([item.with_type(_HELD.get(str(item.type), item.type)) for item in table.schema]))


def _filled(data: pa.Array, value: Any) -> np.ndarray:
    """Return the values with null replaced, in their own type."""
    return data.fill_null(pa.scalar(value, data.type)).to_numpy(zero_copy_only=False)


def _votable(table: pa.Table, draft: Path) -> None:
    from astropy.io.votable import from_table
    from astropy.table import MaskedColumn, Table

    table, columns = _held(table), []
    for item in table.schema:
        data = table.column(item.name).combine_chunks()
        is_null = data.is_null().to_numpy(zero_copy_only=False)
        metadata = {key.decode(): value.decode() for key, value in (item.metadata or {}).items()}
        numeric = pa.types.is_integer(item.type) or pa.types.is_floating(item.type) or pa.types.is_boolean(item.type)
        values = (
            _filled(data, False if pa.types.is_boolean(item.type) else 0)
            if numeric
            else np.array(data.cast(pa.string()).fill_null("").to_pylist(), dtype=str)
        )
        columns.append(
            MaskedColumn(values, item.name, mask=is_null, unit=metadata.get("unit"), description=metadata.get("doc"))
        )
    draft.write_bytes(_bytes_of(from_table(Table(columns)).to_xml))


def _bytes_of(write: Callable[[io.BytesIO], Any]) -> bytes:
    """Return what is written; astropy tells a form by its file's name, which a temporary one has not."""
    buffer = io.BytesIO()
    write(buffer)
    return buffer.getvalue()


# ------------------------------------------------------------------------------------------------ reading
def read_table(path: str | Path) -> pa.Table:
    """Read a table of any columns: Parquet, CSV, FITS or VOTable by its suffix.

    Raises
    ------
    InputError
        The file is absent, too large, damaged, or of unknown form.
    """
    file = Path(path)
    name = file.name.lower()
    suffix = next((end for end in IN_SUFFIXES if name.endswith(end)), None)
    if suffix is None:
        raise InputError(f"the form of table {path} is not known", mend=f"known are {', '.join(IN_SUFFIXES)}")
    try:
        if file.stat().st_size > _MOST_BYTES:
            raise InputError(f"table {path} has more than {_MOST_BYTES >> 30} GiB", mend="split it")
        if suffix in (".parquet", ".pq"):
            table = pq.ParquetFile(file).read()
        elif suffix == ".csv":
            table = _from_csv(file)
        else:
            table = _from_astropy(file, is_fits=suffix.startswith(".fit"))
    except FileNotFoundError:
        raise InputError(f"table {path} does not exist") from None
    except InputError:
        raise
    # What astropy and Arrow raise from a file that is none of theirs has no common base.
    except (OSError, ValueError, TypeError, KeyError, IndexError, AttributeError, pa.ArrowException) as error:
        told = str(error).strip().splitlines()
        raise InputError(
            f"table cannot be read: {told[0] if told else type(error).__name__}", source=str(path)
        ) from error
    twice = [item for item in table.column_names if table.column_names.count(item) > 1]
    if twice:
        raise InputError(f"the table has two columns {twice[0]}", source=str(path), mend="rename one")
    return table


def _from_csv(file: Path) -> pa.Table:
    """Read CSV; a column of whole numbers beyond 2^63 is not taken for one of floats, which would round every id."""
    table = pa.csv.read_csv(file)
    floats = [item.name for item in table.schema if pa.types.is_floating(item.type)]
    large = [name for name in floats if (pc.max(table.column(name)).as_py() or 0.0) >= 2.0**63]
    for name in large:
        try:
            whole = pa.csv.read_csv(
                file, convert_options=pa.csv.ConvertOptions(include_columns=[name], column_types={name: pa.uint64()})
            )
        except pa.ArrowInvalid:
            continue
        table = table.set_column(table.column_names.index(name), name, whole.column(name))
    return table


def _from_astropy(file: Path, *, is_fits: bool) -> pa.Table:
    from astropy.io.votable import parse_single_table
    from astropy.table import Table

    if is_fits:
        with warnings.catch_warnings():  # what matters is raised as an error
            warnings.simplefilter("ignore")
            table = Table.read(file, format="fits", hdu=1, unit_parse_strict="silent")
    else:
        content = file.read_bytes()
        if b"\0" in content or _NO_MARKUP.search(content):  # zero bytes: an encoding that hides it
            raise InputError("the VOTable declares a document type or entities", source=str(file), mend="remove them")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            table = parse_single_table(io.BytesIO(content), verify="ignore").to_table(use_names_over_ids=True)
    return pa.table({name: _arrow(table[name]) for name in table.colnames})


def _arrow(column: Any) -> pa.Array:
    values = np.ma.asarray(column)
    data, mask = np.ma.getdata(values), np.ma.getmaskarray(values)
    if data.ndim > 1:
        return pa.array(data.reshape(len(data), -1).tolist())
    if data.dtype.kind in "SOU":
        texts = [item.decode("utf-8", "replace") if isinstance(item, bytes) else str(item) for item in data]
        return pa.array(texts, mask=mask, type=pa.string())
    if data.dtype.kind == "f":
        mask = mask | np.isnan(data)
    return pa.array(data.astype(data.dtype.newbyteorder("=")), mask=mask)
