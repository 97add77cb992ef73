"""What the documents say is run: commands, Python, links, the page of columns, the settings."""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import click
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

import pipeline
from pipeline import catalogs
from pipeline import config as configuration
from pipeline.cli import cli
from pipeline.config import Config, Execution
from pipeline.nights import drive
from pipeline.nights.run import prepare
from pipeline.simulation import simulate

ROOT = Path(__file__).parents[1]
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
NIGHT = 20240212
CATALOGS = ("sim_agn", "sim_galaxies", "sim_variables")


def blocks() -> list[tuple[str, str, str]]:
    """Every block marked runnable: (document and number, language, text)."""
    found = []
    for document in DOCUMENTS:
        marked = re.findall(r"^```(\w+) runnable\n(.*?)^```$", document.read_text(), re.M | re.S)
        found += [(f"{document.name}-{n}", language, text) for n, (language, text) in enumerate(marked, 1)]
    return found


BLOCKS = blocks()


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like the one that ``make run`` leaves, with fewer alerts."""
    here = tmp_path_factory.mktemp("docs")
    sky, data = here / "sample" / str(NIGHT), here / "sample" / "data"
    made = simulate(NIGHT, "ztf", 400, 1, sky)
    for name in CATALOGS:
        file = sky / "catalogs" / f"{name}.parquet"
        catalogs.build(catalogs.get_declaration(name), file, data / "catalogs" / name)
    settings = Config(
        root=str(data),
        catalogs=("sim_galaxies", "sim_variables", "sim_agn"),
        skymaps=(f"{made.event}={made.skymap}",),
        execution=Execution(mode="serial"),
    )
    outcome = drive.run_direct(prepare(settings, [str(made.dump)], night=NIGHT))
    assert outcome.ledgers[NIGHT]["counts"]["written"] == 400
    return here


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ALERTMILL_")}
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment["PATH"]])
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


@pytest.fixture
def docs_script(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Import a script of docs/."""
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    return importlib.import_module


def test_there_are_blocks_to_run_in_both_languages() -> None:
    assert {language for _, language, _ in BLOCKS} == {"bash", "python"}
    assert len(BLOCKS) >= 10


@pytest.mark.xdist_group("docs")
@pytest.mark.parametrize(("language", "text"), [block[1:] for block in BLOCKS], ids=[block[0] for block in BLOCKS])
def test_a_runnable_block_runs(sample: Path, language: str, text: str) -> None:
    command = ["bash", "-euo", "pipefail", "-c", text] if language == "bash" else [sys.executable, "-c", text]
    done = run(command, sample)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_every_shell_block_uses_commands_that_exist() -> None:
    known = set(cli.list_commands(click.Context(cli)))
    used = set()
    for document in DOCUMENTS:
        for text in re.findall(r"^```bash[^\n]*\n(.*?)^```$", document.read_text(), re.M | re.S):
            used |= set(re.findall(r"^alertmill ([a-z]+)", text, re.M))
    assert used <= known
    assert {"run", "status", "verify", "serve"} <= used


@pytest.mark.xdist_group("docs")
def test_the_sample_summary_counts_what_is_true(sample: Path, docs_script: Callable[[str], ModuleType]) -> None:
    summary = docs_script("sample_summary")
    archive = pipeline.open(str(sample / "sample/data"))
    truth = summary.read_truth(sample / f"sample/{NIGHT}/truth.parquet")
    rows = {row.what: row for row in summary.look(archive, NIGHT, truth)}
    # counted anew, in Arrow and without a join
    science = archive.science(NIGHT, where=pc.field("filter_supernova_candidate")).to_arrow()
    real = pq.read_table(sample / f"sample/{NIGHT}/truth.parquet")
    supernovae = real.filter(pc.is_in(real["class"], pa.array(["sn_ia", "sn_core_collapse", "slsn", "pisn"])))
    found = rows["supernova candidates"]
    assert found.found == science.num_rows > 0
    assert found.true == pc.sum(pc.is_in(science["alert_id"], supernovae["alert_id"].combine_chunks())).as_py()
    assert found.existing == supernovae.num_rows
    streaks = rows["satellite streaks"]
    assert streaks.true == streaks.found == len(set(archive.links(NIGHT).to_arrow()["link_id"].to_pylist()))
    arguments = ["sample/data", str(NIGHT), f"sample/{NIGHT}/truth.parquet"]
    done = run([sys.executable, str(ROOT / "docs/sample_summary.py"), *arguments], sample)
    assert done.returncode == 0, done.stderr
    last = done.stdout.rstrip().splitlines()[-1]
    assert last == f"report: sample/data/reports/ztf/{NIGHT}/index.html"
    assert "400 packets in = 400 written + 0 duplicates" in done.stdout


@pytest.mark.xdist_group("docs")
def test_the_picture_can_be_drawn_and_the_one_shown_is_small(sample: Path) -> None:
    arguments = ["sample/data", str(NIGHT), f"sample/{NIGHT}/truth.parquet", "drawn.png"]
    done = run([sys.executable, str(ROOT / "docs/sample_picture.py"), *arguments], sample)
    assert done.returncode == 0, done.stderr
    for picture in (sample / "drawn.png", ROOT / "docs/sample_night.png"):
        assert picture.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
        assert picture.stat().st_size < 300_000


