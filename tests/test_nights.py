"""Nights from dump to datasets: conservation, duplicates, reruns, determinism, bad input."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ztf_packets as ztf

from pipeline import config as configuration
from pipeline import status
from pipeline.errors import InputError, LeaseError, PartError, SourceError, StoreError
from pipeline.execute import Serial
from pipeline.nights import drive
from pipeline.nights.run import locked, prepare
from pipeline.store import hold, open_root, read_ledger

NIGHT = 20181129
BASE = 697_251_920_015_000_000


def run(root: Path, *inputs: Path, night: int | None = None, force: bool = False, **options: Any) -> drive.Outcome:
    settings, _ = configuration.load(
        {
            "root": str(root),
            "models": (),
            "report": False,
            "execution.mode": "serial",
            "execution.prefect": False,
            **options,
        },
        environment={},
    )
    made = prepare(settings, [str(path) for path in inputs], night=night, force=force)
    done = drive.up_to_date(made)
    return done if done is not None else drive.run_direct(made)


def ids(root: Path, dataset: str = "alerts", night: int = NIGHT) -> list[int]:
    ledger = read_ledger(open_root(root), "ztf", night)
    assert ledger is not None
    files = [part["files"][dataset]["path"] for part in ledger["parts"]]
    return [i for path in files for i in pq.read_table(root / path, columns=["alert_id"]).column(0).to_pylist()]


def rejects(root: Path, night: str = str(NIGHT)) -> list[dict[str, Any]]:
    folder = root / "ztf" / "rejects" / f"night={night}"
    return [row for path in sorted(folder.glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


def hashes(root: Path) -> dict[str, str]:
    """sha256 of every file that a ledger lists, by path."""
    found = {}
    for path in sorted((root / "ztf" / "ledger").glob("*.json")):
        ledger = json.loads(path.read_text())
        for part in ledger["parts"]:
            found.update({file["path"]: file["sha256"] for file in part["files"].values()})
        found.update({file["path"]: file["sha256"] for group in ledger["night_files"].values() for file in group})
    return found


def assert_whole(root: Path) -> None:
    """No stray, no loss, no staging, no lock."""
    files, findings = status.verify(str(root))
    assert files > 0
    assert findings == []
    assert not (root / "_staging").exists()
    assert not (root / "_leases").exists()


def test_a_night_is_committed_row_by_row_in_source_order(tmp_path: Path) -> None:
    candids = [BASE + i for i in random.Random(1).sample(range(1000), 40)]
    outcome = run(tmp_path / "d", ztf.night_tar(tmp_path / "a.tar", candids), **{"part.max_alerts": 15})
    ledger = outcome.ledgers[NIGHT]
    assert ledger["counts"]["packets_in"] == ledger["counts"]["written"] == 40
    assert [part["rows"] for part in ledger["parts"]] == [15, 15, 10]
    for dataset in ("raw", "cutouts", "alerts", "provenance", "science"):
        assert ids(tmp_path / "d", dataset) == candids
    assert_whole(tmp_path / "d")


def test_parts_end_where_the_source_says_and_not_where_batches_or_refused_packets_do(tmp_path: Path) -> None:
    good = [(f"{BASE + i}.avro", ztf.packet_bytes(ztf.record(BASE + i))) for i in range(600)]
    good[3] = (good[3][0], good[3][1][:200])
    run(tmp_path / "d", ztf.write_tar(tmp_path / "a.tar.gz", good, "w:gz"), night=NIGHT, **{"part.max_alerts": 290})
    ledger = read_ledger(open_root(tmp_path / "d"), "ztf", NIGHT)
    assert ledger is not None
    assert [part["rows"] for part in ledger["parts"]] == [289, 290, 20]
    assert ledger["counts"]["rejected"] == 1


def test_a_part_also_ends_at_bytes_and_at_light_curve_points(tmp_path: Path) -> None:
    """Points: the trigger and every row of the packet's lists."""
    made = []
    for i in range(12):
        packet = ztf.record(BASE + i)
        point = {name: packet["candidate"][name] for name in ("fid", "pid", "diffmaglim", "programid")}
        point.update(dict.fromkeys(("candid", "isdiffpos", "ra", "dec", "magpsf", "sigmapsf", "ranr", "decnr")))
        packet["prv_candidates"] = [{**point, "jd": ztf.NIGHT_JD - 1 - k, "rbversion": "t"} for k in range(4)]
        made.append((f"{BASE + i}.avro", ztf.packet_bytes(packet)))
    dump = ztf.write_tar(tmp_path / "a.tar.gz", made, "w:gz")
    rows = {
        limit: [
            part["rows"] for part in run(tmp_path / limit, dump, **{f"part.{limit}": value}).ledgers[NIGHT]["parts"]
        ]
        for limit, value in (("max_points", 20), ("max_bytes", 5_000), ("max_alerts", 7))
    }
    assert rows["max_points"] == [4, 4, 4]
    assert rows["max_alerts"] == [7, 5]
    first = pq.read_table(next((tmp_path / "max_bytes/ztf/provenance").rglob("*.parquet")))
    length = first.column("length")[0].as_py()
    assert rows["max_bytes"][0] == -(-5_000 // length)
    assert sum(rows["max_bytes"]) == 12


def test_packets_of_other_nights_are_counted_and_kept(tmp_path: Path) -> None:
    members = [(f"{BASE + i}.avro", ztf.packet_bytes(ztf.record(BASE + i))) for i in range(4)]
    late = ztf.packet_bytes(ztf.record(BASE + 9, jd=ztf.NIGHT_JD + 1, nid=698))
    dump = ztf.write_tar(tmp_path / "a.tar", [*members, ("late.avro", late)])
    counts = run(tmp_path / "named", dump, night=NIGHT).ledgers[NIGHT]["counts"]
    assert (counts["written"], counts["other_night"]) == (4, 1)
    (row,) = rejects(tmp_path / "named")
    assert (row["reason"], row["night"], row["alert_id"]) == ("other_night", 20181130, BASE + 9)
    assert late.endswith(row["body"] + late[-16:])
    both = run(tmp_path / "all", dump)
    assert {night: ledger["counts"]["written"] for night, ledger in both.ledgers.items()} == {NIGHT: 4, 20181130: 1}


def test_a_night_that_the_dump_does_not_hold_is_refused(tmp_path: Path) -> None:
    dump = ztf.night_tar(tmp_path / "a.tar", [BASE, BASE + 1])
    with pytest.raises(
        InputError, match=r"no packet of the input is of night 20181130; it holds 20181129 \(2 packets\)"
    ):
        run(tmp_path / "d", dump, night=20181130)
    assert [path.name for path in (tmp_path / "d").rglob("*")] == ["root.json"]


def test_every_refused_packet_has_its_reason_and_spoils_no_neighbour(tmp_path: Path) -> None:
    members = [(f"{BASE + i}.avro", ztf.packet_bytes(ztf.record(BASE + i))) for i in range(6)]
    members[1] = ("cut.avro", members[1][1][:-30])
    members[2] = ("text.avro", b"this is no packet")
    members[4] = ("nowhere.avro", ztf.packet_bytes(ztf.record(BASE + 4, ra=float("nan"))))
    members.insert(5, ("empty.avro", b""))
    outcome = run(tmp_path / "d", ztf.write_tar(tmp_path / "a.tar", members), night=NIGHT)
    assert ids(tmp_path / "d") == [BASE, BASE + 3, BASE + 5]
    assert outcome.ledgers[NIGHT]["counts"] == {
        "packets_in": 7, "written": 3, "duplicates": 0, "conflicting": 0, "rejected": 4, "cut": 0, "other_night": 0,
    }  # fmt: skip
    found = {row["member"]: (row["reason"], row["detail"]) for row in rejects(tmp_path / "d")}
    assert set(found) == {"cut.avro", "text.avro", "nowhere.avro", "empty.avro"}
    assert found["nowhere.avro"][0] == "not_normalisable"
    assert all(detail for _, detail in found.values())


def test_without_a_named_night_undecodable_packets_are_ledgered_under_night_unknown(tmp_path: Path) -> None:
    dump = ztf.write_tar(
        tmp_path / "a.tar", [("x.avro", b"nonsense"), (f"{BASE}.avro", ztf.packet_bytes(ztf.record(BASE)))]
    )
    outcome = run(tmp_path / "d", dump)
    assert outcome.ledgers[0]["night"] == "unknown"
    assert outcome.ledgers[0]["counts"]["rejected"] == 1
    assert len(rejects(tmp_path / "d", "unknown")) == 1
    assert run(tmp_path / "d", dump).is_up_to_date
    assert_whole(tmp_path / "d")


def test_an_input_cut_is_counted_and_its_rows_are_kept_by_name(tmp_path: Path) -> None:
    members = [
        (f"{BASE + i}.avro", ztf.packet_bytes(ztf.record(BASE + i, rb=rb))) for i, rb in enumerate([0.9, 0.3, None])
    ]
    dump = ztf.write_tar(tmp_path / "a.tar", members)
    counts = run(tmp_path / "d", dump, cut="candidate.rb >= 0.55").ledgers[NIGHT]["counts"]
    assert (counts["written"], counts["cut"]) == (1, 2)
    assert {row["reason"] for row in rejects(tmp_path / "d")} == {"cut"}


def _duplicates(folder: Path) -> tuple[Path, Path]:
    """Two dumps: an identical copy, a copy of a lower version, and one with another body and the same version."""
    first = [(f"{BASE + i}.avro", ztf.packet_bytes(ztf.record(BASE + i))) for i in range(5)]
    second = [
        ("same.avro", first[1][1]),
        ("old.avro", ztf.packet_bytes(ztf.record(BASE + 2, "3.3"), "3.3")),
        ("other.avro", ztf.packet_bytes(ztf.record(BASE + 3, magpsf=17.0))),
        (f"{BASE + 8}.avro", ztf.packet_bytes(ztf.record(BASE + 8))),
    ]
    return ztf.write_tar(folder / "a.tar", first), ztf.write_tar(folder / "b.tar", second)


def test_duplicates_are_decided_by_version_and_body_and_conflicts_are_kept(tmp_path: Path) -> None:
    a, b = _duplicates(tmp_path)
    counts = run(tmp_path / "d", a, b).ledgers[NIGHT]["counts"]
    assert (counts["packets_in"], counts["written"], counts["duplicates"], counts["conflicting"]) == (9, 6, 1, 2)
    assert sorted(ids(tmp_path / "d")) == [BASE, BASE + 1, BASE + 2, BASE + 3, BASE + 4, BASE + 8]
    kept = rejects(tmp_path / "d")
    assert {row["reason"] for row in kept} == {"conflicting"}
    old = next(row for row in kept if row["member"] == "old.avro")
    assert ztf.packet_bytes(ztf.record(BASE + 2, "3.3"), "3.3").endswith(old["body"] + b"0123456789abcdef")
    assert old["body_sha256"].hex() in old["detail"]


def test_arrival_order_decides_nothing(tmp_path: Path) -> None:
    a, b = _duplicates(tmp_path)
    run(tmp_path / "both", a, b)
    run(tmp_path / "swapped", b, a)
    for order, name in (((a, b), "one"), ((b, a), "two")):
        for dump in order:
            run(tmp_path / name, dump)
        assert_whole(tmp_path / name)
    wanted = hashes(tmp_path / "both")
    for name in ("swapped", "one", "two"):
        assert hashes(tmp_path / name) == wanted


def test_a_finished_night_is_not_done_again_and_force_gives_the_same_bytes(tmp_path: Path) -> None:
    dump = ztf.night_tar(tmp_path / "a.tar", [BASE + i for i in range(10)])
    run(tmp_path / "d", dump, night=NIGHT)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "d").rglob("*") if path.is_file()}
    wanted = hashes(tmp_path / "d")
    assert run(tmp_path / "d", dump, night=NIGHT).is_up_to_date
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "d").rglob("*") if path.is_file()} == before
    again = run(tmp_path / "d", dump, night=NIGHT, force=True)
    assert not again.is_up_to_date
    assert hashes(tmp_path / "d") == wanted
    assert again.changes[NIGHT].is_empty


