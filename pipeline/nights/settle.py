"""Settle a night: which parts it has, which packets of one alert id stay, and whether all sums balance."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import fastavro
import numpy as np
import pyarrow as pa

from pipeline import paths
from pipeline.errors import InputError, PartError, SchemaError
from pipeline.execute import Executor
from pipeline.nights.decode import cutouts_schema, raw_schema
from pipeline.nights.run import Run, only_results, remembered, source_key
from pipeline.schema import conform, key_of
from pipeline.stages.accept import CONFLICTING
from pipeline.stages.settle import Claim, Loser, decide, repeated_ids
from pipeline.store import Root, read_ledger, read_ledgers, read_table, write_part
from pipeline.store.ledger import add_counts, check_balance, zero_counts
from pipeline.store.parts import pruning, sha256_of
from pipeline.surveys import get as get_survey
from pipeline.surveys.base import Survey
from pipeline.surveys.superset import to_version
from pipeline.tables import ALERTS, PROVENANCE, REJECTS

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
    rejects : list of str
        Files (staged or committed) whose rows are the night's rejects; of committed ones only those of other sources.
    before : dict or None
        The ledger that stands now.
    """

    night: int
    before: dict[str, Any] | None
    parts: list[dict[str, Any]] = field(default_factory=list)
    sources: dict[str, dict[str, Any]] = field(default_factory=dict)
    rejects: list[str] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)

    @property
    def counts(self) -> dict[str, int]:
        """The night's seven counts: the sum of its sources'."""
        return add_counts(entry["counts"] for entry in self.sources.values())


