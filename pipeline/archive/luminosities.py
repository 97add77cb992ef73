"""Luminosities made while reading, from the hosts that a release has: rows, and every point of a light curve."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline import surveys
from pipeline.dust import open_dust_map
from pipeline.errors import InputError
from pipeline.luminosity import Passband
from pipeline.stages import luminosity
from pipeline.stages.luminosity import Dust

COLUMNS = tuple(item.name for item in luminosity.produces())
_HOST = ("host_distance_mpc", "host_redshift")
_STORED = ("band", "lum_extinction_mag")


@dataclass(frozen=True)
class Luminosities:
    """How luminosities of one survey's alerts are made.

    Attributes
    ----------
    passbands : mapping
        Bands of the survey.
    dust : Dust or None
        Dust map given for this reading; without one, the extinction that the release has, if any.
    """

    passbands: Mapping[str, Passband]
    dust: Dust | None = None

    def columns_of(self, rows: pa.RecordBatch) -> dict[str, pa.ChunkedArray]:
        """Return the luminosity columns of rows that have those of ``luminosity.REQUIRES``."""
        needed = pa.table([rows.column(name) for name in luminosity.REQUIRES], names=list(luminosity.REQUIRES))
        made = luminosity.match(needed, self.passbands, self.dust)
        return dict(zip(made.column_names, made.columns, strict=True))

    def needed_for_points(self, schema: pa.Schema) -> list[str]:
        """Return the columns of the rows from which the luminosities of their points follow.

        Raises
        ------
        InputError
            The dataset has no hosts.
        """
        check_hosts(schema)
        if self.dust is not None:
            return [*_HOST, "ra", "dec"]
        return [*_HOST, *(_STORED if _STORED[1] in schema.names else ())]

    def add_to_points(self, light_curves: pa.ChunkedArray, rows: pa.Table) -> pa.ChunkedArray:
        """Return the light curves of some rows with luminosity and absolute magnitude of every point."""
        distance, redshift = (_numbers(rows, name) for name in _HOST)
        made = luminosity.add_to_points(
            light_curves.combine_chunks(), self.passbands, distance, redshift, self._ebv_mag(rows)
        )
        return pa.chunked_array([made])

    def _ebv_mag(self, rows: pa.Table) -> NDArray[np.float64]:
        if self.dust is not None:
            return self.dust.ebv_mag(_numbers(rows, "ra"), _numbers(rows, "dec"))
        if not set(_STORED) <= set(rows.column_names):
            return np.full(rows.num_rows, np.nan)
        of_one = [self.passbands[band].extinction if band in self.passbands else np.nan for band in _bands(rows)]
        return _numbers(rows, "lum_extinction_mag") / np.array(of_one, dtype=np.float64)


def of_survey(survey: str | None, dust_map: str | Path | None = None) -> Luminosities | None:
    """Return how luminosities of a survey are made; None where no survey is meant, or it is not known.

    Raises
    ------
    CatalogError
        The dust map is absent or damaged.
    """
    known = surveys.SURVEYS.get(survey or "")
    if known is None:
        return None
    return Luminosities(known.passbands, None if dust_map is None else open_dust_map(dust_map))


def check_hosts(schema: pa.Schema) -> None:
    """Raise :class:`InputError` unless a dataset with this schema has what luminosities are made of."""
    missing = [name for name in luminosity.REQUIRES if name not in schema.names]
    if missing:
        raise InputError(
            f"luminosities need host galaxies, and this dataset has no {missing[0]}",
            mend="run the night with a catalog that declares hosts (see `alertmill catalogs list`), and read science",
        )


def with_luminosities(schema: pa.Schema) -> pa.Schema:
    """Return the schema of a dataset with the luminosity columns that it does not have."""
    check_hosts(schema)
    return pa.schema([*schema, *(item for item in luminosity.produces() if item.name not in schema.names)])


def check_stored(where: pc.Expression | None, schema: pa.Schema) -> None:
    """Raise :class:`InputError` where a condition speaks of luminosities that are not stored."""
    made = [name for name in COLUMNS if name not in schema.names]
    spoken = [name for name in made if where is not None and name in str(where)]
    if spoken:
        raise InputError(
            f"{spoken[0]} is made while reading: a condition cannot use it",
            mend="filter what you have read, or store it with `alertmill run --luminosity`",
        )


def _numbers(table: pa.Table, name: str) -> NDArray[np.float64]:
    return np.asarray(table.column(name).cast(pa.float64()).to_numpy(), dtype=np.float64)


def _bands(table: pa.Table) -> list[str]:
    return [str(band) for band in table.column("band").to_pylist()]