def test_a_copied_dump_with_another_time_is_still_the_same_dump(tmp_path: Path) -> None:
    dump = ztf.night_tar(tmp_path / "a.tar", [BASE + i for i in range(3)])
    run(tmp_path / "d", dump)
    os.utime(dump, ns=(1, 1))
    assert run(tmp_path / "d", dump).is_up_to_date


def test_a_completed_dump_replaces_its_own_parts_alone(tmp_path: Path) -> None:
    other = ztf.night_tar(tmp_path / "b.tar", [BASE + 500 + i for i in range(4)])
    dump = ztf.night_tar(tmp_path / "a.tar", [BASE + i for i in range(8)])
    run(tmp_path / "d", dump, other, **{"part.max_alerts": 5})
    before = hashes(tmp_path / "d")
    ztf.night_tar(tmp_path / "a.tar", [BASE + i for i in range(12)])
    change = run(tmp_path / "d", dump, **{"part.max_alerts": 5}).changes[NIGHT]
    assert (len(change.added), len(change.replaced), len(change.removed), change.unchanged) == (1, 1, 0, 2)
    assert sorted(ids(tmp_path / "d")) == [BASE + i for i in range(12)] + [BASE + 500 + i for i in range(4)]
    kept = set(before.items()) & set(hashes(tmp_path / "d").items())
    assert len([path for path, _ in kept if "/part-" in path and "/alerts/" in path]) == 2
    assert_whole(tmp_path / "d")