def test_the_page_of_datasets_is_current(docs_script: Callable[[str], ModuleType]) -> None:
    script = docs_script("write_datasets")
    assert script.PAGE.read_text() == script.page(), "run: python docs/write_datasets.py"


def test_the_page_of_datasets_names_every_column_of_a_night(sample: Path) -> None:
    page = (ROOT / "docs/datasets.md").read_text()
    archive = pipeline.open(str(sample / "sample/data"))
    patterns = [
        (r"^feat_[ugrizy]_(?!minus_)", "feat_<band>_"),
        (r"^skymap_s240212ch_", "skymap_<event>_"),
        (r"^xm_sim_(agn|galaxies|variables)_", "xm_<catalog>_"),
        (r"^is_sim_(agn|galaxies|variables)_", "is_<catalog>_"),
    ]
    declared = {
        f"xm_{name}_{column.name}" for name in CATALOGS for column in catalogs.get_declaration(name, ()).columns
    }
    missing = []
    for selection in (archive.science(), archive.alerts(), archive.links(), archive.exposures(), archive.rejects()):
        for column in set(selection.schema.names) - declared - {"night"}:
            name = column
            for pattern, told in patterns:
                name = re.sub(pattern, told, name)
            if f"`{name}`" not in page:
                missing.append(column)
    assert missing == []


def test_the_example_settings_are_the_defaults_and_name_every_setting() -> None:
    text = (ROOT / "docs/alertmill.toml").read_text()
    given = configuration.flatten(tomllib.loads(text))
    defaults = configuration.flatten(json.loads(Config().model_dump_json()))
    assert given == {name: value for name, value in defaults.items() if name in given}
    unset = {name for name, value in defaults.items() if value is None}
    assert set(given) | unset == set(defaults)
    uncommented = re.sub(r"^# (\w+ = )", r"\1", text, flags=re.M)
    settings = Config.model_validate(tomllib.loads(uncommented))
    assert all(configuration.flatten(settings.model_dump())[name] is not None for name in unset)


def leaves(group: click.Group, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], click.Command]]:
    """Every command, those of groups after their group."""
    found: list[tuple[tuple[str, ...], click.Command]] = []
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        found.append(((*path, name), command))
        if isinstance(command, click.Group):
            found += leaves(command, (*path, name))
    return found


def test_every_command_helps_with_an_example_and_every_option_with_a_word() -> None:
    for path, command in leaves(cli):
        told = command.get_help(click.Context(command, info_name=" ".join(path)))
        assert "Example" in told, path
        assert f"alertmill {' '.join(path)}" in told, path
        options = [option for option in command.params if isinstance(option, click.Option)]
        assert all(option.help for option in options), path


def test_every_command_is_told_of_in_the_documents() -> None:
    told = "\n".join(document.read_text() for document in DOCUMENTS)
    missing = [path for path, _ in leaves(cli) if f"alertmill {' '.join(path)}" not in told]
    assert missing == []


def test_every_make_target_that_is_named_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    named = {
        name
        for document in DOCUMENTS
        for name in re.findall(r"(?:^|`)make ([a-z]+)", document.read_text(), re.M)
    }  # fmt: skip
    assert named <= targets
    assert {"run", "test", "check"} <= named


def test_links_lead_somewhere() -> None:
    broken = []
    for document in DOCUMENTS:
        for target in re.findall(r"\]\(([^)#\s]+)", document.read_text()):
            if not target.startswith(("https://", "http://")) and not (document.parent / target).exists():
                broken.append(f"{document.name}: {target}")
    assert broken == []


def test_files_that_are_named_exist() -> None:
    missing = []
    for document in DOCUMENTS:
        for name in re.findall(
            r"`((?:docs|pipeline|tests|catalogs|notebooks|flows)/[a-z0-9_./]+)`", document.read_text()
        ):
            if not (ROOT / name).exists():
                missing.append(f"{document.name}: {name}")
    assert missing == []


def test_the_readme_is_short_and_starts_with_what_it_does() -> None:
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) < 200
    assert lines[0] == "# alertmill"
    assert any(line.startswith("![") for line in lines[:12])


@pytest.mark.skipif(shutil.which("make") is None, reason="no make")
def test_make_run_does_what_the_documents_repeat(sample: Path) -> None:
    """The commands of ``make run``, as make would give them, are the ones the README shows."""
    done = subprocess.run(["make", "-n", "run", "SAMPLE=sample"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert f"simulate {NIGHT} --survey ztf --alerts 2000 --seed 1 --out sample/{NIGHT}" in done.stdout
    assert "--catalog sim_galaxies --catalog sim_variables --catalog sim_agn" in done.stdout
    assert "docs/sample_summary.py sample/data" in done.stdout
    readme = (ROOT / "README.md").read_text()
    assert "--catalog sim_galaxies --catalog sim_variables --catalog sim_agn" in readme


def test_the_table_of_layers_names_every_module() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    modules = {
        path.stem for path in (ROOT / "pipeline").iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()
    }
    missing = [name for name in modules - {"__init__"} if f"`{name}`" not in text and f"`{name}/`" not in text]
    assert missing == []
