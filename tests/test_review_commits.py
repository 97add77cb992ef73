"""Commits: fences, kills between two steps, releases, what several runs give way to, and what verify makes of it."""

from __future__ import annotations

import itertools
import json
import os
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import ztf_packets as ztf
from test_nights import BASE, NIGHT, assert_whole, hashes, ids, rejects, run

from pipeline import config as configuration
from pipeline import status
from pipeline.dumps import list_sources
from pipeline.errors import InputError, LeaseError, PartError, SourceError, StoreError
from pipeline.execute import Serial
from pipeline.nights import commit as committing
from pipeline.nights import drive
from pipeline.nights.run import locked, prepare
from pipeline.store import hold, open_root, read_ledger
from pipeline.store import lease as leases
from pipeline.store.ledger import check_ledger

NEXT = 20181130


def late(place: int, **candidate: Any) -> tuple[str, bytes]:
    packet = ztf.record(BASE + place, **{"jd": ztf.NIGHT_JD + 1, "nid": 698, **candidate})
    return f"{BASE + place}.avro", ztf.packet_bytes(packet)


def early(place: int, **candidate: Any) -> tuple[str, bytes]:
    return f"{BASE + place}.avro", ztf.packet_bytes(ztf.record(BASE + place, **candidate))


def ledger_of(root: Path, night: int = NIGHT) -> dict[str, Any]:
    ledger = read_ledger(open_root(root), "ztf", night)
    assert ledger is not None
    return ledger


def made(root: Path, *inputs: Path, **options: Any) -> Any:
    settings, _ = configuration.load(
        {"root": str(root), "models": (), "report": False, "execution.mode": "serial", **options}, environment={}
    )
    return prepare(settings, [str(path) for path in inputs], night=None)


# --------------------------------------------------------------------------------------- fences
def test_a_run_whose_lock_was_taken_over_commits_nothing(tmp_path: Path) -> None:
    prepared = made(tmp_path / "d", ztf.night_tar(tmp_path / "a.tar", [BASE]))

    def call(stage: Any, *arguments: Any) -> Any:
        if stage is drive.commit:
            path = tmp_path / f"d/_leases/ztf-night={NIGHT}.json"
            path.write_text(json.dumps({**json.loads(path.read_text()), "owner": "another"}))
        return stage(*arguments)

    with locked(prepared):
        outcome = drive.run_stages(prepared, Serial(), call)
    assert isinstance(outcome.errors[NIGHT], LeaseError)
    assert not list((tmp_path / "d/ztf").rglob("night=*"))


def test_a_night_that_changed_since_it_was_settled_is_not_overwritten(tmp_path: Path) -> None:
    prepared = made(tmp_path / "d", ztf.night_tar(tmp_path / "a.tar", [BASE]))
    other = ztf.night_tar(tmp_path / "b.tar", [BASE + 1])
    mine = f"ztf-night={NIGHT}"

    def call(stage: Any, *arguments: Any) -> Any:
        if (
            stage is drive.commit
        ):  # as after a pause so long that another run took over, ended, and the lock is ours again
            path = tmp_path / f"d/_leases/{mine}.json"
            record = path.read_text()
            path.unlink()
            run(tmp_path / "d", other)
            path.parent.mkdir(exist_ok=True)
            path.write_text(record)
        return stage(*arguments)

    with locked(prepared):
        outcome = drive.run_stages(prepared, Serial(), call)
    assert "changed by another run" in str(outcome.errors[NIGHT])
    assert ids(tmp_path / "d") == [BASE + 1]
    run(tmp_path / "d", tmp_path / "a.tar")
    assert sorted(ids(tmp_path / "d")) == [BASE, BASE + 1]
    assert_whole(tmp_path / "d")


def test_a_night_that_a_dump_held_before_is_locked_too(tmp_path: Path) -> None:
    dump = ztf.write_tar(tmp_path / "a.tar", [early(0), late(9)])
    run(tmp_path / "d", dump)
    ztf.write_tar(dump, [early(0)])
    with hold(open_root(tmp_path / "d"), f"ztf-night={NEXT}"), pytest.raises(LeaseError):
        run(tmp_path / "d", dump, force=True)
    assert ids(tmp_path / "d", night=NEXT) == [BASE + 9]