def test_alerts_that_a_dump_no_longer_holds_are_not_lost_silently(tmp_path: Path) -> None:
    dump = ztf.night_tar(tmp_path / "a.tar", [BASE, BASE + 1, BASE + 2])
    run(tmp_path / "d", dump)
    ztf.night_tar(dump, [BASE + 2, BASE + 3])
    with pytest.raises(InputError, match=r"2 of the 3 alerts that a\.tar held in night 20181129 are not in it now"):
        run(tmp_path / "d", dump)
    assert sorted(ids(tmp_path / "d")) == [BASE, BASE + 1, BASE + 2]
    ledger = run(tmp_path / "d", dump, force=True).ledgers[NIGHT]
    assert ledger["notes"]["withdrawn"] == 2
    assert sorted(ids(tmp_path / "d")) == [BASE + 2, BASE + 3]
    assert_whole(tmp_path / "d")


def test_a_night_that_a_dump_no_longer_holds_is_emptied_only_by_force(tmp_path: Path) -> None:
    late = ("late.avro", ztf.packet_bytes(ztf.record(BASE + 9, jd=ztf.NIGHT_JD + 1, nid=698)))
    dump = ztf.write_tar(tmp_path / "a.tar", [(f"{BASE}.avro", ztf.packet_bytes(ztf.record(BASE))), late])
    run(tmp_path / "d", dump)
    ztf.night_tar(dump, [BASE])
    with pytest.raises(InputError, match="held in night 20181130"):
        run(tmp_path / "d", dump)
    assert ids(tmp_path / "d", night=20181130) == [BASE + 9]
    run(tmp_path / "d", dump, force=True)
    assert ids(tmp_path / "d", night=20181130) == []
    assert run(tmp_path / "d", dump).is_up_to_date
    assert_whole(tmp_path / "d")


