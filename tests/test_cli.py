"""The command line as its user meets it: exit codes, one clear line for bad input, JSON, speed, interruption."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fastavro
import pytest
import ztf_packets as ztf

from pipeline.cli import main
from pipeline.surveys.superset import known_schemas

NIGHT = 20181129
BASE = 697_251_920_015_000_000
QUICK = ("--serial", "--direct", "--no-report")


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No settings but those of a test: an empty working folder, no variable."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("ALERTMILL_")]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive of one night, and its dump beside it."""
    folder = tmp_path_factory.mktemp("cli")
    dump = ztf.night_tar(folder / "a.tar", [BASE + i for i in range(6)])
    with pytest.raises(SystemExit) as ended, contextlib.redirect_stdout(io.StringIO()):
        main(["run", str(NIGHT), "--input", str(dump), "--root", str(folder / "data"), "--serial", "--direct"])
    assert ended.value.code == 0
    return folder


def call(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a command, in this process."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    assert isinstance(ended.value.code, int)
    return ended.value.code, out, err


def told(err: str) -> str:
    """The one line that says what is wrong; progress may stand before it."""
    assert "Traceback" not in err
    lines = [line for line in err.splitlines() if line.startswith("alertmill: ")]
    assert len(lines) == 1, err
    assert err.splitlines()[-1] == lines[0]
    return lines[0]


# --------------------------------------------------------------------------------------------------- bad input
def wire(path: Path) -> Path:
    """A message in wire format whose schema nobody has."""
    path.write_bytes(b"\0" + (999_999).to_bytes(4, "big") + b"\2" * 400)
    return path


def foreign(path: Path, **more: Any) -> Path:
    """A packet with a field that no version of the survey's schema has."""
    schema: Any = copy.deepcopy(known_schemas("ztf")["4.02"])
    schema["fields"].append({"name": "fieldOfTomorrow", "type": ["null", "double"], "default": None})
    with path.open("wb") as file:
        fastavro.writer(file, fastavro.parse_schema(schema), [{**ztf.record(BASE), "fieldOfTomorrow": 1.5}])
    return path


def cut(path: Path, mode: str) -> Path:
    """A dump that ends too early."""
    whole = ztf.night_tar(path, [BASE + i for i in range(8)], mode=mode).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    return path


def good(folder: Path) -> Path:
    return ztf.night_tar(folder / "good.tar", [BASE, BASE + 1])


def newer(folder: Path) -> Path:
    (folder / "newer").mkdir()
    (folder / "newer/root.json").write_text('{"layout": 99}')
    return folder / "newer"


def file(folder: Path) -> Path:
    (folder / "file").write_text("x")
    return folder / "file"


def settings(folder: Path, text: str) -> Path:
    (folder / "night.toml").write_text(text)
    return folder / "night.toml"


Arguments = Callable[[Path], list[object]]
BAD: dict[str, tuple[Arguments, tuple[str, ...]]] = {
    "missing file": (lambda t: ["--input", t / "nowhere.tar"], ("nowhere.tar does not exist",)),
    "malformed night": (lambda t: ["20181399", "--input", good(t)], ("'20181399' is not a night", "YYYYMMDD")),
    "absent night": (lambda t: ["20181130", "--input", good(t)], ("20181130", "it holds 20181129 (2 packets)")),
    "truncated tar": (lambda t: ["--input", cut(t / "cut.tar", "w")], ("cut.tar", "archive is cut")),
    "truncated tar.gz": (lambda t: ["--input", cut(t / "cut.tar.gz", "w:gz")], ("cut.tar.gz", "cut")),
    "no dump at all": (lambda t: ["--input", file(t)], ("no known kind", ".tar.gz")),
    "empty file": (lambda t: ["--input", Path("/dev/null")], ("/dev/null",)),
    "unknown schema id": (lambda t: ["--input", wire(t / "w.avro")], ("999999", "not known")),
    "unknown schema id of Rubin": (lambda t: ["--survey", "lsst", "--input", wire(t / "w.avro")], ("999999",)),
    "unknown field": (lambda t: ["--input", foreign(t / "f.avro")], ("fieldOfTomorrow",)),
    "root under proc": (lambda t: ["--input", good(t), "--root", "/proc/alertmill"], ("/proc/alertmill",)),
    "root is a file": (lambda t: ["--input", good(t), "--root", file(t)], ("is a file, not a folder",)),
    "newer root": (lambda t: ["--input", good(t), "--root", newer(t)], ("layout 99", "newer alertmill")),
    "object store": (lambda t: ["--input", good(t), "--root", "s3://b/x"], ("not supported yet",)),
    "absent catalog": (lambda t: ["--input", good(t), "--catalog", "gcvs"], ("gcvs", "no built catalog")),
    "absent sky map": (lambda t: ["--input", good(t), "--skymap", "S1=none.fits"], ("none.fits",)),
    "sky map without file": (lambda t: ["--input", good(t), "--skymap", "S1"], ("EVENT=FILE",)),
    "absent model": (lambda t: ["--input", good(t), "--model", "nova"], ("nova",)),
    "unknown survey": (lambda t: ["--input", good(t), "--survey", "atlas"], ("'atlas'", "ztf, lsst")),
    "unknown setting": (lambda t: ["--input", good(t), "--config", settings(t, "wokers = 3")], ("wokers", "known")),
    "wrong setting": (lambda t: ["--input", good(t), "--config", settings(t, "max_rejects = 7")], ("max_rejects",)),
    "damaged settings": (lambda t: ["--input", good(t), "--config", settings(t, "root =")], ("night.toml",)),
    "absent settings": (lambda t: ["--input", good(t), "--config", "no.toml"], ("no.toml", "does not exist")),
    "bad cut": (lambda t: ["--input", good(t), "--cut", "rb ~ 3"], ("not understood",)),
    "bad release": (lambda t: ["--input", good(t), "--release", "../x"], ("release",)),
    "absent schemas": (lambda t: ["--input", wire(t / "w.avro"), "--schemas", "nowhere"], ("nowhere",)),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gives_one_clear_line_and_exit_code_2(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make, words = BAD[case]
    arguments = ["run", *make(tmp_path), *QUICK]
    code, out, err = call(capsys, *arguments, *([] if "--root" in arguments else ["--root", tmp_path / "data"]))
    line = told(err)
    assert code == 2, line
    assert all(word in line for word in words), line
    assert not out.strip()
    left = [path for path in (tmp_path / "data").rglob("*") if path.is_file() and path.name != "root.json"]
    assert left == [], "nothing half-written"
    assert not (tmp_path / "s3:").exists()


def test_wrong_options_are_told_with_the_usage(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["run"], ["nonsense"], ["status", "--nonsense"], ["config", "nonsense"]):
        code, _, err = call(capsys, *arguments)
        assert code == 2
        assert "Usage:" in err and "Error:" in err


READING = {
    "status": ["status"],
    "verify": ["verify"],
    "report": ["report", str(NIGHT)],
    "train": ["models", "train", "supernova", "--truth", "none.parquet", "--out", "m", "--input", "d"],
    "card": ["models", "card", "nova"],
    "build": ["catalogs", "build", "gcvs", "none.parquet"],
    "unknown catalog": ["catalogs", "build", "nonsense", "none.parquet"],
    "info": ["catalogs", "info", "gcvs"],
    "verify catalog": ["catalogs", "verify", "gcvs"],
    "simulate": ["simulate", "20240212", "--alerts", "3", "--out", "sim"],
    "simulate night": ["simulate", "20241399", "--out", "sim"],
    "simulate version": ["simulate", "20240212", "--schema-version", "9", "--out", "sim"],
    "serve": ["serve", "--inbox", "dump.tar", "--cron", "0 18 * * *"],
}


@pytest.mark.parametrize("case", READING)
def test_the_other_commands_refuse_in_one_line_too(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = call(capsys, *READING[case])
    assert (code, out.strip()) == (2, "")
    assert told(err).count("\n") == 0
    assert not (tmp_path / "data").exists()


def test_reading_commands_name_a_night_or_survey_that_is_not_there(
    archive: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = ["--root", archive / "data"]
    assert "latest nights are: 20181129" in told(call(capsys, "report", "20181130", *root)[2])
    assert "atlas" in told(call(capsys, "status", "--survey", "atlas", *root)[2])
    code, out, _ = call(capsys, "status", "20181130", *root)
    assert (code, out.strip()) == (0, "20181130: missing")


# ------------------------------------------------------------------------------------------------------ exit codes
def test_a_night_with_too_many_bad_packets_is_exit_code_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    packets = [(f"{BASE + i}.avro", ztf.packet_bytes(ztf.record(BASE + i))) for i in range(120)]
    dump = ztf.write_tar(tmp_path / "a.tar", [(n, d[:150] if i < 9 else d) for i, (n, d) in enumerate(packets)])
    code, _, err = call(capsys, "run", NIGHT, "--input", dump, "--root", tmp_path / "data", *QUICK)
    assert code == 1
    assert "9 of 120 packets cannot be decoded" in told(err)
    code, _, _ = call(
        capsys, "run", NIGHT, "--input", dump, "--root", tmp_path / "data", "--max-rejects", "0.1", *QUICK
    )
    assert code == 0


def test_verify_finds_damage_and_is_exit_code_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = ["run", NIGHT, "--input", good(tmp_path), "--root", tmp_path / "data", *QUICK]
    assert call(capsys, *run)[0] == 0
    assert call(capsys, "verify", "--root", tmp_path / "data")[0] == 0
    (part,) = (tmp_path / "data/ztf/science").rglob("*.parquet")
    part.write_bytes(part.read_bytes()[:-9] + b"012345678")
    (tmp_path / "data/ztf/science/stray.parquet").touch()
    part.with_name("part-stray.parquet").write_bytes(b"x")
    code, out, _ = call(capsys, "verify", "--root", tmp_path / "data", "--json")
    kinds = {finding["kind"] for finding in json.loads(out)["findings"]}
    assert code == 1
    assert {"damaged", "stray"} <= kinds
    code, out, _ = call(capsys, "verify", "--root", tmp_path / "data", "--repair")
    assert code == 1
    assert f"alertmill run {NIGHT} --survey ztf --input <good.tar> --force" in out
    assert not part.with_name("part-stray.parquet").exists()
    assert call(capsys, *run, "--force")[0] == 0
    assert call(capsys, "verify", "--root", tmp_path / "data")[0] == 0


# ------------------------------------------------------------------------------------------------------------ JSON
def test_status_verify_run_and_report_print_one_json_document(
    archive: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = ["--root", archive / "data", "--json"]
    code, out, err = call(capsys, "status", *root)
    night = json.loads(out)["ztf"][str(NIGHT)]
    assert (code, err, night["packets_in"], night["written"]) == (0, "", 6, 6)
    assert night["bytes"]["science"] > 0
    assert json.loads(call(capsys, "status", NIGHT, *root)[1])["ztf"].keys() == {str(NIGHT)}
    checked = json.loads(call(capsys, "verify", *root)[1])
    assert checked["files"] >= 5 and checked["findings"] == []
    code, out, err = call(capsys, "run", NIGHT, "--input", archive / "a.tar", *QUICK, *root)
    again = json.loads(out)
    assert (code, err, again["up_to_date"]) == (0, "", True)
    assert again["nights"][str(NIGHT)]["counts"]["written"] == 6
    made = json.loads(call(capsys, "report", NIGHT, *root)[1])
    assert Path(made["page"]).is_file()
    assert made["alerts"] == 6


def test_a_run_prints_json_and_nothing_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["run", NIGHT, "--input", good(tmp_path), "--root", tmp_path / "data", *QUICK, "--json"]
    code, out, err = call(capsys, *arguments)
    done = json.loads(out)
    assert (code, err, done["up_to_date"], done["errors"]) == (0, "", False, {})
    assert done["nights"][str(NIGHT)]["counts"]["packets_in"] == 2
    assert len(done["changes"][str(NIGHT)]["added"]) == 1
    assert {"decode", "enrich", "finish"} <= {entry["stage"] for entry in done["timing"]}
    listed = json.loads(call(capsys, "catalogs", "list", "--json")[1])
    assert all(item["rows"] is None for item in listed)
    assert "supernova" in json.loads(call(capsys, "models", "list", "--json")[1])


def test_a_finished_night_says_so(archive: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in (archive / "data").rglob("*")}
    code, out, _ = call(capsys, "run", NIGHT, "--input", archive / "a.tar", "--root", archive / "data")
    assert code == 0
    assert out.strip() == f"ztf {NIGHT}: finished already, nothing written (--force does it again)"
    assert {path: path.stat().st_mtime_ns for path in (archive / "data").rglob("*")} == before


# -------------------------------------------------------------------------------------------------------- settings
def test_config_show_tells_where_each_value_is_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "alertmill.toml").write_text('root = "/archive"\nmax_rejects = 0.5\n[execution]\nworkers = 3\n')
    monkeypatch.setenv("ALERTMILL_EXECUTION__WORKERS", "5")
    shown = json.loads(call(capsys, "config", "show", "--json")[1])
    assert shown["root"] == {"value": "/archive", "origin": "file alertmill.toml"}
    assert shown["max_rejects"] == {"value": 0.5, "origin": "file alertmill.toml"}
    assert shown["execution.workers"] == {"value": 5, "origin": "environment ALERTMILL_EXECUTION__WORKERS"}
    assert shown["survey"] == {"value": "ztf", "origin": "default"}
    text = call(capsys, "config", "show")[1]
    assert "ALERTMILL_EXECUTION__WORKERS" in text and "file alertmill.toml" in text


def test_options_win_over_file_and_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "alertmill.toml").write_text('root = "from_file"\nreport = false\n')
    monkeypatch.setenv("ALERTMILL_ROOT", "from_environment")
    arguments = ["run", NIGHT, "--input", good(tmp_path), "--serial", "--direct"]
    assert call(capsys, *arguments, "--root", "from_option")[0] == 0
    assert call(capsys, *arguments)[0] == 0
    assert sorted(path.parent.name for path in tmp_path.glob("*/root.json")) == ["from_environment", "from_option"]
    assert not list(tmp_path.glob("*/reports"))


# ----------------------------------------------------------------------------------------- speed and interruption
def test_help_answers_within_half_a_second() -> None:
    """Best of five: the machine may be busy."""
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        command = [sys.executable, "-m", "pipeline.cli", "--help"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        seconds.append(time.perf_counter() - started)
        assert "alertmill run 20181129" in done.stdout
        if seconds[-1] < 0.5:
            break
    assert min(seconds) < 0.5


def test_help_imports_nothing_heavy() -> None:
    heavy = "{'numpy', 'pyarrow', 'dask', 'prefect', 'rich'}"
    code = f"import sys, pipeline.cli; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    from pipeline import __version__

    assert call(capsys, "--version")[:2] == (0, f"alertmill, version {__version__}\n")


@pytest.mark.parametrize("executor", [["--serial"], ["--workers", "1"]], ids=["serial", "dask"])
def test_an_interrupted_run_is_exit_code_130_and_goes_on_when_repeated(tmp_path: Path, executor: list[str]) -> None:
    dump = ztf.night_tar(tmp_path / "a.tar", [BASE + i for i in range(200)])
    root = tmp_path / "data"
    arguments = ["run", str(NIGHT), "--input", str(dump), "--root", str(root), "--direct", "--no-report", *executor]
    command = [sys.executable, "-m", "pipeline.cli", *arguments]
    environment = {**os.environ, "ALERTMILL_PART__MAX_ALERTS": "5"}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True)
    limit = time.monotonic() + 60
    while not list(root.glob("_staging/*/**/*.parquet")):
        assert process.poll() is None, "it ended before it was interrupted"
        assert time.monotonic() < limit
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the whole group
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert told(err) == "alertmill: interrupted; run the same command again to go on"
    assert not list(root.glob("ztf/ledger/*"))
    kept = list(root.glob("_staging/*/**/*.parquet"))
    assert kept, "finished parts are kept"
    done = subprocess.run([*command, "--json"], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["nights"][str(NIGHT)]["counts"]["written"] == 200
    assert not (root / "_staging").exists() and not (root / "_leases").exists()
