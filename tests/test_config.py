"""One configuration: defaults, file, environment, options; each value knows its origin."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.config import Config, load
from pipeline.errors import InputError


def test_the_last_origin_wins_and_is_told(tmp_path: Path) -> None:
    file = tmp_path / "night.toml"
    file.write_text('root = "file"\nsurvey = "lsst"\ncatalogs = ["gcvs"]\n[execution]\nworkers = 3\nmode = "serial"\n')
    environment = {"ALERTMILL_SURVEY": "ztf", "ALERTMILL_EXECUTION__WORKERS": "5", "HOME": "/"}
    settings, origins = load({"execution.workers": 7, "root": None}, file=file, environment=environment)
    assert (settings.root, settings.survey, settings.execution.workers) == ("file", "ztf", 7)
    assert (settings.execution.mode, settings.catalogs, settings.cut) == ("serial", ("gcvs",), None)
    assert origins["root"] == "file night.toml"
    assert origins["survey"] == "environment ALERTMILL_SURVEY"
    assert origins["execution.workers"] == "option"
    assert origins["cut"] == "default"
    assert load({}, environment={})[0] == Config()


def test_lists_in_the_environment_are_parted_by_commas() -> None:
    assert load(environment={"ALERTMILL_CATALOGS": "gcvs,vsx=/c/vsx"})[0].catalogs == ("gcvs", "vsx=/c/vsx")
    assert load(environment={"ALERTMILL_MODELS": ""})[0].models == ()


@pytest.mark.parametrize(
    ("text", "environment", "told"),
    [
        ("rooot = 'x'", {}, r"setting rooot \(file night.toml\).*known settings: alarm"),
        ("root = ", {}, "cannot be read"),
        ("[part]\nmax_alerts = 0", {}, r"setting part.max_alerts \(file night.toml\)"),
        ("", {"ALERTMILL_EXECUTION__MODE": "threads"}, r"execution.mode \(environment ALERTMILL_EXECUTION__MODE\)"),
        ("", {"ALERTMILL_RELEAS": "x"}, "ALERTMILL_RELEAS names no setting"),
    ],
)
def test_a_wrong_setting_is_one_line_with_its_origin(
    text: str, environment: dict[str, str], told: str, tmp_path: Path
) -> None:
    file = tmp_path / "night.toml"
    file.write_text(text)
    with pytest.raises(InputError, match=told) as caught:
        load(file=file, environment=environment)
    assert len(str(caught.value).splitlines()) == 1


def test_a_named_file_must_exist() -> None:
    with pytest.raises(InputError, match="does not exist"):
        load(file="nowhere.toml", environment={})
