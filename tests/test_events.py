"""The store of events: versions, arrival in any order, retractions, killed processes; and finding maps by name."""

from __future__ import annotations

import base64
import itertools
import json
import multiprocessing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.time import Time
from click.testing import CliRunner
from test_notices import alert, as_json, container, voevent

from pipeline.cli.events import command
from pipeline.errors import CatalogError, InputError, StoreError
from pipeline.events import EventStore
from pipeline.healpix import MAX_ORDER, to_uniq
from pipeline.night import utc_to_tai
from pipeline.skymap import SkyMap, make_skymap, parse_skymap, region_area_deg2
from pipeline.skymaps import find_event, find_skymap, skymap_fits


def skymap(seed: int, *, is_3d: bool = True) -> SkyMap:
    """A map of order 2 with random densities."""
    rng = np.random.default_rng(seed)
    cells = np.arange(12 << 4)
    weights = rng.random(len(cells))
    shift = 2 * (MAX_ORDER - 2)
    density = weights / weights.sum() / (41252.96124941927 / len(cells))
    distances = {
        "distance_mu_mpc": rng.uniform(50, 100, len(cells)),
        "distance_sigma_mpc": rng.uniform(5, 10, len(cells)),
        "distance_norm": rng.uniform(1e-4, 2e-4, len(cells)),
    }
    return make_skymap("s230518h", 60082.5, cells << shift, (cells + 1) << shift, density, distances if is_3d else {})


def lvk(created: str, status: str = "PRELIMINARY", seed: int | None = 1, **changes: Any) -> bytes:
    if status == "RETRACTION":
        return as_json(alert(alert_type=status, time_created=created, event=None, **changes))
    fits = None if seed is None else base64.b64encode(skymap_fits(skymap(seed))).decode()
    event = {"skymap": fits, **changes.pop("event", {})}
    return as_json(alert(alert_type=status, time_created=created, event=event, **changes))


CHAIN = [
    lvk("2023-05-18T13:00:00Z", seed=1),
    lvk("2023-05-18T13:30:00Z", "INITIAL", seed=2),
    lvk("2023-05-18T16:00:00Z", "UPDATE", seed=3),
    lvk("2023-05-18T16:00:00Z", "INITIAL", seed=4),
]


def state(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted((root / "events").rglob("*")) if p.is_file()}


# ------------------------------------------------------------------------------------------- versions
def test_any_order_of_arrival_ends_in_the_same_store(tmp_path: Path) -> None:
    chain = [*CHAIN[:3], lvk("2023-05-19T00:00:00Z", "RETRACTION")]
    first: dict[str, bytes] | None = None
    for number, order in enumerate(itertools.permutations(range(4))):
        root = tmp_path / str(number)
        store = EventStore(root)
        for place in order:
            assert store.add(chain[place], "notice.json").is_new
        first = first or state(root)
        assert state(root) == first
    assert first is not None and len(first) == 4 + 3
    assert [json.loads(first[f"events/s230518h/v00{n}.json"])["status"] for n in (1, 2, 3, 4)] == [
        "preliminary",
        "initial",
        "update",
        "retraction",
    ]


def test_a_notice_twice_is_one_version_in_whatever_form(tmp_path: Path) -> None:
    store = EventStore(tmp_path)
    one = store.add(CHAIN[0], "a.json")
    before = state(tmp_path)
    again = store.add(container(json.loads(CHAIN[0])), "b.avro")
    assert (one.is_new, again.is_new) == (True, False)
    assert one.digest == again.digest and one.version == again.version == 1
    assert state(tmp_path) == before


def test_the_newest_holds_and_all_versions_stay(tmp_path: Path) -> None:
    store = EventStore(tmp_path)
    assert store.names() == () and store.versions("S230518h") == () and store.current("S230518h") is None
    for data in CHAIN:
        store.add(data)
    assert store.names() == ("s230518h",)
    assert [item.version for item in store.versions("S230518h")] == [1, 2, 3, 4]
    assert [item.event.status for item in store.versions("s230518h")] == ["preliminary", "initial", "initial", "update"]
    current = store.current("S230518H")
    assert current is not None and (current.version, current.event.status) == (4, "update")
    for version, seed in ((None, 3), (4, 3), (3, 4), (2, 2), (1, 1)):
        found = store.skymap("S230518h", version)
        np.testing.assert_allclose(found.density_per_deg2, skymap(seed).density_per_deg2, rtol=1e-12)
        assert found.event_mjd == pytest.approx(Time("2023-05-18T12:59:08.167", scale="utc").tai.mjd, abs=1e-11)
        assert found.has_distance
    with pytest.raises(CatalogError, match="versions 1 to 4, no 5"):
        store.skymap("S230518h", 5)


