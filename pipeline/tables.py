"""The declared schemas of the datasets that are the same for every survey.

``raw`` and ``cutouts`` are the survey's own (see :mod:`pipeline.surveys`); ``science`` is the flat part of ``alerts``
plus what the enrichment declares.
"""

from __future__ import annotations

import pyarrow as pa

from pipeline.schema import column

_F64 = pa.float64()
_I64 = pa.int64()
_LIST_F64 = pa.list_(pa.float64())

LIGHT_CURVE_TYPE = pa.struct(
    [
        column("mjd", _LIST_F64, unit="d", doc="TAI at mid-exposure"),
        column("flux_njy", _LIST_F64, unit="nJy", doc="difference flux, signed"),
        column("flux_err_njy", _LIST_F64, unit="nJy", doc="1 sigma"),
        column("band", pa.list_(pa.string()), doc="band"),
        column("is_forced", pa.list_(pa.bool_()), doc="forced photometry (else a detection)"),
        column("exposure", pa.list_(pa.int64()), doc="exposure and detector: ZTF pid, Rubin visit*1000+detector"),
        column("total_flux_njy", _LIST_F64, unit="nJy", doc="reference plus difference flux"),
        column("total_flux_err_njy", _LIST_F64, unit="nJy", doc="1 sigma, reference error included"),
        column("reference", pa.list_(pa.int64()), doc="reference image: ZTF field*100+rcid; null where not known"),
    ]
)
"""Light curve as struct of lists with equal offsets; ordered by (mjd, is_forced); every measurement as shipped."""

UPPER_LIMITS_TYPE = pa.struct(
    [
        column("mjd", _LIST_F64, unit="d", doc="TAI at mid-exposure"),
        column("flux_limit_njy", _LIST_F64, unit="nJy", doc="5 sigma limit"),
        column("band", pa.list_(pa.string()), doc="band"),
        column("exposure", pa.list_(pa.int64()), doc="exposure and detector"),
    ]
)

FLAT_COLUMNS = [
    column("alert_id", _I64, nullable=False, doc="ZTF candid, Rubin and ELAsTiCC diaSourceId"),
    column("object_key", pa.string(), nullable=False, doc="object identity; no key joins two objects"),
    column("ra", _F64, unit="deg", nullable=False, doc="ICRS right ascension"),
    column("dec", _F64, unit="deg", nullable=False, doc="ICRS declination"),
    column("healpix_29", _I64, nullable=False, doc="HEALPix cell, order 29, nested"),
    column("mjd", _F64, unit="d", nullable=False, doc="TAI at mid-exposure"),
    column("utc_date", pa.int32(), nullable=False, doc="UTC date of mid-exposure, YYYYMMDD"),
    column("band", pa.string(), nullable=False, doc="band of the triggering exposure"),
    column("exposure", _I64, doc="exposure and detector: ZTF pid, Rubin visit*1000+detector"),
    column("field", pa.int32(), doc="survey field"),
    column("detector", pa.int32(), doc="Rubin detector, ZTF rcid"),
    column("reference", _I64, doc="reference image: ZTF field*100+rcid"),
    column("flux_njy", _F64, unit="nJy", doc="difference flux, signed"),
    column("flux_err_njy", _F64, unit="nJy", doc="1 sigma"),
    column("is_positive", pa.bool_(), doc="sign of the difference flux"),
    column("diff_mag", _F64, unit="mag", doc="AB magnitude of the absolute difference flux"),
    column("diff_err_mag", _F64, unit="mag", doc="1 sigma"),
    column("total_flux_njy", _F64, unit="nJy", doc="reference plus difference flux"),
    column("total_flux_err_njy", _F64, unit="nJy", doc="1 sigma, reference error included"),
    column(
        "total_flux_err_no_reference_njy",
        _F64,
        unit="nJy",
        doc="1 sigma without the reference error, for extended hosts",
    ),
    column("total_mag", _F64, unit="mag", doc="AB magnitude of the total flux; null where it is not positive"),
    column("limit_mag", _F64, unit="mag", doc="5 sigma limit of the exposure"),
    column("seeing_arcsec", pa.float32(), unit="arcsec", doc="full width at half maximum"),
    column("exposure_time_sec", _F64, unit="s", doc="exposure time"),
    column("reliability", pa.float32(), doc="the survey's real/bogus score: ZTF drb, else rb; Rubin reliability"),
    column("is_good_quality", pa.bool_(), doc="the survey's quality rule; never a cut"),
    column("is_solar_system", pa.bool_(), nullable=False, doc="associated with a known Solar System object"),
    column("solar_system_name", pa.string(), doc="name or number of that object"),
    column("solar_system_separation_arcsec", pa.float32(), unit="arcsec", doc="separation from its predicted position"),
    column("is_dipole", pa.bool_(), doc="Rubin isDipole"),
    column("is_negative_detection", pa.bool_(), doc="Rubin isNegative: a detection flag, not the sign of the flux"),
    column("is_injected", pa.bool_(), doc="injected source: never served"),
    column("is_glint_flagged", pa.bool_(), doc="the survey's glint-trail flag"),
    column("is_public", pa.bool_(), nullable=False, doc="False for ZTF programid other than 1"),
    column("first_mjd", _F64, unit="d", doc="first detection, TAI"),
    column("first_mjd_is_bound", pa.bool_(), doc="the history is cut: the first detection may be earlier"),
    column("n_detections", pa.int32(), nullable=False, doc="detections in the light curve, each exposure once"),
    column("n_light_curve", pa.int32(), nullable=False, doc="points in the light curve as shipped"),
    column("n_upper_limits", pa.int32(), nullable=False, doc="upper limits"),
    column("reference_separation_arcsec", pa.float32(), unit="arcsec", doc="nearest source of the reference image"),
    column("reference_mag", pa.float32(), unit="mag", doc="its magnitude"),
    column("star_score", pa.float32(), doc="PS1 star/galaxy score of the nearest PS1 source (1 = star)"),
    column("star_separation_arcsec", pa.float32(), unit="arcsec", doc="separation from that source"),
    column("gaia_separation_arcsec", pa.float32(), unit="arcsec", doc="nearest Gaia source given by the survey"),
    column("gaia_mag", pa.float32(), unit="mag", doc="its G magnitude"),
]
"""Columns of ``alerts`` that are flat; the science dataset starts with them."""

