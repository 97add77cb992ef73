"""What is true of a simulated night: the truth of each alert, and the catalogs of its sky, as Arrow tables."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from pipeline.schema import column, from_columns
from pipeline.simulate.geometry import offset, to_sky
from pipeline.simulate.hosts import HOSTED
from pipeline.simulate.measure import Measured
from pipeline.simulate.movers import ARTEFACTS, ORBIT_COLUMNS, solar_system_name
from pipeline.simulate.night import Night
from pipeline.simulate.objects import luminosity_distance, redshift_at
from pipeline.simulate.populations import CLASSES, CODES
from pipeline.simulate.transients import PLATEAU

_F64, _I64, _TEXT = pa.float64(), pa.int64(), pa.string()

TRUTH = pa.schema(
    [
        column("alert_id", _I64, nullable=False, doc="alert"),
        column("object_id", _TEXT, nullable=False, doc="object as the packet names it"),
        column("class", _TEXT, nullable=False, doc="class"),
        column("subclass", _TEXT, doc="kind of core collapse, of RR Lyrae, of artefact"),
        column("true_object", _I64, nullable=False, doc="number of the simulated object or detection"),
        column("ra", _F64, unit="deg", nullable=False, doc="true ICRS right ascension"),
        column("dec", _F64, unit="deg", nullable=False, doc="true ICRS declination"),
        column("mjd", _F64, unit="d", nullable=False, doc="TAI at mid-exposure"),
        column("true_flux_njy", _F64, unit="nJy", nullable=False, doc="true difference flux at the trigger"),
        column("is_bogus", pa.bool_(), nullable=False, doc="an artefact"),
        column("z", _F64, doc="redshift"),
        column("lum_dist_mpc", _F64, unit="Mpc", doc="luminosity distance"),
        column("peak_abs_mag", _F64, unit="mag", doc="peak absolute AB magnitude at rest 478 nm"),
        column("peak_mjd", _F64, unit="d", doc="time of peak, TAI"),
        column("explosion_mjd", _F64, unit="d", doc="time of explosion, TAI"),
        column("phase_days", _F64, unit="d", doc="time after the peak in the observer's frame"),
        column("period_days", _F64, unit="d", doc="period"),
        column("host_name", _TEXT, doc="its host in sim_galaxies"),
        column("host_separation_arcsec", _F64, unit="arcsec", doc="distance from the host's centre"),
        column("streak_id", _I64, doc="streak of a glint"),
        column("body_name", _TEXT, doc="Solar System body"),
        *[column(f"orbit_{name}", _F64, doc="heliocentric ecliptic J2000 element") for name in ORBIT_COLUMNS],
        column("event_name", _TEXT, doc="merger of a kilonova"),
    ]
)

GALAXIES = pa.schema(
    [
        column("name", _TEXT, nullable=False, doc="name of the galaxy"),
        column("ra", _F64, unit="deg", nullable=False, doc="ICRS right ascension"),
        column("dec", _F64, unit="deg", nullable=False, doc="ICRS declination"),
        column("z", _F64, doc="redshift"),
        column("lum_dist_mpc", _F64, unit="Mpc", doc="luminosity distance"),
        column("lum_dist_err_mpc", _F64, unit="Mpc", doc="1 sigma of the luminosity distance"),
        column("half_light_arcsec", _F64, unit="arcsec", doc="half-light radius"),
        column("stellar_mass_msun", _F64, unit="Msun", doc="stellar mass"),
    ]
)
VARIABLES = pa.schema(
    [
        column("name", _TEXT, nullable=False, doc="name of the star"),
        column("ra", _F64, unit="deg", nullable=False, doc="ICRS right ascension"),
        column("dec", _F64, unit="deg", nullable=False, doc="ICRS declination"),
        column("type", _TEXT, nullable=False, doc="variability type"),
        column("period_day", _F64, unit="d", doc="period; null where it has none"),
        column("w1_w2_mag", _F64, unit="mag", doc="infrared colour W1 - W2"),
    ]
)
AGN = pa.schema(
    [
        column("name", _TEXT, nullable=False, doc="name of the active galaxy"),
        column("ra", _F64, unit="deg", nullable=False, doc="ICRS right ascension"),
        column("dec", _F64, unit="deg", nullable=False, doc="ICRS declination"),
        column("z", _F64, doc="redshift"),
    ]
)

_STAR_TYPES = {
    "rr_lyrae": "RR",
    "eclipsing_binary": "E",
    "dwarf_nova": "UG",
    "m_dwarf_flare": "UV",
    "fading_ir_excess": "YSO",
}
"""Classes of stars that the catalog knows, and its type of each."""

_KNOWN = 0.8
"""Share of variable stars and active galaxies that the catalogs know."""


def host_names(key: np.ndarray) -> np.ndarray:
    """Return names of the hosts of objects."""
    return np.char.add("SIMG ", key.astype(str))


def _or_null(values: np.ndarray, kept: np.ndarray) -> pa.Array:
    return pa.array(values, mask=~(kept & np.isfinite(values)), type=pa.float64())


def truth_of(night: Night, m: Measured, alert_id: np.ndarray, object_id: list[str]) -> pa.Table:
    """Return the truth of the alerts of ``m``, as :data:`TRUTH` says."""
    o, rows = m.objects, m.rows
    name = np.array([kind.name for kind in CLASSES])[o.code]
    mjd = night.visits.mjd[m.visit]
    hosted = np.isin(name, HOSTED)
    far = o.redshift > 0
    moving = np.char.startswith(name, "asteroid")
    elements = {item: np.full(rows.size, np.nan) for item in ORBIT_COLUMNS}
    for kind, bodies in night.bodies.items():
        here = name == kind
        for item in ORBIT_COLUMNS:
            elements[item][here] = bodies[item][o.link[here]]
    body = [
        solar_system_name(kind, int(link)) if moves else None
        for kind, link, moves in zip(name, o.link, moving, strict=True)
    ]
    return from_columns(
        {
            "alert_id": alert_id,
            "object_id": object_id,
            "class": name.tolist(),
            "subclass": _subclass(name, o.family, o.params, o.link),
            "true_object": o.key,
            "ra": o.ra,
            "dec": o.dec,
            "mjd": mjd,
            "true_flux_njy": m.point_true[m.trigger],
            "is_bogus": name == "bogus",
            "z": _or_null(o.redshift, far),
            "lum_dist_mpc": _or_null(o.distance_mpc, far),
            "peak_abs_mag": _or_null(o.peak_abs_mag, far),
            "peak_mjd": _or_null(o.peak_mjd, np.ones(rows.size, bool)),
            "explosion_mjd": _or_null(o.params[:, 7], hosted),
            "phase_days": _or_null(mjd - o.peak_mjd, np.ones(rows.size, bool)),
            "period_days": _or_null(o.period_days, np.ones(rows.size, bool)),
            "host_name": pa.array(host_names(o.key).tolist(), mask=~hosted, type=_TEXT),
            "host_separation_arcsec": _or_null(o.source_sep_arcsec, hosted),
            "streak_id": pa.array(o.link, mask=name != "satellite_glint", type=_I64),
            "body_name": body,
            **{f"orbit_{item}": _or_null(values, moving) for item, values in elements.items()},
            "event_name": pa.array(
                [night.event.name] * rows.size, mask=~((name == "kilonova") & (o.link == 0)), type=_TEXT
            ),
        },
        TRUTH,
    )


def _subclass(name: np.ndarray, family: np.ndarray, params: np.ndarray, link: np.ndarray) -> pa.Array:
    out: list[str | None] = []
    for kind, source, p, number in zip(name.tolist(), family.tolist(), params, link.tolist(), strict=True):
        if kind == "sn_core_collapse":
            out.append("plateau" if source == PLATEAU else "stripped")
        elif kind == "rr_lyrae":
            out.append("c" if p[3] > 0.5 else "ab")
        else:
            out.append(ARTEFACTS[number] if kind == "bogus" else None)
    return pa.array(out, type=pa.string())


def _around(night: Night, count: int, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return keys and positions of ``count`` unrelated objects in the fields of the night."""
    keys = np.arange(count)
    draws, camera, visits = night.draws, night.instrument.camera, night.visits
    field = draws.integers(name + " field", keys, 0, visits.field_ra.size)
    half = 0.5 * camera.side * camera.pitch_deg[0]
    xi, eta = draws.uniform(name + " xi", keys, -half, half), draws.uniform(name + " eta", keys, -half, half)
    ra, dec = to_sky(xi, eta, visits.field_ra[field], visits.field_dec[field])
    return keys, ra, dec