def test_a_file_that_names_no_event_is_called_by_its_own_name(tmp_path: Path) -> None:
    data = skymap_fits(skymap(1))
    for named in ("s230518h", "0"):
        file = tmp_path / "GWsky_LALInference.multiorder.fits"
        file.write_bytes(data.replace(b"OBJECT  = 's230518h'", f"OBJECT  = '{named}'".ljust(20).encode()))
        assert find_skymap(file).event == ("s230518h" if named != "0" else "gwsky_lalinference")
        assert find_skymap(f"mine={file}").event == "mine"


def test_what_a_retraction_took_back_does_not_count_again(tmp_path: Path) -> None:
    store = EventStore(tmp_path)
    store.add(CHAIN[0])
    store.add(lvk("2023-05-18T14:00:00Z", "RETRACTION"))
    store.add(lvk("2023-05-18T15:00:00Z", "UPDATE", seed=None))
    with pytest.raises(CatalogError, match="says where it was"):
        store.skymap("S230518h")
    store.add(CHAIN[2])
    assert store.located("S230518h").version == 4


def test_a_retracted_event_has_no_map_but_keeps_its_versions(tmp_path: Path) -> None:
    store = EventStore(tmp_path)
    store.add(lvk("2023-05-19T00:00:00Z", "RETRACTION"))
    store.add(CHAIN[0])
    assert store.current("S230518h") is None
    assert len(store.versions("S230518h")) == 2
    for find in (lambda: store.skymap("S230518h"), lambda: find_skymap("S230518h", tmp_path)):
        with pytest.raises(CatalogError, match=r"retracted on 2023-05-19T00:00:00Z \(version 2\)"):
            find()
    assert store.skymap("S230518h", 1).event == "s230518h"
    store.add(lvk("2023-05-20T00:00:00Z", "UPDATE", seed=2))  # taken up again
    assert store.current("S230518h") is not None and store.skymap("S230518h").event == "s230518h"


def test_a_version_without_a_map_leaves_the_former_map(tmp_path: Path) -> None:
    store = EventStore(tmp_path)
    store.add(CHAIN[0])
    store.add(lvk("2023-05-18T15:00:00Z", "UPDATE", seed=None))
    current = store.current("S230518h")
    assert current is not None and current.version == 2
    assert store.located("S230518h").version == 1


def test_tests_are_kept_but_match_nothing_unless_asked(tmp_path: Path) -> None:
    store = EventStore(tmp_path)
    store.add(lvk("2023-05-18T13:00:00Z", superevent_id="MS230518a"))
    with pytest.raises(CatalogError, match="test or simulated"):
        find_skymap("MS230518a", tmp_path)
    assert store.skymap("MS230518a", allow_test=True).event == "ms230518a"


def test_a_combined_map_is_kept_beside_the_other(tmp_path: Path) -> None:
    external = {
        "gcn_notice_id": 1,
        "ivorn": "ivo://x",
        "observatory": "Fermi",
        "search": "GRB",
        "time_difference": 2.0,
        "time_coincidence_far": 1e-9,
        "time_sky_position_coincidence_far": None,
        "combined_skymap": base64.b64encode(skymap_fits(skymap(9))).decode(),
    }
    store = EventStore(tmp_path)
    store.add(lvk("2023-05-18T13:00:00Z", external_coinc=external))
    store.add(lvk("2023-05-18T13:10:00Z", superevent_id="S2"))
    np.testing.assert_array_equal(
        store.skymap("S230518h", combined=True).density_per_deg2,
        parse_skymap(skymap_fits(skymap(9)), "x").density_per_deg2,
    )
    assert store.skymap("S230518h").digest != store.skymap("S230518h", combined=True).digest
    with pytest.raises(CatalogError, match="no combined"):
        store.skymap("S2", combined=True)


# ------------------------------------------------------------------------------------------- what goes wrong
def test_a_bad_notice_leaves_nothing(tmp_path: Path) -> None:
    store = EventStore(tmp_path / "d")
    for data in (b"nothing", as_json(alert())):  # the map of the second is no map
        with pytest.raises(CatalogError, match=r"bad\.json"):
            store.add(data, "bad.json")
    several = as_json([json.loads(CHAIN[0]), {"superevent_id": "S1"}])
    with pytest.raises(CatalogError):
        store.add_all(several)
    assert not (tmp_path / "d").exists()