def test_a_dead_lease_that_comes_to_life_again_is_not_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = open_root(tmp_path / "d", create=True)
    with hold(root, "ztf-run-x"):
        monkeypatch.setattr(leases, "_is_stale", lambda record, path: False)
        assert not leases.release_dead(root, "ztf-run-x")
        monkeypatch.undo()
        assert leases.is_held(root, "ztf-run-x")
    assert not (tmp_path / "d/_leases").exists()
    with hold(root, "ztf-run-x") as lease:
        path = tmp_path / "d/_leases/ztf-run-x.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "expires": time.time() - 1}))
        assert leases.release_dead(root, "ztf-run-x")
        with pytest.raises(LeaseError, match="taken over"):
            lease.check()


def test_many_locks_are_renewed_by_one_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    monkeypatch.setattr(leases, "RENEW_SEC", 0.05)
    root = open_root(tmp_path / "d", create=True)
    before = threading.active_count()
    with leases.hold_all(root, [f"ztf-night={night}" for night in range(20180101, 20180132)]) as held:
        assert threading.active_count() == before + 1
        expires = [json.loads(lease.path.read_text())["expires"] for lease in held]
        limit = time.monotonic() + 20
        while any(
            json.loads(lease.path.read_text())["expires"] <= old for lease, old in zip(held, expires, strict=True)
        ):
            assert time.monotonic() < limit
            time.sleep(0.02)
        with pytest.raises(LeaseError), leases.hold_all(root, ["ztf-night=20170101", "ztf-night=20180101"]):
            pass
        assert not leases.is_held(root, "ztf-night=20170101")
    assert threading.active_count() == before
    assert not (tmp_path / "d/_leases").exists()


# --------------------------------------------------------------------------------------- kills
class Killed(BaseException):
    pass


@pytest.mark.parametrize("step", ["sweep_night", "write_ledger", "move", "close"])
def test_a_run_killed_at_any_step_of_the_commit_leaves_nothing_after_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    dump = ztf.night_tar(tmp_path / "a.tar", [BASE + i for i in range(4)])
    run(tmp_path / "whole", dump)
    run(tmp_path / "d", ztf.night_tar(dump, [BASE]))
    ztf.night_tar(dump, [BASE + i for i in range(4)])
    prepared = made(tmp_path / "d", dump)
    whole = committing.Root.move

    def killed(*arguments: Any) -> None:
        if step == "move":
            (root, moves), some = arguments, 3
            whole(root, dict(list(moves.items())[:some]))
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        if step == "move":
            patch.setattr(committing.Root, "move", killed)
        elif step == "close":
            patch.setattr(prepared, "close", killed)
        else:
            patch.setattr(committing, step, killed)
        drive.run_direct(prepared)
    for path in (tmp_path / "d/ztf").rglob("*.parquet"):
        pq.read_table(path)
    if step in ("write_ledger", "move"):
        assert ids(tmp_path / "d") == [BASE]
    again = run(tmp_path / "d", dump)
    assert again.is_up_to_date == (step in ("sweep_night", "close"))
    assert hashes(tmp_path / "d") == hashes(tmp_path / "whole")
    assert_whole(tmp_path / "d")


def test_small_files_that_a_killed_run_was_writing_are_swept(tmp_path: Path) -> None:
    dump = ztf.night_tar(tmp_path / "a.tar", [BASE])
    run(tmp_path / "d", dump)
    root = open_root(tmp_path / "d")
    from pipeline.store.root import temporary_name

    mark = str(os.getpid())
    places = [f"ztf/ledger/night={NIGHT}.json", "root.json", "_leases/x.json", "ztf/science/main/_schema.arrow"]
    for relative in places:
        own = temporary_name(root.path(relative))
        own.parent.mkdir(exist_ok=True)
        own.write_text("of a run that lives")
        own.with_name(own.name.replace(f"-{mark}-", "-999999999-")).write_text("of a run that died")
    dead = root.dead_temporaries()
    assert len(dead) == len(places)
    assert {finding.path for finding in status.verify(root.folder)[1]} == set(dead)
    run(tmp_path / "d", dump, force=True)
    assert root.dead_temporaries() == []
    assert len(list((tmp_path / "d").rglob(".*.tmp"))) == len(places)


