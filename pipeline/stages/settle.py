"""Duplicates: of several packets with one alert id, decide which stays. Arrival order decides nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

IDENTICAL = "identical copy"
RE_ENCODED = "re-encoded copy of a native packet"


@dataclass(frozen=True)
class Claim:
    """One packet of an alert id that several packets have.

    Parameters
    ----------
    alert_id : int
        The alert.
    part : str
        Name of the part where it stands.
    row : int
        Row within it.
    is_native : bool
        As the survey shipped it; a re-encoded copy gives way to it.
    version_rank : tuple of int
        Rank of the packet's schema version.
    processed_mjd : float or None
        The survey's processing time.
    body_sha256 : bytes
        Digest of the body.
    source : str
        Source name: decides between identical copies only.
    """

    alert_id: int
    part: str
    row: int
    is_native: bool
    version_rank: tuple[int, ...]
    processed_mjd: float | None
    body_sha256: bytes
    source: str


@dataclass(frozen=True)
class Loser:
    """A packet that gives way: ``is_conflict`` if its body differs from the winner's and was not seen before."""

    claim: Claim
    winner: Claim
    is_conflict: bool
    reason: str


@dataclass(frozen=True)
class Earlier:
    """A packet that gave way as a conflict in an earlier run, from a source that this run does not read again."""

    alert_id: int
    part: str
    is_native: bool
    body_sha256: bytes
    source: str


@dataclass(frozen=True)
class Verdict:
    """What was decided.

    Attributes
    ----------
    losers : list of Loser
        Packets that give way now.
    resting : list of (Earlier, Claim, str or None)
        Earlier conflicts of the same alerts with the packet that stays; the reason where they are mere copies now.
    """

    losers: list[Loser]
    resting: list[tuple[Earlier, Claim, str | None]]


def repeated_ids(ids: Sequence[np.ndarray]) -> np.ndarray:
    """Return the sorted alert ids that occur more than once in all arrays together, int64 (k,)."""
    if not ids:
        return np.empty(0, np.int64)
    values, counts = np.unique(np.concatenate(ids), return_counts=True)
    return values[counts > 1]


def conflict_detail(kept: bytes, refused: bytes) -> str:
    """Return what ``rejects`` says of a conflict: both digests."""
    return f"kept body {kept.hex()}, this body {refused.hex()}"


def decide(claims: Sequence[Claim], earlier: Sequence[Earlier] = ()) -> Verdict:
    """Decide which packets give way, as if those that gave way in earlier runs had come together with the others.

    Of the packets of one alert id the first by this order stays: native before re-encoded, highest schema version,
    latest processing time, smallest body digest; identical copies: the first source by name, the first row in it.
    Of those that give way the first of each body is a conflict, the others are copies of it.
    """
    verdict = Verdict([], [])
    by_alert: dict[int, list[Claim]] = {}
    for claim in claims:
        by_alert.setdefault(claim.alert_id, []).append(claim)
    rested: dict[int, list[Earlier]] = {}
    for item in earlier:
        rested.setdefault(item.alert_id, []).append(item)
    for alert_id in sorted(by_alert):
        rivals = sorted(by_alert[alert_id], key=_precedence)
        _decide(rivals[0], rivals[1:], rested.get(alert_id, []), verdict)
    return verdict


def _decide(winner: Claim, rivals: Sequence[Claim], rested: Sequence[Earlier], verdict: Verdict) -> None:
    packets: list[Claim | Earlier] = [*rivals, *rested]
    first: dict[bytes, Claim | Earlier] = {}
    for packet in sorted(packets, key=lambda one: (not one.is_native, one.source, one.part)):
        first.setdefault(packet.body_sha256, packet)  # sorted() is stable: rows of one part stay in order
    for packet in packets:
        reason = None
        if packet.body_sha256 == winner.body_sha256 or first[packet.body_sha256] is not packet:
            reason = IDENTICAL
        elif winner.is_native and not packet.is_native:
            reason = RE_ENCODED
        if isinstance(packet, Earlier):
            verdict.resting.append((packet, winner, reason))
        else:
            detail = reason or conflict_detail(winner.body_sha256, packet.body_sha256)
            verdict.losers.append(Loser(packet, winner, reason is None, detail))


def _precedence(claim: Claim) -> tuple[object, ...]:
    processed = -np.inf if claim.processed_mjd is None else claim.processed_mjd
    version = tuple(-number for number in claim.version_rank)
    return (not claim.is_native, version, -processed, claim.body_sha256, claim.source, claim.part, claim.row)
