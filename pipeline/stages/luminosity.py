"""What every alert gives off at the distance of its host: absolute magnitude and luminosity."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from pipeline import luminosity
from pipeline.luminosity import Passband
from pipeline.photometry import mag_from_flux
from pipeline.schema import column, from_columns, key_of
from pipeline.stages.groups import Group

VERSION = 1
REQUIRES = (
    *("ra", "dec", "band", "flux_njy", "diff_mag", "diff_err_mag"),
    *("host_distance_mpc", "host_distance_err_mpc", "host_redshift"),
)

_F64 = pa.float64()
_PRODUCES = [
    column("lum_distance_mpc", _F64, unit="Mpc", doc="luminosity distance used: that of the host galaxy"),
    column(
        "lum_absolute_mag",
        _F64,
        unit="mag",
        doc="m - A - DM + 2.5 log10(1+z) of the difference flux, no K-correction; null where it is not positive",
    ),
    column("lum_absolute_err_mag", _F64, unit="mag", doc="1 sigma; null where the distance's error is not known"),
    column(
        "lum_nu_lnu_erg_s",
        _F64,
        unit="erg s-1",
        doc="nu L_nu = 4 pi D_L^2 nu F_nu of the difference flux, signed, no K-correction",
    ),
    column("lum_extinction_mag", _F64, unit="mag", doc="extinction A by the Milky Way; null without a dust map"),
    column(
        "lum_is_extinction_corrected", pa.bool_(), doc="A is taken off magnitude and luminosity; null without either"
    ),
]
POINT_FIELDS = [
    column("absolute_mag", pa.list_(_F64), unit="mag", doc="absolute magnitude; null where the flux is not positive"),
    column("nu_lnu_erg_s", pa.list_(_F64), unit="erg s-1", doc="nu L_nu, signed"),
]
"""What :func:`add_to_points` adds to a light curve."""


class Dust(Protocol):
    """A map of the dust of the Milky Way."""

    @property
    def digest(self) -> str:
        """Digest of the map."""

    def ebv_mag(self, ra: NDArray[np.float64], dec: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return E(B-V) on the scale of Schlegel, Finkbeiner & Davis; NaN where the map has none."""


def produces() -> list[pa.Field]:
    """Return the columns that this stage adds, ``lum_*``."""
    return list(_PRODUCES)


def group(passbands: Mapping[str, Passband], dust: Dust | None = None) -> Group:
    """Return the column group bound to a survey's bands and, if there is one, a dust map."""

    def run(alerts: pa.Table) -> pa.Table:
        return match(alerts, passbands, dust)

    told = {name: [item.wavelength_nm, item.extinction] for name, item in passbands.items()}
    digests = {"passbands": key_of(told)} | ({} if dust is None else {"dust": dust.digest})
    return Group("luminosity", VERSION, REQUIRES, tuple(produces()), run, digests=digests)


def match(alerts: pa.Table, passbands: Mapping[str, Passband], dust: Dust | None = None) -> pa.Table:
    """Give every alert its luminosity.

    Parameters
    ----------
    alerts : pyarrow.Table
        The columns of ``REQUIRES``; any number of rows, others beside them do not matter.
    passbands : mapping
        Bands of the survey (``surveys.get(name).passbands``).
    dust : Dust, optional
        Without one, nothing is corrected for extinction and the column says so.

    Returns
    -------
    pyarrow.Table
        The columns of :func:`produces`, same rows; null where an alert has no host distance.
    """
    ra, dec, flux, mag, mag_err, distance, distance_err, redshift = (
        _numbers(alerts, name) for name in REQUIRES if name != "band"
    )
    bands = alerts.column("band").to_pylist()
    extinction = np.full(alerts.num_rows, np.nan)
    if dust is not None:
        extinction = luminosity.extinction_mag(passbands, bands, dust.ebv_mag(ra, dec))
    mag = np.where(flux > 0, mag, np.nan)
    err = luminosity.absolute_err_mag(mag_err, distance, distance_err)
    absolute = luminosity.absolute_mag(mag, distance, redshift, extinction)
    nu_lnu = luminosity.nu_lnu_erg_s(flux, luminosity.wavelengths_nm(passbands, bands), distance, extinction)
    nothing = np.isnan(absolute) & np.isnan(nu_lnu)
    numbers = {
        "lum_distance_mpc": distance,
        "lum_absolute_mag": absolute,
        "lum_absolute_err_mag": np.where(np.isnan(absolute), np.nan, err),
        "lum_nu_lnu_erg_s": nu_lnu,
        "lum_extinction_mag": extinction,
    }
    columns = {name: pa.array(values, from_pandas=True) for name, values in numbers.items()}
    columns["lum_is_extinction_corrected"] = pa.array(~np.isnan(extinction), mask=nothing)
    return from_columns(columns, pa.schema(_PRODUCES))


def add_to_points(
    light_curve: pa.StructArray,
    passbands: Mapping[str, Passband],
    distance_mpc: ArrayLike,
    redshift: ArrayLike,
    ebv_mag: ArrayLike,
) -> pa.StructArray:
    """Return light curves with absolute magnitude and luminosity of every point beside its flux.

    Parameters
    ----------
    light_curve : pyarrow.StructArray, length n
        Struct of lists (:data:`pipeline.tables.LIGHT_CURVE_TYPE`), any slice.
    passbands : mapping
        Bands of the survey.
    distance_mpc, redshift, ebv_mag : array_like, shape (n,)
        Of each row: luminosity distance, redshift, E(B-V); NaN where unknown.

    Returns
    -------
    pyarrow.StructArray
        The same rows with the lists of :data:`POINT_FIELDS` added; null where the distance is unknown, magnitudes also
        where the flux is not positive.
    """
    fields = [*light_curve.type]
    lists = dict(zip([item.name for item in fields], light_curve.flatten(), strict=True))
    flux_lists = lists["flux_njy"]
    counts = flux_lists.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
    flux = flux_lists.flatten().to_numpy(zero_copy_only=False)
    bands = lists["band"].flatten().to_pylist()
    distance, z, ebv = (
        np.repeat(np.broadcast_to(np.asarray(item, dtype=np.float64), counts.shape), counts)
        for item in (distance_mpc, redshift, ebv_mag)
    )
    extinction = luminosity.extinction_mag(passbands, bands, ebv)
    wavelength = luminosity.wavelengths_nm(passbands, bands)
    made = {
        "absolute_mag": luminosity.absolute_mag(mag_from_flux(flux), distance, z, extinction),
        "nu_lnu_erg_s": luminosity.nu_lnu_erg_s(flux, wavelength, distance, extinction),
    }
    offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]).astype(np.int32))
    for item in POINT_FIELDS:
        values = pa.array(made[item.name], from_pandas=True)
        lists[item.name] = pa.ListArray.from_arrays(offsets, values).cast(item.type)
        fields.append(item)
    mask = light_curve.is_null() if light_curve.null_count else None
    return pa.StructArray.from_arrays(list(lists.values()), fields=fields, mask=mask)


def _numbers(table: pa.Table, name: str) -> NDArray[np.float64]:
    return np.asarray(table.column(name).cast(pa.float64()).to_numpy(), dtype=np.float64)
