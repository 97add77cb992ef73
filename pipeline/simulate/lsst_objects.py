"""Rubin ``diaObject``, ``ssSource`` and ``mpc_orbits`` columns."""

from __future__ import annotations

import numpy as np

from pipeline.simulate import orbits
from pipeline.simulate.encode import Columns, Heap
from pipeline.simulate.geometry import ecliptic, galactic, observer_au, separation_arcsec
from pipeline.simulate.lsst_sources import has_object, ss_object_ids, template_flux
from pipeline.simulate.measure import Measured
from pipeline.simulate.movers import solar_system_name
from pipeline.simulate.night import Night


def set_object(packet: Columns, night: Night, m: Measured, dia_object: np.ndarray) -> None:
    """Set ``diaObject`` with the statistics of all detections up to the trigger; null for known bodies."""
    absent = ~has_object(m.objects)
    packet.set("diaObject", True, absent)
    prefix = "diaObject."
    mjd = m.point_mjd[m.trigger]
    found, owner = m.is_detected, m.owner()
    n = m.rows.size
    first = np.full(n, np.inf)
    np.minimum.at(first, owner[found], m.point_mjd[found])
    for name, values in (
        ("diaObjectId", dia_object), ("validityStartMjdTai", mjd + 0.0016), ("ra", m.objects.ra),
        ("dec", m.objects.dec), ("raErr", np.full(n, 2e-5)), ("decErr", np.full(n, 2e-5)), ("ra_dec_Cov", np.zeros(n)),
        ("firstDiaSourceMjdTai", first), ("lastDiaSourceMjdTai", mjd),
        ("nDiaSources", np.bincount(owner[found], minlength=n)),
    ):  # fmt: skip
        packet.set(prefix + name, values, absent)
    band = night.visits.band[m.point_visit]
    science = m.point_flux + template_flux(night, m, owner, m.point_visit)
    for b, letter in enumerate(night.instrument.bands):
        here = np.flatnonzero(found & (band == b))
        _set_band(
            packet, f"{prefix}{letter}_", owner[here], m.point_flux[here], m.point_error[here], science[here], absent
        )


def _set_band(
    packet: Columns,
    prefix: str,
    owner: np.ndarray,
    flux: np.ndarray,
    error: np.ndarray,
    science: np.ndarray,
    absent: np.ndarray,
) -> None:
    n = absent.size
    weight = 1.0 / error**2
    count = np.bincount(owner, minlength=n)
    total = np.bincount(owner, weights=weight, minlength=n)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = np.bincount(owner, weights=weight * flux, minlength=n) / total
        scatter = np.bincount(owner, weights=(flux - mean[owner]) ** 2, minlength=n) / (count - 1)
        of_science = np.bincount(owner, weights=weight * science, minlength=n) / total
        mean_error = np.bincount(owner, weights=error, minlength=n) / count
        least, most = np.full(n, np.inf), np.full(n, -np.inf)
        np.minimum.at(least, owner, flux)
        np.maximum.at(most, owner, flux)
        one_sigma = 1.0 / np.sqrt(total)
    for name, values, needed in (
        ("psfFluxMean", mean, 1), ("psfFluxMeanErr", one_sigma, 1), ("psfFluxSigma", np.sqrt(scatter), 2),
        ("psfFluxMin", least, 1), ("psfFluxMax", most, 1), ("psfFluxErrMean", mean_error, 1),
        ("scienceFluxMean", of_science, 1), ("scienceFluxMeanErr", one_sigma, 1),
    ):  # fmt: skip
        packet.set(prefix + name, np.where(count >= needed, values, 0.0), absent | (count < needed))
    packet.set(prefix + "psfFluxNdata", count, absent)


def set_solar_system(packet: Columns, night: Night, m: Measured, alert_id: np.ndarray, heap: Heap) -> None:
    """Set ``ssSource`` and ``mpc_orbits`` of known bodies; null for everything else."""
    known = ~has_object(m.objects)
    rows = np.flatnonzero(known)
    packet.set("ssSource", True, ~known)
    packet.set("mpc_orbits", True, ~known)
    if not rows.size:
        return
    bodies, body = night.bodies["asteroid_known"], m.objects.link[rows]
    mjd = m.point_mjd[m.trigger[rows]]
    here = observer_au(mjd, night.instrument.camera)
    place, velocity = bodies["position_au"][body], bodies["velocity_au_day"][body]
    ra, dec, sun_au, distance_au = orbits.astrometric(place, velocity, mjd - bodies["epoch_mjd"][body], here)
    where, speed = orbits.propagate(place, velocity, mjd - bodies["epoch_mjd"][body])
    phase = np.arccos(
        np.clip((sun_au**2 + distance_au**2 - np.linalg.norm(here, axis=1) ** 2) / (2 * sun_au * distance_au), -1, 1)
    )
    ecl_lon, ecl_lat = ecliptic(ra, dec)
    gal_lon, gal_lat = galactic(ra, dec)
    text = heap.add([solar_system_name("asteroid_known", int(number)).encode() for number in body])
    magnitude = bodies["h_mag"][body] + orbits.phase_magnitude(sun_au, distance_au, np.linalg.norm(here, axis=1))
    columns = {
        "diaSourceId": alert_id[rows], "ssObjectId": ss_object_ids(m.objects)[rows], "designation": text,
        "eclLambda": ecl_lon, "eclBeta": ecl_lat, "galLon": gal_lon, "galLat": gal_lat,
        "phaseAngle": np.degrees(phase), "topoRange": distance_au, "helioRange": sun_au, "ephRa": ra, "ephDec": dec,
        "ephVmag": magnitude, "ephOffset": separation_arcsec(ra, dec, m.objects.ra[rows], m.objects.dec[rows]),
        **{f"helio_{axis}": where[:, k] for k, axis in enumerate("xyz")},
        **{f"helio_v{axis}": speed[:, k] for k, axis in enumerate("xyz")},
        **{f"topo_{axis}": (where - here)[:, k] for k, axis in enumerate("xyz")},
    }  # fmt: skip
    for name, values in columns.items():
        _set_rows(packet, f"ssSource.{name}", values, rows)
    orbit = {
        "id": body, "designation": text, "packed_primary_provisional_designation": text,
        "unpacked_primary_provisional_designation": text, "a": bodies["a_au"][body], "q": bodies["q_au"][body],
        "e": bodies["e"][body], "i": bodies["i_deg"][body], "node": bodies["node_deg"][body],
        "argperi": bodies["argperi_deg"][body], "mean_anomaly": bodies["mean_anomaly_deg"][body],
        "epoch_mjd": bodies["epoch_mjd"][body], "h": bodies["h_mag"][body], "g": np.full(body.size, 0.15),
        "nobs_total": 50 + body % 300,
    }  # fmt: skip
    for name, values in orbit.items():
        _set_rows(packet, f"mpc_orbits.{name}", values, rows)


def _set_rows(packet: Columns, name: str, values: np.ndarray, rows: np.ndarray) -> None:
    """Set a column at ``rows`` only; null elsewhere."""
    whole = np.zeros(packet.rows, np.asarray(values).dtype)
    whole[rows] = values
    null = np.ones(packet.rows, bool)
    null[rows] = False
    packet.set(name, whole, null)