FLAT = pa.schema(FLAT_COLUMNS)

ALERTS = pa.schema(
    [
        *FLAT_COLUMNS,
        column("light_curve", LIGHT_CURVE_TYPE, nullable=False, doc="every measurement shipped, trigger included once"),
        column("upper_limits", UPPER_LIMITS_TYPE, nullable=False, doc="non-detections; never a flux of 0"),
    ]
)

PROVENANCE = pa.schema(
    [
        column("alert_id", _I64, nullable=False, doc="alert"),
        column("source_number", pa.int32(), nullable=False, doc="source in the night's ledger; names stand there"),
        column("member", pa.string(), doc="name within the archive, or Kafka partition"),
        column("offset", _I64, nullable=False, doc="offset of the Avro body in the member, in bytes"),
        column("length", _I64, nullable=False, doc="length of the Avro body, in bytes"),
        column("body_sha256", pa.binary(32), nullable=False, doc="sha256 of the Avro body"),
        column("writer_schema_id", pa.string(), nullable=False, doc="schema version and digest of the writer schema"),
        column("processed_mjd", _F64, unit="d", doc="the survey's processing time (Rubin), TAI"),
    ]
)

REJECTS = pa.schema(
    [
        column(
            "reason", pa.string(), nullable=False, doc="undecodable, not_normalisable, other_night, conflicting, cut"
        ),
        column("detail", pa.string(), nullable=False, doc="position and field, or the two hashes of a conflict"),
        column("source", pa.string(), nullable=False, doc="source name"),
        column("member", pa.string(), doc="name within the archive"),
        column("offset", _I64, nullable=False, doc="offset in the member, in bytes"),
        column("length", _I64, nullable=False, doc="length, in bytes"),
        column("alert_id", _I64, doc="alert, where it could be read"),
        column("night", pa.int32(), doc="its night, where it could be read"),
        column("body_sha256", pa.binary(32), nullable=False, doc="sha256 of the body"),
        column("body", pa.large_binary(), doc="the packet as it came; null where it can be had from the source"),
        column("writer_schema_id", pa.string(), doc="schema version and digest of the writer schema"),
    ]
)

EXPOSURES = pa.schema(
    [
        column("exposure", _I64, nullable=False, doc="exposure and detector"),
        column("detector", pa.int32(), doc="Rubin detector, ZTF rcid"),
        column("field", pa.int32(), doc="survey field"),
        column("mjd", _F64, unit="d", nullable=False, doc="TAI at mid-exposure"),
        column("band", pa.string(), nullable=False, doc="band"),
        column("limit_mag", _F64, unit="mag", doc="5 sigma limit"),
        column("seeing_arcsec", pa.float32(), unit="arcsec", doc="median full width at half maximum of its alerts"),
        column("n_alerts", pa.int32(), nullable=False, doc="alerts of this exposure and detector"),
        column(
            "cells", pa.list_(pa.int64()), nullable=False, doc="order-10 nested HEALPix cells that its alerts touch"
        ),
    ]
)

LINKS = pa.schema(
    [
        column("alert_id", _I64, nullable=False, doc="alert"),
        column("module", pa.string(), nullable=False, doc="night module"),
        column("link_id", pa.string(), nullable=False, doc="link within the night"),
        column("score", _F64, doc="score of the link, as the module's card says"),
    ]
)
"""What a night module writes; a module's own further columns are appended by its declaration."""