def plan_nights(run: Run, receipts: Sequence[Mapping[str, Any]], digests: Mapping[str, str]) -> dict[int, NightPlan]:
    """Gather the receipts of all segments into one plan a night.

    Parameters
    ----------
    run : Run
        The run.
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
    nights = {int(night) for receipt in receipts for night in receipt["nights"]}
    own = {source.name for source in run.sources}
    if run.night is not None:
        nights.add(run.night)
    else:  # a dump that came before may have held nights that it no longer holds
        former = read_ledgers(run.root, run.survey)
        nights |= {night for night, ledger in former.items() if own & {entry["name"] for entry in ledger["sources"]}}
    plans = {night: _plan_night(run, night, receipts, digests) for night in sorted(nights)}
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
        plan.parts = [part for part in before["parts"] if part["source"] not in own]
        plan.sources = {
            entry["name"]: json.loads(json.dumps(entry)) for entry in before["sources"] if entry["name"] not in own
        }
        plan.rejects = [file["path"] for file in before["night_files"].get("rejects", [])]
    for source in run.sources:
        mine = [r for r in receipts if r["source"] == source.name]
        here = [r["nights"][str(night)] for r in mine if str(night) in r["nights"]]
        if not here and run.night != night:
            continue  # what it held of this night before, if anything, goes
        plan.replaced.append(source.name)
        plan.parts += [part for r in mine for part in r["parts"] if part["night"] == night]
        plan.rejects += [entry["rejects"] for entry in here if entry["rejects"]]
        for r in mine:
            plan.notes.update(r["notes"] if str(night) in r["nights"] else {})
        plan.sources[source.name] = {
            "number": paths.source_number(source.name),
            "name": source.name,
            "size": source.size,
            "mtime_ns": source.mtime_ns,
            "sha256": digests[source.name],
            "origin": source.origin,
            "skipped": sorted({name for r in mine for name in r["skipped"]}),
            "decode_key": source_key(run),
            "counts": add_counts(entry["counts"] for entry in here),
            "reasons": dict(sorted(sum((Counter(entry["reasons"]) for entry in here), Counter()).items())),
        }
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
    _check_withdrawn(run, plan, arrays)
    repeated = repeated_ids(arrays)
    if len(repeated):
        claims = [
            claim
            for part, array in zip(plan.parts, arrays, strict=True)
            if np.isin(array, repeated).any()
            for claim in _claims(run, part, array, repeated, plan.sources[part["source"]]["origin"])
        ]
        losers = decide(claims)
        _rewrite(run, plan, executor, losers, schemas)
        _count(plan, losers)
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


def _count(plan: NightPlan, losers: Sequence[Loser]) -> None:
    for loser in losers:
        entry = plan.sources[loser.claim.source]
        entry["counts"]["written"] -= 1
        entry["counts"]["conflicting" if loser.is_conflict else "duplicates"] += 1
        reason = CONFLICTING if loser.is_conflict else loser.reason
        entry["reasons"][reason] = entry["reasons"].get(reason, 0) + 1


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
    if not run.force:
        raise InputError(told, mend="rename the dump if it is another one; --force withdraws the alerts")
    plan.notes["withdrawn"] += len(missing)
    run.observer.note(f"{told}: withdrawn")


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
    place = f"{job.staging}/settled/{paths.night_name(job.part.get('night', 0))}"
    files: dict[str, Any] = {}
    tables = {dataset: read_table(job.root.path(job.part["files"][dataset]["path"])) for dataset in DECODED}
    rejects = _conflicts(job, survey, tables, place)
    if not keep.any():
        return {"name": job.part["name"], "part": None, "rejects": rejects, "staged": [rejects] if rejects else []}
    for dataset, table in tables.items():
        tables[dataset] = table.filter(pa.array(keep))
        name = f"{job.part['name']}.{{content}}.parquet"
        folder = job.root.path(f"{place}/{dataset}")
        receipt = write_part(tables[dataset], schemas[dataset], folder, name, dataset=dataset).as_dict()
        files[dataset] = {**receipt, "path": f"{place}/{dataset}/{receipt['path']}"}
    part = {**job.part, "rows": int(keep.sum()), **pruning(tables["alerts"]), "files": files}
    staged = [file["path"] for file in files.values()] + ([rejects] if rejects else [])
    return {"name": job.part["name"], "part": part, "rejects": rejects, "staged": staged}


def _conflicts(job: RewriteJob, survey: Survey, tables: Mapping[str, pa.Table], place: str) -> str | None:
    losers = [loser for loser in job.losers if loser.is_conflict]
    if not losers:
        return None
    rows = pa.array([loser.claim.row for loser in losers], pa.int64())
    provenance = tables["provenance"].take(rows)
    columns = {
        "reason": pa.array([CONFLICTING] * len(losers), pa.string()),
        "detail": pa.array([loser.reason for loser in losers], pa.string()),
        "source": pa.array([loser.claim.source for loser in losers], pa.string()),
        **{name: provenance.column(name) for name in ("member", "offset", "length", "alert_id")},
        "night": pa.array([job.part["night"]] * len(losers), pa.int32()),
        "body_sha256": provenance.column("body_sha256"),
        "body": pa.array(_bodies(job, tables, rows, provenance), pa.large_binary()),
        "writer_schema_id": provenance.column("writer_schema_id"),
    }
    table = conform(pa.table(columns), REJECTS, dataset="rejects")
    receipt = write_part(table, REJECTS, job.root.path(place), f"rejects-{job.part['name']}.parquet", dataset="rejects")
    return f"{place}/{receipt.path}"


def _bodies(
    job: RewriteJob, tables: Mapping[str, pa.Table], rows: pa.Array, provenance: pa.Table
) -> list[bytes | None]:
    """Encode rows back into the packets they came from; null where the source had no Avro body."""
    bodies: list[bytes | None] = []
    for place, record in zip(rows.to_pylist(), provenance.to_pylist(), strict=True):
        text = job.schemas.get(record["writer_schema_id"])
        if text is None:
            bodies.append(None)
            continue
        schema = json.loads(text)
        one = [tables[name].slice(place, 1) for name in ("raw", "cutouts")]
        joined = one[0]
        for name in one[1].column_names[1:]:
            joined = joined.append_column(name, one[1].column(name))
        buffer = io.BytesIO()
        try:
            fastavro.schemaless_writer(buffer, fastavro.parse_schema(schema), to_version(joined, schema)[0])
        except (SchemaError, ValueError, TypeError):
            bodies.append(None)  # re-encoded by someone else: its row does not fill the survey's schema
        else:
            bodies.append(buffer.getvalue())
    return bodies


__all__ = ["NightPlan", "plan_nights", "settle_night", "sha256_of", "zero_counts"]
