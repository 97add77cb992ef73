"""Rubin alert packets of a planned night, as the survey ships them.

A packet has the detections of the months before (``prvDiaSources``), forced photometry at every visit with the
trigger's own (``prvDiaForcedSources``), and either a ``diaObject`` or, for known bodies, ``ssSource`` and
``mpc_orbits``. Ids are packed from visit, detector and a number, and exceed 2^53.
"""

from __future__ import annotations

import numpy as np

from pipeline.simulate.encode import Columns, Encoder, Heap
from pipeline.simulate.lsst_objects import set_object, set_solar_system
from pipeline.simulate.lsst_sources import (
    alert_ids,
    has_object,
    object_ids,
    set_forced,
    set_source,
    source_ids,
    ss_object_ids,
    visit_numbers,
)
from pipeline.simulate.measure import History, Measured, image_scene, point_key
from pipeline.simulate.night import Night
from pipeline.simulate.stamps import draw_stamps, fits_files

WINDOW_DAYS = 365.0


def names(night: Night, m: Measured) -> tuple[np.ndarray, list[str]]:
    """Return ``diaSourceId`` (n,) and the object's id as text of the alerts of ``m``."""
    ids = np.where(has_object(m.objects), object_ids(night, night.alert_object[m.rows]), ss_object_ids(m.objects))
    return alert_ids(night, m.rows), ids.astype(str).tolist()


def encode_alerts(
    night: Night, m: Measured, encoder: Encoder, version: str, with_cutouts: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Encode the alerts of ``m``, a slice of the plan; the version is the schema's, packets do not repeat it.

    Returns
    -------
    bodies, offsets : numpy.ndarray
        As :meth:`pipeline.simulate.encode.Encoder.encode` gives them.
    """
    heap, rows = Heap(), m.rows
    history = m.history_of(WINDOW_DAYS)
    packet = encoder.columns("", rows.size)
    alert_id = alert_ids(night, rows)
    own = np.arange(rows.size)
    packet.set("diaSourceId", alert_id)
    reason = heap.add([b"wfd"])
    packet.set("observation_reason", np.broadcast_to(reason, rows.size))
    packet.set("target_name", np.broadcast_to(reason, rows.size))
    packet.set("diaSource", True)
    numbers = visit_numbers(night)
    dia_object = np.where(has_object(m.objects), object_ids(night, night.alert_object[rows]), 0)
    set_source(packet, "diaSource.", night, m, own, m.trigger, alert_id, dia_object, numbers, heap)
    seen = _kept(history, m.is_detected[history.point], rows.size)
    forced = _with_trigger(m, _kept(history, has_object(m.objects)[history.owner], rows.size))
    lists = {
        "prvDiaSources": (_previous(night, encoder, m, seen, dia_object, numbers, heap), seen.offsets),
        "prvDiaForcedSources": (_forced(night, encoder, m, forced, dia_object, numbers, heap), forced.offsets),
    }
    for name in lists:
        packet.set(name, True, ~has_object(m.objects) if name.endswith("ForcedSources") else np.diff(seen.offsets) == 0)
    set_object(packet, night, m, dia_object)
    set_solar_system(packet, night, m, alert_id, heap)
    if with_cutouts:
        _set_cutouts(packet, night, m, alert_id, heap)
    return encoder.encode(packet, lists, heap)


def _kept(history: History, kept: np.ndarray, rows: int) -> History:
    """Return the points of ``history`` that are ``kept`` (bool, (points,))."""
    owner = history.owner[kept]
    return History(history.point[kept], owner, np.r_[0, np.cumsum(np.bincount(owner, minlength=rows))])


def _with_trigger(m: Measured, history: History) -> History:
    """Return ``history`` with each alert's own point as its last."""
    stands = np.flatnonzero(has_object(m.objects))
    owner, point = np.r_[history.owner, stands], np.r_[history.point, m.trigger[stands]]
    order = np.argsort(point, kind="stable")  # points of one alert are consecutive and ascend in time
    owner = owner[order]
    return History(point[order], owner, np.r_[0, np.cumsum(np.bincount(owner, minlength=m.rows.size))])


def _previous(
    night: Night,
    encoder: Encoder,
    m: Measured,
    history: History,
    dia_object: np.ndarray,
    numbers: np.ndarray,
    heap: Heap,
) -> Columns:
    out = encoder.columns("prvDiaSources", history.point.size)
    visit = m.point_visit[history.point]
    key = point_key(m.objects, history.owner, visit)
    number = night.draws.integers("source number", key, 1, 60_000)
    number = night.numbers_of(night.alert_object[m.rows][history.owner], visit, number)
    ids = source_ids(numbers[visit], m.detector[history.owner], number)
    set_source(out, "", night, m, history.owner, history.point, ids, dia_object[history.owner], numbers, heap)
    return out


def _forced(
    night: Night,
    encoder: Encoder,
    m: Measured,
    history: History,
    dia_object: np.ndarray,
    numbers: np.ndarray,
    heap: Heap,
) -> Columns:
    out = encoder.columns("prvDiaForcedSources", history.point.size)
    set_forced(out, night, m, history, dia_object, numbers, heap)
    return out


def _set_cutouts(packet: Columns, night: Night, m: Measured, alert_id: np.ndarray, heap: Heap) -> None:
    """Set the three FITS cutouts, in nJy."""
    zero_point = np.full(m.visit.size, 31.4)
    scene = image_scene(night, m, night.visits.limit_mag[m.visit] + m.objects.limit_shift, zero_point)
    images = draw_stamps(night.draws.seed, alert_id, night.instrument.stamp_px, **scene)
    for k, name in enumerate(("Science", "Template", "Difference")):
        packet.set(f"cutout{name}", heap.add_matrix(fits_files(images[:, k], "nJy")))
