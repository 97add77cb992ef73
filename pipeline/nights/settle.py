"""Settle a night: which parts it has, which packets of one alert id stay, and whether all sums balance."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline import paths
from pipeline.errors import InputError, PartError
from pipeline.execute import Executor
from pipeline.nights import conflicts
from pipeline.nights.run import Run, only_results, remembered, source_key
from pipeline.nights.staging import cutouts_schema, raw_schema
from pipeline.schema import key_of
from pipeline.stages.accept import CONFLICTING
from pipeline.stages.settle import Claim, Earlier, Loser, Verdict, decide, repeated_ids
from pipeline.store import Root, read_ledger, read_ledgers, read_table, write_part
from pipeline.store.ledger import add_counts, check_balance
from pipeline.store.parts import pruning
from pipeline.surveys import get as get_survey
from pipeline.tables import ALERTS, PROVENANCE

DECODED = ("raw", "cutouts", "alerts", "provenance")


@dataclass
class NightPlan:
    """What a night will be after the commit.

    Attributes
    ----------
    parts : list of dict
        As in the ledger; ``path`` of a file points into staging until the commit moves it.
    sources : dict of str to dict
        The ledger's source entries by name.
    rejects : list of dict
        Files of the night's rejects, as in the ledger: each of one source, those of conflicts each of one part.
    replaced : list of str
        Sources that this run has read.
    notes : Counter
        What is told of the night and of no source.
    before : dict or None
        The ledger that stands now.
    work : dict of str to Counter
        Of each column group the number of parts in which it was ``computed``, ``copied`` from an earlier part, or
        ``kept`` with the whole part.
    """

    night: int
    before: dict[str, Any] | None
    parts: list[dict[str, Any]] = field(default_factory=list)
    sources: dict[str, dict[str, Any]] = field(default_factory=dict)
    rejects: list[dict[str, Any]] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)
    notes: Counter[str] = field(default_factory=Counter)
    work: dict[str, Counter[str]] = field(default_factory=dict)

    @property
    def counts(self) -> dict[str, int]:
        """The night's seven counts: the sum of its sources'."""
        return add_counts(entry["counts"] for entry in self.sources.values())


def touched_nights(run: Run, receipts: Sequence[Mapping[str, Any]]) -> set[int]:
    """Return the nights that a run may change: those its packets are of, and those its sources were in before."""
    nights = {int(night) for receipt in receipts for night in receipt["nights"]}
    if run.night is not None:
        return nights | {run.night}
    own = {source.name for source in run.sources}
    former = read_ledgers(run.root, run.survey)
    return nights | {night for night, ledger in former.items() if own & {one["name"] for one in ledger["sources"]}}


def plan_nights(run: Run, receipts: Sequence[Mapping[str, Any]], digests: Mapping[str, str]) -> dict[int, NightPlan]:
    """Gather the receipts of all segments into one plan a night.

    Parameters
    ----------
    run : Run
        The run; it holds the leases of all nights that :func:`touched_nights` tells.
    receipts : sequence of dict
        Of :func:`pipeline.nights.decode.decode_segment`.
    digests : mapping
        sha256 of each source by name.

    Raises
    ------
    PartError
        A source has more undecodable packets than allowed.
    """
    check_rejects(run, receipts)
    _check_named_night(run, receipts)
    nights = sorted(run.leases)
    plans = {night: _plan_night(run, night, receipts, digests) for night in nights}
    homes = {name: [night for night, plan in plans.items() if name in plan.replaced] for name in digests}
    for plan in plans.values():
        for name in plan.replaced:
            plan.sources[name]["nights"] = homes[name]
    return plans


def check_rejects(run: Run, receipts: Sequence[Mapping[str, Any]]) -> None:
    """Apply the reject ceiling to each source: an error from 100 packets up, below that a word of warning."""
    for source in run.sources:
        own = [receipt for receipt in receipts if receipt["source"] == source.name]
        packets, bad = sum(r["packets"] for r in own), sum(r["undecodable"] for r in own)
        if not bad:
            continue
        told = f"{bad} of {packets} packets cannot be decoded"
        if packets >= 100 and bad > run.config.max_rejects * packets:
            raise PartError(
                f"{told}, more than the {run.config.max_rejects:.1%} allowed",
                source=source.name,
                mend="look at the dump; raise --max-rejects to accept it",
            )
        run.observer.note(f"{source.name}: {told}; they are kept in rejects")


def _check_named_night(run: Run, receipts: Sequence[Mapping[str, Any]]) -> None:
    """Refuse a night that the input does not hold: most likely the wrong one was named."""
    if run.night is None:
        return
    here = add_counts(r["nights"][str(run.night)]["counts"] for r in receipts if str(run.night) in r["nights"])
    if here["other_night"] and not here["written"] + here["cut"]:
        held: Counter[str] = sum((Counter(r["other_nights"]) for r in receipts), Counter())
        told = ", ".join(f"{night} ({count:,} packets)" for night, count in sorted(held.items())[:5])
        more = f" and {len(held) - 5} nights more" if len(held) > 5 else ""
        raise InputError(
            f"no packet of the input is of night {run.night}; it holds {told}{more}",
            mend="name another night, or leave NIGHT out",
        )


def _plan_night(run: Run, night: int, receipts: Sequence[Mapping[str, Any]], digests: Mapping[str, str]) -> NightPlan:
    before = read_ledger(run.root, run.survey, night)
    plan = NightPlan(night, before)
    own = {source.name for source in run.sources}
    if before is not None:
        before = copy.deepcopy(before)
        plan.parts = [part for part in before["parts"] if part["source"] not in own]
        plan.sources = {entry["name"]: entry for entry in before["sources"] if entry["name"] not in own}
        plan.rejects = [file for file in before["night_files"]["rejects"] if file["source"] not in own]
    for source in run.sources:
        mine = [r for r in receipts if r["source"] == source.name]
        here = [r["nights"][str(night)] for r in mine if str(night) in r["nights"]]
        if not here and run.night != night:
            continue  # what it held of this night before, if anything, goes
        plan.replaced.append(source.name)
        plan.parts += [part for r in mine for part in r["parts"] if part["night"] == night]
        plan.rejects += [file for entry in here for file in entry["rejects"]]
        plan.sources[source.name] = {
            "number": paths.source_number(source.name),
            "name": source.name,
            "size": source.size,
            "mtime_ns": source.mtime_ns,
            "state": source.state,
            "sha256": digests[source.name],
            "origin": source.origin,
            "skipped": sorted({name for r in mine for name in r["skipped"]}),
            "decode_key": source_key(run),
            "counts": add_counts(entry["counts"] for entry in here),
            "reasons": dict(sorted(sum((Counter(entry["reasons"]) for entry in here), Counter()).items())),
            "notes": dict(sorted(sum((Counter(entry["notes"]) for entry in here), Counter()).items())),
        }
    if len({entry["number"] for entry in plan.sources.values()}) < len(plan.sources):
        raise InputError(
            f"two of the sources {', '.join(sorted(plan.sources))} have one number", mend="rename one of them"
        )
    plan.parts.sort(key=lambda part: part["name"])
    return plan


# --------------------------------------------------------------------------------------- duplicates
@dataclass(frozen=True)
class RewriteJob:
    """Write a part again without the rows that give way."""

    root: Root
    staging: str
    survey: str
    part: dict[str, Any]
    losers: tuple[Loser, ...]
    schemas: dict[str, str]


def settle_night(run: Run, plan: NightPlan, executor: Executor, schemas: Mapping[str, str]) -> None:
    """Decide the duplicates of one night and have the touched parts rewritten; the plan is brought up to date."""
    ids = [read_table(run.root.path(part["files"]["provenance"]["path"]), ["alert_id"]) for part in plan.parts]
    arrays = [table.column("alert_id").to_numpy() for table in ids]
    earlier = conflicts.earlier(run.root, plan.rejects, {name: one["origin"] for name, one in plan.sources.items()})
    _check_withdrawn(run, plan, arrays)
    _check_changed(run, plan, earlier)
    repeated = repeated_ids(arrays)
    if len(repeated):
        claims = [
            claim
            for part, array in zip(plan.parts, arrays, strict=True)
            if np.isin(array, repeated).any()
            for claim in _claims(run, part, array, repeated, plan.sources[part["source"]]["origin"])
        ]
        verdict = decide(claims, earlier)
        _rewrite(run, plan, executor, verdict.losers, schemas)
        plan.rejects = conflicts.merged(run.root, run.staging, plan.night, plan.rejects, verdict.resting)
        _count(plan, verdict)
    plan.rejects.sort(key=lambda file: str(file["path"].rsplit("/", 1)[1]))
    for name, entry in plan.sources.items():
        check_balance(entry["counts"], what=f"{run.survey} {paths.night_name(plan.night)}, source {name}")


def _claims(run: Run, part: Mapping[str, Any], ids: np.ndarray, repeated: np.ndarray, origin: str) -> list[Claim]:
    survey = get_survey(run.survey)
    rows = np.flatnonzero(np.isin(ids, repeated))
    table = read_table(run.root.path(part["files"]["provenance"]["path"])).take(pa.array(rows))
    versions = read_table(run.root.path(part["files"]["raw"]["path"]), ["schema_version"]).column(0)
    return [
        Claim(
            record["alert_id"],
            part["name"],
            int(row),
            origin == "native",
            survey.version_rank(versions[int(row)].as_py()),
            record["processed_mjd"],
            record["body_sha256"],
            part["source"],
        )
        for row, record in zip(rows.tolist(), table.to_pylist(), strict=True)
    ]


def _rewrite(
    run: Run, plan: NightPlan, executor: Executor, losers: Sequence[Loser], schemas: Mapping[str, str]
) -> None:
    by_part: dict[str, list[Loser]] = {}
    for loser in losers:
        by_part.setdefault(loser.claim.part, []).append(loser)
    touched = [part for part in plan.parts if part["name"] in by_part]
    jobs = [
        RewriteJob(run.root, run.staging, run.survey, part, tuple(by_part[part["name"]]), dict(schemas))
        for part in touched
    ]
    results = run.run_tasks(executor, f"settle {plan.night}", rewrite_part, jobs, [part["name"] for part in touched])
    settled = {result["name"]: result for result in only_results(results, stage="settle")}
    plan.rejects += [result["rejects"] for result in settled.values() if result["rejects"]]
    parts = [settled[part["name"]]["part"] if part["name"] in settled else part for part in plan.parts]
    plan.parts = [part for part in parts if part is not None]


def _count(plan: NightPlan, verdict: Verdict) -> None:
    for loser in verdict.losers:
        kind = "conflicting" if loser.is_conflict else "duplicates"
        _recount(plan, loser.claim.source, "written", None, kind, CONFLICTING if loser.is_conflict else loser.reason)
    for item, _, reason in verdict.resting:
        if reason is not None:
            _recount(plan, item.source, "conflicting", CONFLICTING, "duplicates", reason)


def _recount(plan: NightPlan, source: str, one: str, old_reason: str | None, other: str, new_reason: str) -> None:
    """Count one packet of a source under another head."""
    entry = plan.sources[source]
    entry["counts"][one] -= 1
    entry["counts"][other] += 1
    reasons = Counter(entry["reasons"])
    reasons[new_reason] += 1
    reasons[old_reason or new_reason] -= old_reason is not None
    entry["reasons"] = dict(sorted((+reasons).items()))


def _check_withdrawn(run: Run, plan: NightPlan, arrays: Sequence[np.ndarray]) -> None:
    """Refuse a dump that lacks alerts which it held before: another dump of one name, or a damaged one.

    With ``--force`` they are withdrawn, and counted; but not where copies in other sources had given way to them.
    """
    own = {source.name for source in run.sources}
    gone = [part for part in (plan.before or {"parts": []})["parts"] if part["source"] in own]
    if not gone:
        return
    old = [read_table(run.root.path(part["files"]["provenance"]["path"]), ["alert_id"]) for part in gone]
    former = np.concatenate([table.column("alert_id").to_numpy() for table in old])
    missing = np.setdiff1d(former, np.concatenate([np.empty(0, np.int64), *arrays]))
    if not len(missing):
        return
    names = ", ".join(sorted({part["source"] for part in gone}))
    told = f"{len(missing):,} of the {len(former):,} alerts that {names} held in night {plan.night} are not in it now"
    rested = [
        name
        for name, entry in plan.sources.items()
        if name not in own and entry["counts"]["duplicates"] + entry["counts"]["conflicting"]
    ]
    if rested:
        raise InputError(
            f"{told}, and copies in {', '.join(sorted(rested))} had given way to such",
            mend="give those sources too (--input, once each), so that the copies can take their place",
        )
    refused = [
        read_table(run.root.path(file["path"]), ["alert_id"]).column(0).drop_null().to_numpy()
        for file in plan.rejects
        if file["source"] in own
    ]
    if not len(np.setdiff1d(missing, np.concatenate([np.empty(0, np.int64), *refused]))):
        return  # all of them stand in rejects now, with a reason each
    if not run.force:
        raise InputError(told, mend="rename the dump if it is another one; --force withdraws the alerts")
    plan.notes["withdrawn"] += len(missing)
    run.observer.note(f"{told}: withdrawn")


def _check_changed(run: Run, plan: NightPlan, earlier: Sequence[Earlier]) -> None:
    """Refuse changed packets where packets of other sources gave way to the former ones: who stays is open again."""
    own = {source.name for source in run.sources}
    gone = [part for part in (plan.before or {"parts": []})["parts"] if part["source"] in own]
    others = {name: entry for name, entry in plan.sources.items() if name not in own}
    origins = {plan.sources[name]["origin"] for name in plan.replaced}
    copied = sorted(
        name for name, entry in others.items() if entry["counts"]["duplicates"] and entry["origin"] in origins
    )
    if not gone or not (copied or earlier):
        return
    changed = _bodies(run, gone) - _bodies(run, [part for part in plan.parts if part["source"] in own])
    disputed = {item.alert_id for item in earlier}
    open_again = changed if copied else {pair for pair in changed if pair[0] in disputed}
    if open_again:
        names = sorted({*copied, *(item.source for item in earlier)})
        raise InputError(
            f"{len(open_again):,} packets of {', '.join(sorted({part['source'] for part in gone}))} are others than "
            f"before, and packets in {', '.join(names)} had given way to such",
            mend="give those sources too (--input, once each), so that all can be compared",
        )


def _bodies(run: Run, parts: Sequence[Mapping[str, Any]]) -> set[tuple[int, bytes]]:
    """Return (alert id, digest of the body) of every row."""
    found: set[tuple[int, bytes]] = set()
    for part in parts:
        table = read_table(run.root.path(part["files"]["provenance"]["path"]), ["alert_id", "body_sha256"])
        found.update(zip(table.column("alert_id").to_pylist(), table.column("body_sha256").to_pylist(), strict=True))
    return found


def rewrite_part(job: RewriteJob) -> dict[str, Any]:
    """Write a part again without the rows that give way, and the conflicting ones to a reject file."""
    key = key_of(job.part["files"]["raw"]["sha256"], sorted((x.claim.row, x.is_conflict) for x in job.losers))
    receipt = f"{job.staging}/settled/{job.part['name']}-{key}.json"
    return remembered(job.root, receipt, lambda: _rewrite_part(job))


def _rewrite_part(job: RewriteJob) -> dict[str, Any]:
    survey = get_survey(job.survey)
    keep = np.ones(job.part["rows"], dtype=bool)
    keep[[loser.claim.row for loser in job.losers]] = False
    schemas = dict(zip(DECODED, (raw_schema(survey), cutouts_schema(survey), ALERTS, PROVENANCE), strict=True))
    place = f"{job.staging}/settled/{paths.night_name(job.part['night'])}"
    files: dict[str, Any] = {}
    tables = {dataset: read_table(job.root.path(job.part["files"][dataset]["path"])) for dataset in DECODED}
    rejects = conflicts.write(job.root, place, job.part, job.losers, tables, job.schemas)
    staged = [rejects["path"]] if rejects else []
    if not keep.any():
        return {"name": job.part["name"], "part": None, "rejects": rejects, "staged": staged}
    for dataset, table in tables.items():
        tables[dataset] = table.filter(pa.array(keep))
        name = f"{job.part['name']}.{{content}}.parquet"
        folder = job.root.path(f"{place}/{dataset}")
        receipt = write_part(tables[dataset], schemas[dataset], folder, name, dataset=dataset).as_dict()
        files[dataset] = {**receipt, "path": f"{place}/{dataset}/{receipt['path']}"}
    part = {**job.part, "rows": int(keep.sum()), **pruning(tables["alerts"]), "files": files}
    staged += [file["path"] for file in files.values()]
    return {"name": job.part["name"], "part": part, "rejects": rejects, "staged": staged}