def test_a_night_named_after_a_run_of_all_nights_is_done_once(tmp_path: Path) -> None:
    late = ("late.avro", ztf.packet_bytes(ztf.record(BASE + 9, jd=ztf.NIGHT_JD + 1, nid=698)))
    dump = ztf.write_tar(tmp_path / "a.tar", [(f"{BASE}.avro", ztf.packet_bytes(ztf.record(BASE))), late])
    run(tmp_path / "d", dump)
    assert run(tmp_path / "d", dump, night=NIGHT).ledgers[NIGHT]["counts"]["other_night"] == 1
    assert run(tmp_path / "d", dump, night=NIGHT).is_up_to_date
    assert_whole(tmp_path / "d")


def test_a_withdrawn_alert_whose_copies_gave_way_is_not_lost_silently(tmp_path: Path) -> None:
    a = ztf.night_tar(tmp_path / "a.tar", [BASE, BASE + 1])
    b = ztf.night_tar(tmp_path / "b.tar", [BASE + 1, BASE + 2])
    run(tmp_path / "d", a, b)
    ztf.night_tar(a, [BASE])
    for force in (False, True):
        with pytest.raises(InputError, match=r"copies in b\.tar had given way"):
            run(tmp_path / "d", a, force=force)
    run(tmp_path / "d", a, b)
    assert sorted(ids(tmp_path / "d")) == [BASE, BASE + 1, BASE + 2]
    assert_whole(tmp_path / "d")