# --------------------------------------------------------------------------------------- verify
def test_verify_names_strays_of_nights_without_a_ledger_and_damaged_ledgers(tmp_path: Path) -> None:
    run(tmp_path / "d", ztf.write_tar(tmp_path / "a.tar", [early(0), late(9)]))
    (tmp_path / f"d/ztf/ledger/night={NEXT}.json").unlink()
    (tmp_path / f"d/ztf/ledger/night={NIGHT}.json").write_text("{}")
    _, findings = status.verify(str(tmp_path / "d"))
    assert {(finding.kind, finding.night) for finding in findings} == {("damaged", str(NIGHT)), ("stray", str(NEXT))}
    lines = status.repair(str(tmp_path / "d"), findings)
    assert any("restore it from a backup" in line for line in lines)
    assert not list((tmp_path / "d/ztf").rglob(f"night={NEXT}"))
    assert list((tmp_path / "d/ztf").rglob(f"night={NIGHT}"))
    with pytest.raises(StoreError, match="is no ledger") as caught:
        run(tmp_path / "d", tmp_path / "a.tar", force=True)
    assert len(str(caught.value).splitlines()) == 1


def test_repair_takes_nothing_from_a_run_at_work(tmp_path: Path) -> None:
    run(tmp_path / "d", ztf.night_tar(tmp_path / "a.tar", [BASE]))
    root = open_root(tmp_path / "d")
    stray = tmp_path / f"d/ztf/raw/night={NIGHT}/part-new.parquet"
    stray.write_bytes(b"moved, not listed yet")
    _, findings = status.verify(root.folder)
    with hold(root, f"ztf-night={NIGHT}"):
        assert status.verify(root.folder)[1] == []
        (line,) = status.repair(root.folder, findings)
        assert "a run holds it" in line
        assert stray.exists()
    assert [line.split()[0] for line in status.repair(root.folder, findings)] == ["removed"]
    assert not stray.exists()


# --------------------------------------------------------------------------------------- releases
def test_another_release_takes_nothing_from_the_first(tmp_path: Path) -> None:
    dump = ztf.night_tar(tmp_path / "a.tar", [BASE + i for i in range(4)])
    run(tmp_path / "d", dump)
    wanted = hashes(tmp_path / "d")
    for force in (False, True):
        run(tmp_path / "d", dump, release="trial", force=force)
        now = hashes(tmp_path / "d")
        assert wanted.items() <= now.items()
        assert {path.split("/")[2] for path in set(now) - set(wanted)} == {"trial"}
        assert run(tmp_path / "d", dump).is_up_to_date
        assert run(tmp_path / "d", dump, release="trial").is_up_to_date
        assert_whole(tmp_path / "d")
    from pipeline.archive.listing import parts_of

    root, ledger = open_root(tmp_path / "d"), ledger_of(tmp_path / "d")
    for release in ("main", "trial"):
        for dataset in ("science", "links"):
            (part,) = parts_of(root, "ztf", NIGHT, ledger, dataset, release)
            assert f"/{dataset}/{release}/" in part.files[dataset]


def test_a_release_of_other_alerts_has_to_be_run_again(tmp_path: Path) -> None:
    dump = ztf.night_tar(tmp_path / "a.tar", [BASE + i for i in range(4)])
    run(tmp_path / "d", dump)
    run(tmp_path / "d", dump, release="trial")
    ztf.night_tar(dump, [BASE + i for i in range(6)])
    run(tmp_path / "d", dump, release="trial")
    assert set(ledger_of(tmp_path / "d")["releases"]) == {"trial"}
    assert not run(tmp_path / "d", dump).is_up_to_date
    assert len(ids(tmp_path / "d", "science")) == len(ids(tmp_path / "d", "science/trial")) == 6
    assert_whole(tmp_path / "d")