def galaxies(night: Night) -> pa.Table:
    """Return the hosts of the night's transients among unrelated galaxies."""
    o, draws = night.objects, night.draws
    rows = np.flatnonzero(np.isin(o.code, [CODES[name] for name in HOSTED]))
    host_ra, host_dec = offset(
        o.ra[rows], o.dec[rows], o.source_sep_arcsec[rows] * np.sin(o.source_angle[rows]),
        o.source_sep_arcsec[rows] * np.cos(o.source_angle[rows]),
    )  # fmt: skip
    keys, ra, dec = _around(night, max(2000, 4 * rows.size), "galaxy")
    z = redshift_at(600.0 * draws.uniform("galaxy distance", keys, 0.001) ** (1 / 3))
    z = np.r_[o.redshift[rows], z]
    everyone = np.r_[o.key[rows], keys]
    distance = luminosity_distance(z)
    names = np.r_[host_names(o.key[rows]), np.char.add("SIMF ", keys.astype(str))]
    mass = 10 ** draws.normal("stellar mass", everyone, 10.2, 0.5)
    size = np.r_[o.source_arcsec[rows], draws.log_uniform("galaxy size", keys, 1.0, 15.0)]
    return from_columns(
        {
            "name": names.tolist(),
            "ra": np.r_[host_ra, ra],
            "dec": np.r_[host_dec, dec],
            "z": z,
            "lum_dist_mpc": distance,
            "lum_dist_err_mpc": distance * 0.01 + 300.0 / 67.7,
            "half_light_arcsec": size,
            "stellar_mass_msun": mass,
        },
        GALAXIES,
    )


