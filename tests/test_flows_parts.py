"""What the flows are made of, without a Prefect server: alarms, environment, which night is due."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from click.testing import CliRunner

from flows.alarm import ALARM_FILE, Alarm, raise_alarm
from flows.environment import prepare_environment
from flows.serve import check_inbox
from pipeline import config
from pipeline.cli.serve import command as serve
from pipeline.errors import InputError, StoreError
from pipeline.surveys import SURVEYS
from pipeline.surveys import get as get_survey


# ------------------------------------------------------------------------------------------------ alarms
def test_an_alarm_is_one_line_in_the_archive_and_in_every_file(tmp_path: Path) -> None:
    for night in ("20240115", None):
        alarm = Alarm.now("ztf", night, "failed", "part-1: two\nlines", str(tmp_path / "d"))
        assert raise_alarm(alarm, [f"file:{tmp_path}/deep/told"]) == []
    kept = [json.loads(line) for line in (tmp_path / "d" / ALARM_FILE).read_text().splitlines()]
    assert [entry["night"] for entry in kept] == ["20240115", None]
    assert all(set(entry) == {"survey", "night", "what", "message", "root", "when"} for entry in kept)
    assert (tmp_path / "deep" / "told").read_text() == (tmp_path / "d" / ALARM_FILE).read_text()


def test_an_alarm_that_fails_is_told_and_the_others_go_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOT_SET", raising=False)
    monkeypatch.setenv("PASSWORD", "s3cret")
    (tmp_path / "file").touch()
    alarm = Alarm.now("lsst", "20260309", "missing", "no dump", str(tmp_path / "file" / "root"))
    targets = [
        "http://127.0.0.1:9/${PASSWORD}",
        "https://${NOT_SET}/",
        f"file:{tmp_path}/${{PASSWORD}}",
        "http://127.0.0.1:x/",
    ]
    problems = raise_alarm(alarm, targets)
    assert len(problems) == 4
    assert "Not a directory" in problems[0] or "File exists" in problems[0]
    assert problems[1] == "alarm to http://127.0.0.1:9/${PASSWORD} failed: ConnectError"
    assert "'NOT_SET' is not set" in problems[2]
    assert "InvalidURL" in problems[3]
    assert json.loads((tmp_path / "s3cret").read_text())["what"] == "missing"
    assert "s3cret" not in " ".join(problems)


def test_a_dollar_in_the_path_of_the_archive_is_a_dollar(tmp_path: Path) -> None:
    root = tmp_path / "$HOME ${X}"
    assert raise_alarm(Alarm.now("ztf", None, "failed", "x", str(root)), []) == []
    assert (root / ALARM_FILE).is_file()


def test_alarm_targets_are_checked_when_the_settings_are_read() -> None:
    settings, origins = config.load(environment={"ALERTMILL_ALARM": "file:/var/a,https://hooks.example/${TOKEN}"})
    assert settings.alarm == ("file:/var/a", "https://hooks.example/${TOKEN}")
    assert origins["alarm"] == "environment ALERTMILL_ALARM"
    with pytest.raises(InputError, match="an alarm goes to"):
        config.load({"alarm": ("mailto:someone",)}, environment={})


# ------------------------------------------------------------------------------------------------ nights that are over
@pytest.mark.parametrize(
    ("survey", "when", "night"),
    [
        ("ztf", "2024-01-15T18:00", 20240115),  # Palomar observes from about 2 to 14 h UTC of the date
        ("ztf", "2024-01-15T14:59", 20240114),
        ("ztf", "2024-01-01T06:00", 20231231),
        ("lsst", "2026-03-10T18:00", 20260309),  # a Rubin night ends at noon of the next date
        ("lsst", "2026-03-10T11:59", 20260308),
        ("lsst", "2024-03-01T12:00", 20240229),
        ("elasticc_v1", "2026-03-10T18:00", 20260309),
    ],
)
def test_the_last_night_that_is_over(survey: str, when: str, night: int) -> None:
    moment = datetime.fromisoformat(when).replace(tzinfo=UTC)
    assert get_survey(survey).last_night(moment) == night
    assert get_survey(survey).last_night(moment.astimezone(timezone(timedelta(hours=-7)))) == night


@pytest.mark.parametrize("survey", sorted(SURVEYS))
def test_every_day_has_its_own_last_night(survey: str) -> None:
    start = datetime(2026, 12, 25, 18, tzinfo=UTC)
    nights = [get_survey(survey).last_night(start + timedelta(days=day)) for day in range(20)]
    assert len(set(nights)) == 20
    assert nights == sorted(nights)


# ------------------------------------------------------------------------------------------------ environment, schedule
def test_the_environment_sends_nothing_and_keeps_what_the_user_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        os,
        "environ",
        {
            "XDG_CACHE_HOME": str(tmp_path),
            "NO_PROXY": "example.org",
            "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "500",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "true",
        },
    )
    assert prepare_environment(quiet=True) == tmp_path / "alertmill" / "prefect"
    assert (tmp_path / "alertmill" / "prefect").is_dir()
    assert os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false", "nothing is sent, whatever was set"
    assert os.environ["DO_NOT_TRACK"] == "1"
    assert os.environ["PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS"] == "500"
    assert os.environ["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] == "CRITICAL"
    assert os.environ["NO_PROXY"] == "example.org,127.0.0.1,localhost"


def test_a_home_that_cannot_be_made_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(os, "environ", {"PREFECT_HOME": str(tmp_path / "file" / "home")})
    with pytest.raises(StoreError, match="cannot be made: Not a directory; set PREFECT_HOME"):
        prepare_environment(quiet=True)


def test_an_inbox_says_where_the_night_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert check_inbox("in/ztf_public_{night}.tar.gz") == str(tmp_path / "in" / "ztf_public_{night}.tar.gz")
    with pytest.raises(InputError, match=r"does not say where the night stands; write \{night\} in it"):
        check_inbox("in/ztf_public_20240115.tar.gz")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--inbox", "a.tar", "--cron", "0 18 * * *"], "does not say where the night stands"),
        (["--inbox", "{night}.tar", "--cron", "0 18 * * *"], "a schedule needs a running Prefect server"),
        (["--inbox", "{night}.tar", "--cron", "0 18 * * *", "--survey", "sdss"], "sdss"),
    ],
)
def test_what_cannot_be_served_is_said_before_anything_starts(
    options: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "environ", {"PREFECT_HOME": str(tmp_path)})
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(serve, options)
    assert isinstance(result.exception, InputError)
    assert told in str(result.exception)


def test_serve_help_has_an_example() -> None:
    text = CliRunner().invoke(serve, ["--help"]).output
    assert "Example:" in text
    assert '--cron "0 18 * * *"' in text