def test_a_release_whose_column_would_change_type_is_refused_before_any_work(tmp_path: Path) -> None:
    import pyarrow as pa

    from pipeline.nights.releases import save_release_schema

    root = open_root(tmp_path / "d", create=True)
    save_release_schema(root, "ztf", "main", pa.schema([("n_detections", pa.string())]))
    with pytest.raises(StoreError, match="column n_detections is string in release main"):
        run(tmp_path / "d", ztf.night_tar(tmp_path / "a.tar", [BASE]))
    (tmp_path / "d/ztf/science/main/_schema.arrow").write_bytes(b"cut")
    with pytest.raises(StoreError, match="cannot be read"):
        run(tmp_path / "d", tmp_path / "a.tar")


def test_a_night_module_of_another_version_makes_the_night_unfinished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import dataclasses

    from pipeline.science import NIGHT as MODULES

    dump = ztf.night_tar(tmp_path / "a.tar", [BASE])
    run(tmp_path / "d", dump)
    name, module = next(iter(MODULES.items()))
    monkeypatch.setitem(MODULES, name, dataclasses.replace(module, version=module.version + 1))
    assert not run(tmp_path / "d", dump).is_up_to_date
    assert run(tmp_path / "d", dump).is_up_to_date


# --------------------------------------------------------------------------------------- several runs, one result
def _rivals(folder: Path) -> list[Path]:
    """Four dumps: the same conflicting body in two of them, a better packet in the last, copies, refused packets."""
    return [
        ztf.write_tar(folder / "a.tar", [early(0), early(1), early(2), ("bad-a.avro", b"x")]),
        ztf.write_tar(folder / "b.tar", [early(0, magpsf=17.0), early(1), early(0, magpsf=17.0), early(3)]),
        ztf.write_tar(folder / "c.tar", [early(0, magpsf=17.0), early(1, magpsf=16.0), ("bad-c.avro", b"y")]),
        ztf.write_tar(
            folder / "d.tar",
            [early(0), early(2, rb=0.1), ("old.avro", ztf.packet_bytes(ztf.record(BASE, "3.3"), "3.3"))],
        ),
    ]


def _told(root: Path) -> dict[str, Any]:
    ledger = ledger_of(root)
    kept = ("name", "counts", "reasons", "notes")
    return {
        "files": hashes(root),
        "night": [ledger[name] for name in ("counts", "reasons", "notes")],
        "sources": [[entry[name] for name in kept] for entry in ledger["sources"]],
        "rejects": sorted((str(row["source"]), str(row["member"]), row["detail"]) for row in rejects(root)),
    }


def test_no_order_of_runs_changes_what_is_kept_or_counted(tmp_path: Path) -> None:
    dumps = _rivals(tmp_path)
    run(tmp_path / "at-once", *dumps, night=NIGHT)
    wanted = _told(tmp_path / "at-once")
    assert_whole(tmp_path / "at-once")
    counts = ledger_of(tmp_path / "at-once")["counts"]
    assert (counts["packets_in"], counts["written"], counts["rejected"]) == (14, 4, 2)
    assert (counts["duplicates"], counts["conflicting"]) == (4, 4)
    for order in list(itertools.permutations(range(4)))[1::6]:
        root = tmp_path / "".join(map(str, order))
        for place in order:
            run(root, dumps[place], night=NIGHT)
        assert _told(root) == wanted, order
        assert_whole(root)
    run(tmp_path / "at-once", dumps[1], dumps[3], night=NIGHT, force=True)
    assert _told(tmp_path / "at-once") == wanted


def test_changed_packets_are_not_compared_with_what_gave_way_to_the_former_ones(tmp_path: Path) -> None:
    a = ztf.write_tar(tmp_path / "a.tar", [early(0), early(1)])
    b = ztf.write_tar(tmp_path / "b.tar", [early(0), early(2)])
    run(tmp_path / "d", a, b)
    ztf.write_tar(a, [early(0, magpsf=16.0), early(1)])
    with pytest.raises(InputError, match=r"1 packets of a\.tar are others than before.*b\.tar had given way"):
        run(tmp_path / "d", a)
    counts = run(tmp_path / "d", a, b).ledgers[NIGHT]["counts"]
    assert (counts["written"], counts["duplicates"], counts["conflicting"]) == (3, 0, 1)
    ztf.write_tar(b, [early(0), early(2), early(3)])
    assert run(tmp_path / "d", b).ledgers[NIGHT]["counts"]["conflicting"] == 1
    assert_whole(tmp_path / "d")