def test_a_night_without_alerts_is_a_success_with_zeros(tmp_path: Path) -> None:
    outcome = run(tmp_path / "d", ztf.write_tar(tmp_path / "a.tar", []), night=NIGHT)
    assert set(outcome.ledgers[NIGHT]["counts"].values()) == {0}
    assert run(tmp_path / "d", tmp_path / "a.tar", night=NIGHT).is_up_to_date
    assert_whole(tmp_path / "d")


class Shuffled(Serial):
    """Runs the tasks in another order."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._random = random.Random(seed)

    def map(self, function: Any, jobs: Any, names: Any) -> Any:
        order = list(range(len(jobs)))
        self._random.shuffle(order)
        for index in order:
            ((_, result),) = super().map(function, [jobs[index]], [names[index]])
            yield index, result


def test_the_order_of_tasks_changes_no_byte(tmp_path: Path) -> None:
    a, b = _duplicates(tmp_path)
    c = ztf.night_tar(tmp_path / "c.tar", [BASE + 100 + i for i in range(30)])
    run(tmp_path / "serial", a, b, c, **{"part.max_alerts": 4})
    for seed in (1, 2):
        settings, _ = configuration.load(
            {"root": str(tmp_path / f"s{seed}"), "models": (), "part.max_alerts": 4}, environment={}
        )
        made = prepare(settings, [str(path) for path in (a, b, c)])
        with locked(made):
            drive.run_stages(made, Shuffled(seed))
        assert hashes(tmp_path / f"s{seed}") == hashes(tmp_path / "serial")


def test_raw_and_provenance_lead_back_to_the_dump(tmp_path: Path) -> None:
    dump = ztf.night_tar(tmp_path / "a.tar", [BASE + i for i in range(3)])
    run(tmp_path / "d", dump)
    ledger = read_ledger(open_root(tmp_path / "d"), "ztf", NIGHT)
    assert ledger is not None
    rows = pq.read_table(tmp_path / "d" / ledger["parts"][0]["files"]["provenance"]["path"]).to_pylist()
    names = {entry["number"]: entry["name"] for entry in ledger["sources"]}
    assert [names[row["source_number"]] for row in rows] == ["a.tar"] * 3
    packet = ztf.packet_bytes(ztf.record(BASE + 1))
    body = packet[rows[1]["offset"] : rows[1]["offset"] + rows[1]["length"]]
    import hashlib

    assert hashlib.sha256(body).digest() == rows[1]["body_sha256"]


def test_forced_points_that_are_no_measurement_are_noted_by_reason(tmp_path: Path) -> None:
    packet = ztf.record(BASE)
    (kind,) = [f["type"] for f in ztf.known_schemas("ztf")["4.02"]["fields"] if f["name"] == "fp_hists"]
    point = ztf.blank(kind[1]["items"]) | {"jd": ztf.NIGHT_JD - 1, "fid": 1, "pid": 5, "procstatus": "57"}
    packet["fp_hists"] = [point, {**point, "jd": ztf.NIGHT_JD - 2, "procstatus": "0", "forcediffimflux": -99999.0}]
    dump = ztf.write_tar(tmp_path / "a.tar", [("1.avro", ztf.packet_bytes(packet))])
    notes = run(tmp_path / "d", dump).ledgers[NIGHT]["notes"]
    assert sum(count for name, count in notes.items() if name.startswith("forced_photometry_")) == 2
    assert notes["forced_photometry_failed_status"] == 1


def test_exposures_count_the_alerts_of_each(tmp_path: Path) -> None:
    run(tmp_path / "d", ztf.night_tar(tmp_path / "a.tar", [BASE + i for i in range(7)], fwhm=2.0))
    (path,) = (tmp_path / "d/ztf/exposures").rglob("*.parquet")
    (row,) = pq.read_table(path).to_pylist()
    assert row["n_alerts"] == 7
    assert row["band"] == "g"
    assert len(row["cells"]) == len(set(row["cells"])) >= 1


# --------------------------------------------------------------------------------------- bad input
def test_bad_input_is_one_clear_error_and_nothing_is_half_written(tmp_path: Path) -> None:
    good = ztf.night_tar(tmp_path / "a.tar", [BASE, BASE + 1])
    cut = tmp_path / "cut.tar"
    cut.write_bytes(good.read_bytes()[:20_000])
    (tmp_path / "file").write_text("x")
    newer = tmp_path / "newer"
    newer.mkdir()
    (newer / "root.json").write_text('{"layout": 99}')
    root = tmp_path / "d"
    cases: list[tuple[Any, type[Exception], str]] = [
        (lambda: run(root, tmp_path / "nowhere.tar"), InputError, "does not exist"),
        (lambda: run(root, cut), SourceError, "cut"),
        (lambda: run(tmp_path / "file", good), StoreError, "not a folder"),
        (lambda: run(newer, good), StoreError, "layout 99"),
        (lambda: run(root, good, survey="atlas"), InputError, "atlas"),
        (lambda: run(root, good, cut="nonsense"), InputError, "not understood"),
        (lambda: run(root, good, release="../x"), InputError, "release"),
        (lambda: run(root, good, catalogs=("gcvs",)), InputError, "no built catalog"),
        (lambda: run(root, good, skymaps=("s190425z=nowhere.fits",)), InputError, "sky map"),
    ]
    for call, kind, told in cases:
        with pytest.raises(kind, match=told) as caught:
            call()
        assert len(str(caught.value).splitlines()) == 1
    assert [path.name for path in root.rglob("*")] == ["root.json"]


def test_the_reject_ceiling_fails_a_night_from_a_hundred_packets_up(tmp_path: Path) -> None:
    good = [(f"{BASE + i}.avro", ztf.packet_bytes(ztf.record(BASE + i))) for i in range(120)]
    bad = [(name, data[:100]) if i < 3 else (name, data) for i, (name, data) in enumerate(good)]
    with pytest.raises(PartError, match=r"3 of 120 packets cannot be decoded, more than the 1\.0% allowed"):
        run(tmp_path / "d", ztf.write_tar(tmp_path / "a.tar", bad), night=NIGHT)
    assert not (tmp_path / "d" / "ztf").exists()
    outcome = run(tmp_path / "d", tmp_path / "a.tar", night=NIGHT, max_rejects=0.05)
    assert outcome.ledgers[NIGHT]["counts"]["rejected"] == 3


def test_two_runs_at_once_on_one_night_do_not_mix(tmp_path: Path) -> None:
    dump = ztf.night_tar(tmp_path / "a.tar", [BASE])
    (tmp_path / "d").mkdir()
    root = open_root(tmp_path / "d", create=True)
    with hold(root, f"ztf-night={NIGHT}"), pytest.raises(LeaseError, match=r"is being run by process \d+"):
        run(tmp_path / "d", dump, night=NIGHT)
    assert not (tmp_path / "d" / "ztf" / "ledger").exists()
    assert run(tmp_path / "d", dump, night=NIGHT).ledgers[NIGHT]["counts"]["written"] == 1


def test_a_failed_part_fails_its_night_alone_and_the_next_try_goes_on(tmp_path: Path, monkeypatch: Any) -> None:
    members = [(f"{BASE + i}.avro", ztf.packet_bytes(ztf.record(BASE + i))) for i in range(4)]
    late = ztf.packet_bytes(ztf.record(BASE + 9, jd=ztf.NIGHT_JD + 1, nid=698))
    dump = ztf.write_tar(tmp_path / "a.tar", [*members, ("late.avro", late)])
    from pipeline.nights import enrich

    whole = enrich.apply

    def broken(group: Any, table: pa.Table) -> pa.Table:
        if BASE + 9 in table.column("alert_id").to_pylist():
            raise ZeroDivisionError("a defect")
        return whole(group, table)

    monkeypatch.setattr(enrich, "apply", broken)
    outcome = run(tmp_path / "d", dump)
    assert set(outcome.ledgers) == {NIGHT}
    assert "ZeroDivisionError: a defect" in str(outcome.errors[20181130])
    assert "part part-" in str(outcome.errors[20181130])
    monkeypatch.undo()
    again = run(tmp_path / "d", dump)
    assert set(again.ledgers) >= {20181130}
    assert_whole(tmp_path / "d")


def test_verify_names_losses_damage_and_strays(tmp_path: Path) -> None:
    run(tmp_path / "d", ztf.night_tar(tmp_path / "a.tar", [BASE + i for i in range(5)]))
    folder = tmp_path / "d/ztf"
    (alerts,) = folder.glob("alerts/*/*.parquet")
    (raw,) = folder.glob("raw/*/*.parquet")
    alerts.unlink()
    raw.write_bytes(raw.read_bytes()[:-1] + b"x")
    (raw.parent / "part-stray.parquet").write_bytes(b"")
    _, findings = status.verify(str(tmp_path / "d"))
    assert {(finding.kind, Path(finding.path).parent.parent.name) for finding in findings} == {
        ("lost", "alerts"), ("damaged", "raw"), ("stray", "raw"),
    }  # fmt: skip
    lines = status.repair(str(tmp_path / "d"), findings)
    assert any("part-stray" in line for line in lines)
    assert any(line.startswith("run again: alertmill run 20181129") for line in lines)
    run(tmp_path / "d", tmp_path / "a.tar", force=True)
    assert_whole(tmp_path / "d")


def test_statistics_are_of_the_parts_written(tmp_path: Path) -> None:
    run(tmp_path / "d", ztf.night_tar(tmp_path / "a.tar", [BASE + i for i in range(20)]))
    ledger = read_ledger(open_root(tmp_path / "d"), "ztf", NIGHT)
    assert ledger is not None
    (part,) = ledger["parts"]
    table = pq.read_table(tmp_path / "d" / part["files"]["science"]["path"])
    assert (part["mjd_min"], part["mjd_max"]) == (min(table["mjd"].to_pylist()), max(table["mjd"].to_pylist()))
    assert part["cells"] == np.unique(table["healpix_29"].to_numpy() >> 46).tolist()