def variables(night: Night) -> pa.Table:
    """Return most of the night's variable stars among unrelated ones."""
    o, draws = night.objects, night.draws
    fading = o.code == CODES["fading_ir_excess"]
    known = (draws.uniform("is in a catalog", o.key) < _KNOWN) | fading  # its infrared excess is known only from there
    rows = np.flatnonzero(np.isin(o.code, [CODES[name] for name in _STAR_TYPES]) & known)
    keys, ra, dec = _around(night, max(500, rows.size), "star")
    types = [_STAR_TYPES[CLASSES[code].name] for code in o.code[rows]]
    period = np.r_[o.period_days[rows], draws.log_uniform("star period", keys, 0.2, 400.0)]
    infrared = np.where(fading[rows], draws.uniform("W1-W2", o.key[rows], 0.8, 1.8), 0.05)
    return from_columns(
        {
            "name": np.r_[
                np.char.add("SIMV ", o.key[rows].astype(str)), np.char.add("SIMW ", keys.astype(str))
            ].tolist(),
            "ra": np.r_[o.ra[rows], ra],
            "dec": np.r_[o.dec[rows], dec],
            "type": [
                *types,
                *(["RR", "E", "M", "DSCT", "BY"][int(k)] for k in draws.integers("star type", keys, 0, 5)),
            ],
            "period_day": _or_null(period, np.ones(period.size, bool)),
            "w1_w2_mag": np.r_[infrared, draws.normal("W1-W2 field", keys, 0.03, 0.08)],
        },
        VARIABLES,
    )


def active_galaxies(night: Night) -> pa.Table:
    """Return most of the night's active galaxies among unrelated ones."""
    o, draws = night.objects, night.draws
    rows = np.flatnonzero((o.code == CODES["agn"]) & (draws.uniform("is in a catalog", o.key) < _KNOWN))
    keys, ra, dec = _around(night, max(300, rows.size), "active galaxy")
    return from_columns(
        {
            "name": np.r_[
                np.char.add("SIMA ", o.key[rows].astype(str)), np.char.add("SIMB ", keys.astype(str))
            ].tolist(),
            "ra": np.r_[o.ra[rows], ra],
            "dec": np.r_[o.dec[rows], dec],
            "z": np.r_[o.redshift[rows], draws.log_uniform("active redshift", keys, 0.02, 2.5)],
        },
        AGN,
    )