def test_a_part_whose_rows_all_give_way_is_gone_and_counted(tmp_path: Path) -> None:
    a = ztf.night_tar(tmp_path / "a.tar", [BASE, BASE + 1])
    b = ztf.night_tar(tmp_path / "b.tar", [BASE, BASE + 1], magpsf=17.0)
    for name, order in (("once", [[a, b]]), ("one by one", [[a], [b]]), ("turned", [[b], [a]])):
        for dumps in order:
            run(tmp_path / name, *dumps)
        ledger = ledger_of(tmp_path / name)
        assert len(ledger["parts"]) == 1
        assert (ledger["counts"]["written"], ledger["counts"]["conflicting"]) == (2, 2)
        assert len(rejects(tmp_path / name)) == 2
        assert_whole(tmp_path / name)
        assert _told(tmp_path / name) == _told(tmp_path / "once")


# --------------------------------------------------------------------------------------- rejects, notes
def test_refused_packets_are_written_as_parts_end_and_not_held(tmp_path: Path) -> None:
    members = [late(i) for i in range(700)]
    members[300] = early(1)
    run(tmp_path / "d", ztf.write_tar(tmp_path / "a.tar.gz", members, "w:gz"), night=NIGHT, **{"part.max_alerts": 200})
    ledger = ledger_of(tmp_path / "d")
    files = ledger["night_files"]["rejects"]
    assert [file["rows"] for file in files] == [200, 199, 200, 100]  # as parts end
    assert sum(file["rows"] for file in files) == ledger["counts"]["other_night"] == 699
    assert {row["alert_id"] for row in rejects(tmp_path / "d")} == {BASE + i for i in range(700)} - {BASE + 300}
    broken = {**ledger, "night_files": {**ledger["night_files"], "rejects": files[:-1]}}
    with pytest.raises(Exception, match="699 packets were refused"):
        check_ledger(broken)


def test_notes_belong_to_the_night_and_the_source_they_were_made_in(tmp_path: Path) -> None:
    a = ztf.write_tar(tmp_path / "a.tar", [early(0, nid=600), early(1), late(9)])
    b = ztf.write_tar(tmp_path / "b.tar", [early(5, nid=600), late(8, nid=600)])
    run(tmp_path / "d", a)
    run(tmp_path / "d", b)
    assert ledger_of(tmp_path / "d")["notes"]["night_disagreement"] == 2
    assert ledger_of(tmp_path / "d", NEXT)["notes"]["night_disagreement"] == 1


def test_a_cut_that_takes_alerts_away_is_counted_and_not_taken_for_a_loss(tmp_path: Path) -> None:
    dump = ztf.write_tar(tmp_path / "a.tar", [early(0, rb=0.9), early(1, rb=0.2)])
    run(tmp_path / "d", dump)
    counts = run(tmp_path / "d", dump, cut="candidate.rb >= 0.5").ledgers[NIGHT]["counts"]
    assert (counts["written"], counts["cut"]) == (1, 1)


# --------------------------------------------------------------------------------------- sources
def test_a_packet_replaced_by_one_of_equal_size_and_older_time_is_seen(tmp_path: Path) -> None:
    folder = tmp_path / "night"
    folder.mkdir()
    for i in range(3):
        (folder / f"{i}.avro").write_bytes(early(i)[1])
    run(tmp_path / "d", folder)
    (before,) = list_sources([str(folder)])
    (folder / "1.avro").write_bytes(early(1, magpsf=16.5)[1])
    os.utime(folder / "1.avro", ns=(1, 1))
    (after,) = list_sources([str(folder)])
    assert (before.size, before.mtime_ns) == (after.size, after.mtime_ns)
    assert before.state != after.state
    assert not run(tmp_path / "d", folder).is_up_to_date
    assert run(tmp_path / "d", folder).is_up_to_date


