"""ZTF alert packets of a planned night, as the survey ships them.

Names, sentinels (-999, ``"null"``, -99999) and habits are the survey's: ``prv_candidates`` ascend in time and hold
upper limits where nothing was detected, ``fp_hists`` descend, neither holds the triggering exposure.
"""

from __future__ import annotations

import numpy as np

from pipeline.simulate.encode import Columns, Encoder, Heap
from pipeline.simulate.measure import History, Measured, image_scene, point_key
from pipeline.simulate.night import Night
from pipeline.simulate.packets import digits, text_columns
from pipeline.simulate.stamps import draw_stamps, fits_files, gzipped
from pipeline.simulate.ztf_fields import (
    alert_ids,
    first_detection,
    object_ids,
    processing_id,
    set_counts,
    set_detection,
    set_exposure,
    set_source,
    set_trigger_only,
    zero_points,
)

WINDOW_DAYS = 30.0
_FP_DAMAGED = 0.02


def names(night: Night, m: Measured) -> tuple[np.ndarray, list[str]]:
    """Return ``candid`` (n,) and ``objectId`` of the alerts of ``m``."""
    text = object_ids(night, night.alert_object[m.rows], first_detection(night, m)[2])
    return alert_ids(night, m.rows), [row.tobytes().decode() for row in text]


def encode_alerts(
    night: Night, m: Measured, encoder: Encoder, version: str, with_cutouts: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Encode the alerts of ``m``, a slice of the plan.

    Returns
    -------
    bodies, offsets : numpy.ndarray
        As :meth:`pipeline.simulate.encode.Encoder.encode` gives them.
    """
    heap, rows = Heap(), m.rows
    history = m.history_of(WINDOW_DAYS)
    packet = encoder.columns("", rows.size)
    candid = alert_ids(night, rows)
    packet.set("schemavsn", np.broadcast_to(heap.add([version.encode()]), rows.size))
    packet.set("publisher", np.broadcast_to(heap.add([b"alertmill simulator"]), rows.size))
    packet.set("candid", candid)
    packet.set("candidate", True)
    first_jd = set_counts(packet, night, m)
    packet.set("objectId", heap.add_matrix(object_ids(night, night.alert_object[rows], first_jd)))
    own = np.arange(rows.size)
    set_exposure(packet, "candidate.", night, m, own, m.trigger, heap, archive=False)
    set_detection(packet, "candidate.", night, m, own, m.trigger, candid, heap)
    set_trigger_only(packet, night, m, candid, heap)
    lists = {"prv_candidates": (_previous(night, encoder, m, history, heap), history.offsets)}
    if "fp_hists" in encoder.domains:
        lists["fp_hists"] = (_forced(night, encoder, m, history, heap), history.offsets)
    if with_cutouts:
        _set_cutouts(packet, night, m, candid, heap)
    return encoder.encode(packet, lists, heap)


def _previous(night: Night, encoder: Encoder, m: Measured, history: History, heap: Heap) -> Columns:
    """Return the records of ``prv_candidates``: detections, and upper limits elsewhere."""
    out = encoder.columns("prv_candidates", history.point.size)
    pid = set_exposure(out, "", night, m, history.owner, history.point, heap, archive=True)
    visit = m.point_visit[history.point]
    key = point_key(m.objects, history.owner, visit)
    number = night.draws.integers("tblid", key, 1, 120)
    number = night.numbers_of(night.alert_object[m.rows][history.owner], visit, number)
    candid = pid * 1_000_000 + 10_000 + number
    undetected = ~m.is_detected[history.point]
    set_detection(out, "", night, m, history.owner, history.point, candid, heap, undetected)
    return out


def _forced(night: Night, encoder: Encoder, m: Measured, history: History, heap: Heap) -> Columns:
    """Return the records of ``fp_hists``, newest first; some are damaged and hold sentinels."""
    newest = history.offsets[history.owner] + history.offsets[history.owner + 1] - 1 - np.arange(history.point.size)
    owner, point = history.owner, history.point[newest]
    out = encoder.columns("fp_hists", point.size)
    set_exposure(out, "", night, m, owner, point, heap, archive=True)
    visit = m.point_visit[point]
    key = point_key(m.objects, owner, visit)
    zero_point = zero_points(night, visit, m.detector[owner])
    to_dn = 10.0 ** (-0.4 * (31.4 - zero_point))
    damaged = night.draws.uniform("damaged", key) < _FP_DAMAGED
    out.set("forcediffimflux", np.where(damaged, -99999.0, m.point_forced[point] * to_dn))
    out.set("forcediffimfluxunc", np.where(damaged, -99999.0, m.point_error[point] * to_dn))
    codes = heap.add([b"0", b"61"])
    out.set("procstatus", codes[damaged.astype(np.int64)])
    out.set("sciinpseeing", night.visits.seeing_arcsec[visit])
    out.set("scibckgnd", 130.0 + 20.0 * night.draws.normal("background", key))
    out.set("scisigpix", 6.0 + night.draws.normal("pixel scatter", key, 0.0, 0.4))
    out.set("adpctdif1", np.abs(night.draws.normal("adpctdif1", key, 0.0, 0.1)))
    out.set("adpctdif2", np.abs(night.draws.normal("adpctdif2", key, 0.0, 0.08)))
    set_source(out, "", night, m, owner, visit, np.zeros(owner.size), np.zeros(owner.size))
    return out


def _set_cutouts(packet: Columns, night: Night, m: Measured, candid: np.ndarray, heap: Heap) -> None:
    """Set the three gzipped FITS cutouts and their names."""
    zero_point = zero_points(night, m.visit, m.detector)
    scene = image_scene(night, m, night.visits.limit_mag[m.visit] + m.objects.limit_shift, zero_point)
    images = draw_stamps(night.draws.seed, candid, night.instrument.stamp_px, **scene)
    pid = processing_id(night.visits.jd[m.visit], m.detector)
    names = (b"_targ_sci.fits.gz", b"_ref.fits.gz", b"_targ_refmsci.fits.gz")
    for k, (field, end) in enumerate(zip(("Science", "Template", "Difference"), names, strict=True)):
        middle: tuple[bytes | np.ndarray, ...] = () if field == "Template" else (b"_pid", digits(pid, 13))
        packet.set(f"cutout{field}", True)
        text = text_columns(candid.size, b"candid", digits(candid, 19), *middle, end)
        packet.set(f"cutout{field}.fileName", heap.add_matrix(text))
        packet.set(f"cutout{field}.stampData", heap.add(gzipped(fits_files(images[:, k], "DN"))))