def test_a_kill_between_two_files_loses_no_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every place at which an insertion can be cut: the versions before are all there, and adding again mends."""
    whole = EventStore(tmp_path / "whole")
    for data in CHAIN:
        whole.add(data, "n.json")
    wanted = state(tmp_path / "whole")
    for stop in range(1, 6):
        root = tmp_path / str(stop)
        store = EventStore(root)
        for data in CHAIN[1:]:
            store.add(data, "n.json")
        before = {item.digest for item in store.versions("s230518h")}
        _kill_after(monkeypatch, stop)
        try:
            store.add(CHAIN[0], "n.json")
        except KeyboardInterrupt:
            assert before <= {item.digest for item in store.versions("s230518h")}
        monkeypatch.undo()
        store.add(CHAIN[0], "n.json")
        assert state(root) == wanted


def _kill_after(monkeypatch: pytest.MonkeyPatch, writes: int) -> None:
    from pipeline.store import Root

    write, left = Root.write_bytes, [writes]

    def cut(self: Root, relative: str, data: bytes) -> None:
        if relative.startswith("events/"):
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
        write(self, relative, data)

    monkeypatch.setattr(Root, "write_bytes", cut)


def _add(root: str, data: bytes) -> None:
    EventStore(root).add(data, "n.json")


def test_two_processes_may_add_at_once(tmp_path: Path) -> None:
    chain = [lvk(f"2023-05-18T13:{minute:02d}:00Z", seed=1) for minute in range(6)]
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_add, args=(str(tmp_path), data)) for data in chain]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert [item.event.created_utc[14:16] for item in EventStore(tmp_path).versions("s230518h")] == [
        f"{minute:02d}" for minute in range(6)
    ]


def test_damage_is_told(tmp_path: Path) -> None:
    store = EventStore(tmp_path)
    store.add(CHAIN[0])
    (fits,) = (tmp_path / "events/s230518h").glob("*.fits")
    data = fits.read_bytes()
    fits.write_bytes(data[:-1] + b"x")
    with pytest.raises(CatalogError, match="damaged"):
        store.skymap("S230518h")
    fits.unlink()
    with pytest.raises(CatalogError, match="cannot be read"):
        store.skymap("S230518h")
    (tmp_path / "events/s230518h/v001.json").write_text("{}")
    with pytest.raises(StoreError, match=r"v001\.json"):
        store.versions("S230518h")


@pytest.mark.parametrize("name", ["../x", "/etc", "", "..", "*", "a/b"])
def test_no_name_leaves_the_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x/v001.json").write_text("{}")
    store = EventStore(tmp_path)
    assert store.versions(name) == ()
    with pytest.raises(CatalogError, match="no event"):
        store.skymap(name)


# ------------------------------------------------------------------------------------------- circles
def test_an_error_circle_becomes_a_map_that_holds_what_it_says(tmp_path: Path) -> None:
    store = EventStore(tmp_path)
    store.add(voevent("nasa.gsfc.gcn/AMON#ICECUBE_GOLD_x", {"run_id": "1", "event_id": "2", "src_error_90": "2.0"}))
    found = store.skymap("icecube1_2")
    assert region_area_deg2(found, 0.9) == pytest.approx(np.pi * 4, rel=0.02)
    assert found.event_mjd == pytest.approx(Time("2022-08-07T06:53:05.16", scale="utc").tai.mjd, abs=1e-11)
    store.add(voevent("nasa.gsfc.gcn/Fermi#GBM_Gnd_Pos_x", {"TrigID": "7"}, radius="5"))
    gbm = store.skymap("gbm7")
    both = np.hypot(5.0, 4.05)
    area = 41252.96 / 2 * (1 - np.cos(np.radians(both)))
    assert region_area_deg2(gbm, 0.68) == pytest.approx(area, rel=0.02)


def test_a_coarser_notice_does_not_undo_a_finer_one(tmp_path: Path) -> None:
    swift = "nasa.gsfc.gcn/SWIFT#"
    store = EventStore(tmp_path)
    store.add(
        voevent(
            f"{swift}XRT_Pos_7",
            {"TrigID": "7"},
            radius="0.0016",
            time="2022-08-07T07:00:00",
            date="2022-08-07T07:01:00",
        )
    )
    alone = store.located("swift7")
    assert alone.event.stream == "swift-xrt"
    assert store.skymap("swift7").event_mjd is None
    store.add(voevent(f"{swift}BAT_GRB_Pos_7", {"TrigID": "7"}, radius="0.05", date="2022-08-07T06:54:00"))
    store.add(voevent(f"{swift}BAT_Trans_Pos_7", {"TrigID": "7"}, radius="0.04", date="2022-08-07T07:30:00"))
    best = store.located("swift7")
    assert (best.event.stream, best.version) == ("swift-xrt", 2)
    # XRT tells when it observed; the burst was when BAT triggered
    assert store._trigger_mjd(best) == pytest.approx(float(utc_to_tai(Time("2022-08-07T06:53:05.16").mjd)), abs=1e-9)


def test_a_notice_that_only_names_its_map_says_where_it_is(tmp_path: Path) -> None:
    store = EventStore(tmp_path)
    told = {"GraceID": "S200302c", "AlertType": "Preliminary", "skymap_fits": "https://example.org/b.fits"}
    store.add(voevent("nasa.gsfc.gcn/LVC#S200302c-1", told))
    with pytest.raises(CatalogError, match=r"example\.org/b\.fits.*=FILE"):
        store.skymap("S200302c")


# ------------------------------------------------------------------------------------------- finding
def test_files_come_before_events_and_pairs_name_the_event(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = EventStore(tmp_path)
    store.add(CHAIN[0])
    file = tmp_path / "map.fits"
    file.write_bytes(skymap_fits(skymap(5)))
    assert find_event(file)[1] is None
    assert find_skymap(str(file), event="other").event == "other"
    assert find_skymap(f"Mine={file}", tmp_path).event == "mine"
    found, event = find_event("S230518h", tmp_path)
    assert event is not None and event.version == 1 and found.event == "s230518h"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "S230518h").write_bytes(skymap_fits(skymap(5)))
    assert find_event("S230518h", tmp_path)[1] is None
    for root in (None, tmp_path):
        with pytest.raises(CatalogError, match="neither a file nor an event"):
            find_event("S1", root)
    with pytest.raises(CatalogError, match="cannot be read"):
        find_event("S1=nowhere.fits", tmp_path)


@pytest.mark.parametrize("is_3d", [True, False])
def test_a_map_written_and_read_is_the_same_map(is_3d: bool) -> None:
    made = skymap(3, is_3d=is_3d)
    # odd intervals, that no single cell covers
    split = make_skymap(
        "s1", 60082.5, made.start, made.stop, np.full(len(made.start), 1 / 41252.96124941927), source="x"
    )
    for one in (made, split):
        data = skymap_fits(one)
        assert data == skymap_fits(one)
        back = parse_skymap(data)
        np.testing.assert_array_equal(back.start, one.start)
        np.testing.assert_array_equal(back.stop, one.stop)
        np.testing.assert_allclose(back.density_per_deg2, one.density_per_deg2, rtol=1e-14)
        assert back.event_mjd == pytest.approx(one.event_mjd, abs=1e-9)
        assert back.has_distance == one.has_distance


def test_odd_intervals_are_cut_into_the_largest_cells() -> None:
    whole = 12 << 58
    start = np.array([0, 5, 1 << 40], dtype=np.int64)
    stop = np.array([5, 1 << 40, whole], dtype=np.int64)
    density = np.full(3, 1 / 41252.96124941927) * [1.0, 1 - 1e-9, 1 + 1e-9]
    made = make_skymap("s1", None, start, stop, density)
    from astropy.io import fits

    data = skymap_fits(made)
    back = parse_skymap(data)
    np.testing.assert_array_equal(back.start, start)
    np.testing.assert_array_equal(back.stop, stop)
    import io

    cells = fits.open(io.BytesIO(data))[1].data["UNIQ"]
    assert len(cells) < 3 * 4 * 30 and len(set(cells.tolist())) == len(cells)
    assert to_uniq(0, [11])[0] in cells


# ------------------------------------------------------------------------------------------- the command
def test_the_command_adds_lists_shows_and_exports(tmp_path: Path) -> None:
    files = []
    for number, data in enumerate(CHAIN[:2]):
        files.append(tmp_path / f"{number}.json")
        files[-1].write_bytes(data)
    root = ["--root", str(tmp_path / "d")]

    def told(*arguments: object) -> Any:
        done = CliRunner().invoke(command, [*map(str, arguments), *root, "--json"], catch_exceptions=False)
        assert done.exit_code == 0
        return json.loads(done.output)

    added = told("add", *files, files[0])
    assert [(item["name"], item["version"], item["is_new"]) for item in added] == [
        ("s230518h", 1, True),
        ("s230518h", 2, True),
        ("s230518h", 1, False),
    ]
    (listed,) = told("list")
    assert (listed["version"], listed["status"], listed["where"]) == (2, "initial", "sky map")
    assert listed["time_utc"] == "2023-05-18T12:59:08.167Z"
    assert [item["version"] for item in told("show", "S230518h")] == [1, 2]
    out = tmp_path / "out.fits"
    exported = told("export", "S230518h", "--version", 1, "--out", out)
    assert out.read_bytes() == skymap_fits(skymap(1)) and exported["area_90_deg2"] > 0
    plain = CliRunner().invoke(command, ["list", *root])
    assert plain.output.count("\n") == 1 and "s230518h" in plain.output
    assert "0.9" in CliRunner().invoke(command, ["show", "S230518h", *root]).output
    for arguments in (["add", "nowhere.json"], ["show", "S1"], ["export", "S1", "--out", str(out)]):
        with pytest.raises(InputError):
            CliRunner().invoke(command, [*arguments, *root], catch_exceptions=False)