def test_a_dump_that_changes_while_it_is_read_is_not_committed(tmp_path: Path) -> None:
    dump = ztf.night_tar(tmp_path / "a.tar", [BASE, BASE + 1])
    prepared = made(tmp_path / "d", dump)
    with dump.open("ab") as file:
        file.write(b"\0" * 512)
    with pytest.raises(SourceError, match=r"changed while it was read \(source a\.tar\)"):
        drive.run_direct(prepared)
    assert not (tmp_path / "d/ztf/ledger").exists()
    assert run(tmp_path / "d", dump).ledgers[NIGHT]["counts"]["written"] == 2


def test_a_night_whose_other_source_is_damaged_fails_alone(tmp_path: Path) -> None:
    run(tmp_path / "d", ztf.night_tar(tmp_path / "a.tar", [BASE]))
    (path,) = (tmp_path / "d/ztf/provenance").rglob("*.parquet")
    path.write_bytes(b"damaged")
    outcome = run(tmp_path / "d", ztf.write_tar(tmp_path / "b.tar", [early(1), late(9)]))
    assert set(outcome.ledgers) == {NEXT}
    assert isinstance(outcome.errors[NIGHT], PartError)
    assert "verify" in str(outcome.errors[NIGHT])


# --------------------------------------------------------------------------------------- disks and names
def test_a_disk_that_fills_up_at_the_commit_fails_that_night_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno

    dump = ztf.write_tar(tmp_path / "a.tar", [early(0), late(9)])
    whole = committing.write_ledger

    def full(root: Any, ledger: dict[str, Any], night: int) -> None:
        if night == NIGHT:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "ledger")
        whole(root, ledger, night)

    monkeypatch.setattr(committing, "write_ledger", full)
    outcome = run(tmp_path / "d", dump)
    assert set(outcome.ledgers) == {NEXT}
    assert isinstance(outcome.errors[NIGHT], PartError)
    assert str(outcome.errors[NIGHT]).startswith("the night cannot be committed: No space left on device")
    monkeypatch.undo()
    assert set(run(tmp_path / "d", dump).ledgers) == {NIGHT, NEXT}
    assert_whole(tmp_path / "d")


def test_a_lock_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    root = open_root(tmp_path / "d", create=True)
    (tmp_path / "d/_leases").write_text("a file where the folder of locks should be")
    with pytest.raises(StoreError, match=r"the lock ztf-run-x cannot be written"), hold(root, "ztf-run-x"):
        pass


def test_a_root_must_have_a_name_in_utf_8(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="not UTF-8") as caught:
        open_root(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"), create=True)
    str(caught.value).encode()


def test_any_error_of_the_disk_is_one_line_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from pipeline.cli import main

    def failing(*_: Any, **__: Any) -> None:
        raise OSError(5, "Input/output error", "/some/file")

    monkeypatch.setattr(status, "survey_ledgers", failing)
    with pytest.raises(SystemExit) as ended:
        main(["status", "--root", str(tmp_path)])
    assert ended.value.code == 1
    assert capsys.readouterr().err.splitlines() == [
        "alertmill: Input/output error: /some/file; look at the disk, then run again"
    ]


def test_a_section_given_as_a_value_is_told() -> None:
    with pytest.raises(InputError, match="setting part"):
        configuration.load({"part": 5, "part.max_alerts": 7}, environment={})


def test_a_ledger_stays_small_and_the_footers_hold_the_content_hashes(tmp_path: Path) -> None:
    run(tmp_path / "d", ztf.night_tar(tmp_path / "a.tar", [BASE + i for i in range(8)]), **{"part.max_alerts": 1})
    ledger = ledger_of(tmp_path / "d")
    assert len(json.dumps(ledger["parts"])) < 3000 * len(ledger["parts"])
    for file in ledger["parts"][0]["files"].values():
        footer = pq.read_metadata(tmp_path / "d" / file["path"]).metadata
        assert "alert_id" in json.loads(footer[b"alertmill.content"])
