"""What a survey measures of the alerts of a night: their light curves, places and images, survey-independent."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.simulate.night import Night, curves
from pipeline.simulate.objects import Objects
from pipeline.simulate.populations import CODES

DETECTION_SNR = 5.0


@dataclass(frozen=True)
class History:
    """Points of the light curves that stand before the trigger.

    ``point`` into the curves, ``owner`` the alert's row; those of row i are ``offsets[i]:offsets[i+1]``, in order of
    time.
    """

    point: np.ndarray
    owner: np.ndarray
    offsets: np.ndarray


@dataclass(frozen=True)
class Measured:
    """Measurements of a slice of the plan.

    ``objects`` and ``visit`` have one row per alert, ``point_*`` one per point; ``trigger`` (n,) is each alert's own
    point, the last of its light curve. Fluxes in nJy.
    """

    rows: np.ndarray
    objects: Objects
    visit: np.ndarray
    offsets: np.ndarray
    trigger: np.ndarray
    point_visit: np.ndarray
    point_true: np.ndarray
    point_flux: np.ndarray
    point_error: np.ndarray
    point_forced: np.ndarray
    point_mjd: np.ndarray

    @property
    def detector(self) -> np.ndarray:
        """Detector of each alert, shape (n,)."""
        return self.objects.detector

    @property
    def is_detected(self) -> np.ndarray:
        """Which points are detections, shape (points,)."""
        found = np.abs(self.point_flux) >= DETECTION_SNR * self.point_error
        found[self.trigger] = True
        return found

    def owner(self) -> np.ndarray:
        """Return the row of each point's alert, shape (points,)."""
        return np.repeat(np.arange(self.rows.size), np.diff(self.offsets))

    def history_of(self, window_days: float) -> History:
        """Return the points up to ``window_days`` before each trigger, the trigger left out."""
        owner = self.owner()
        kept = self.point_mjd >= self.point_mjd[self.trigger][owner] - window_days
        kept[self.trigger] = False
        point = np.flatnonzero(kept)
        counts = np.bincount(owner[point], minlength=self.rows.size)
        return History(point, owner[point], np.r_[0, np.cumsum(counts)])


def measure(night: Night, rows: np.ndarray) -> Measured:
    """Measure the alerts ``rows`` (n,) of the plan."""
    objects = night.objects.take(night.alert_object[rows])
    visit = night.alert_visit[rows]
    curve = curves(objects, visit, night.visits, night.instrument, night.draws)
    return Measured(
        rows, objects, visit, curve["offsets"], curve["offsets"][1:] - 1, curve["visit"], curve["true"], curve["flux"],
        curve["error"], curve["forced"], night.visits.mjd[curve["visit"]],
    )  # fmt: skip


def point_key(objects: Objects, owner: np.ndarray, visit: np.ndarray) -> np.ndarray:
    """Return a key of (object, visit) for draws that belong to one measurement, int64 (n,)."""
    return objects.key[owner] * 65_537 + visit


def astrometry(night: Night, m: Measured, owner: np.ndarray, point: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return measured minus true positions (east, north) in arcsec, falling with signal to noise, shape (n,)."""
    key = point_key(m.objects, owner, m.point_visit[point])
    snr = np.abs(m.point_flux[point]) / m.point_error[point]
    sigma = 0.6 * night.visits.seeing_arcsec[m.point_visit[point]] / 2.355 / np.maximum(snr, 3.0) + 0.03
    # the streaks of glints stay straight, and the tracks of asteroids too
    sigma = np.where(m.objects.code[owner] == CODES["satellite_glint"], 0.05, np.minimum(sigma, 0.25))
    draws = night.draws
    return sigma * draws.normal("astrometry east", key), sigma * draws.normal("astrometry north", key)


def source_offset(objects: Objects) -> tuple[np.ndarray, np.ndarray]:
    """Return where the nearest source lies from each object (east, north) in arcsec, shape (n,)."""
    apart, angle = objects.source_sep_arcsec, objects.source_angle
    return apart * np.sin(angle), apart * np.cos(angle)


def image_scene(night: Night, m: Measured, limit_mag: np.ndarray, zero_point: np.ndarray) -> dict[str, np.ndarray]:
    """Return the arrays that :func:`pipeline.simulate.stamps.render` takes, all in DN and stamp pixels."""
    ins, o = night.instrument, m.objects
    to_dn = 10.0 ** (-0.4 * (31.4 - zero_point))
    seeing = np.maximum(night.visits.seeing_arcsec[m.visit] / 2.355 / ins.stamp_scale_arcsec, 0.8)
    band = night.visits.band[m.visit]
    east, north = source_offset(o)
    limit_dn = 10.0 ** (-0.4 * (limit_mag - zero_point))
    noise = limit_dn / 5.0 / (np.sqrt(4.0 * np.pi) * seeing)
    key = m.objects.key * 65_537 + m.visit
    draws = night.draws
    return {
        "flux": m.point_flux[m.trigger] * to_dn,
        "artefact": np.where(o.code == CODES["bogus"], o.link, -1),
        "source_flux": np.take_along_axis(o.source_njy, band[:, None], 1)[:, 0] * to_dn,
        "source_dx": -east / ins.stamp_scale_arcsec,  # north up, east left
        "source_dy": north / ins.stamp_scale_arcsec,
        "source_radius": o.source_arcsec / ins.stamp_scale_arcsec,
        "seeing_px": seeing,
        "template_px": np.maximum(0.85 * ins.seeing_arcsec / 2.355 / ins.stamp_scale_arcsec, 0.75)
        * np.ones(seeing.size),
        "noise": noise,
        "sky": noise**2 * 6.0,
        "centre_x": draws.uniform("pixel phase x", key, -0.5, 0.5),
        "centre_y": draws.uniform("pixel phase y", key, -0.5, 0.5),
    }
