"""The project itself: what lies where, what it depends on, what is shipped, what its code may not do."""

from __future__ import annotations

import ast
import itertools
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from functools import cache
from pathlib import Path

import pytest

import pipeline

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCKS = ["requirements.lock", "requirements-setup.lock"]

TOP_LEVEL = {
    *("pyproject.toml", "Makefile", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE"),
    *("pipeline", "flows", "catalogs", "notebooks", "tests", "docs", ".ci", ".gitignore", *LOCKS),
}
OPTIONAL_TOP_LEVEL = {"prefect.yaml", ".gitattributes", ".editorconfig"}

MODULES = {
    **{"light-curve": "light_curve", "zlib-ng": "zlib_ng", "xgboost-cpu": "xgboost", "lsst-alert-packet": "lsst"},
    "ligo-skymap": "ligo",
}
"""Distributions whose module has another name."""

CONSTRAINTS = {"fastapi", "sqlalchemy"}
"""Required by Prefect; named only to keep out versions that it does not work with."""

NOT_YET_USED = {"fsspec", "s3fs", "moto"}
"""Object stores: declared for users and tests that have them in reach, imported by nothing yet."""

TOOLS = {"editables", "hatchling", "ipykernel", "mypy", "pytest", "pytest-timeout", "pytest-xdist", "ruff", "uv"}
"""Run, not imported."""


def tracked() -> list[str]:
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("not a git checkout")
    return [name for name in done.stdout.split("\0") if name and (ROOT / name).exists()]


def sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


# -------------------------------------------------------------------------------------------------- what lies where
def test_the_top_level_holds_what_was_agreed_and_nothing_else() -> None:
    found = {name.split("/")[0] for name in tracked()}
    assert found - OPTIONAL_TOP_LEVEL == TOP_LEVEL


def test_ci_runs_what_the_readme_says() -> None:
    script = ROOT / ".ci/run"
    assert os.access(script, os.X_OK)
    commands = [line for line in script.read_text().splitlines() if line.startswith("make ")]
    assert commands[0] == "make test"
    assert "make check" in commands


def test_no_path_of_a_machine_stands_in_a_tracked_file() -> None:
    pattern = re.compile("|".join(rf"(?<![\w.]){re.escape(f'/{name}/')}" for name in ("work", "root", "farm", "home")))
    found = []
    for name in tracked():
        data = (ROOT / name).read_bytes()
        if b"\0" in data[:4096]:
            continue
        lines = data.decode("utf-8").splitlines()
        found += [f"{name}:{n}" for n, line in enumerate(lines, 1) if pattern.search(line)]
    assert found == []


def test_no_large_file_is_tracked() -> None:
    large = {name: size for name in tracked() if (size := (ROOT / name).stat().st_size) > 1_000_000}
    assert large == {}


def test_the_licence_is_there_whole() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text and "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text
    assert PYPROJECT["project"]["license"] == "Apache-2.0"


def test_the_changelog_has_this_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    assert f"## [{pipeline.__version__}]" in text
    assert "affected" in text


# ---------------------------------------------------------------------------------------------------- dependencies
@cache
def locked(name: str) -> dict[str, str]:
    """Each requirement of a lock: name to its whole text."""
    text = (ROOT / name).read_text().replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return {normal(re.split(r"[=\[ ]", line)[0]): line for line in lines}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(*groups: str) -> set[str]:
    """Names of the dependencies: those of the project, and of these extras."""
    project = PYPROJECT["project"]
    lines = [*project["dependencies"], *(line for group in groups for line in project["optional-dependencies"][group])]
    return {normal(re.split(r"[\[<>=~!; ]", line)[0]) for line in lines} - {"alertmill"}


EXTRAS = tuple(PYPROJECT["project"]["optional-dependencies"])


@pytest.mark.parametrize("name", LOCKS)
def test_every_locked_package_is_pinned_with_hashes_and_without_an_address(name: str) -> None:
    assert not (ROOT / "uv.lock").exists()
    text = (ROOT / name).read_text()
    assert "://" not in text
    assert not re.search(r"--(?:index-url|extra-index-url|find-links|trusted-host)", text)
    for package, line in locked(name).items():
        assert re.match(r"^[\w.\[\],-]+==[\w.!+]+(?: ; [^#]+?)?(?: +--hash=sha256:[0-9a-f]{64})+$", line), package


def test_the_lock_holds_for_every_platform_by_markers() -> None:
    markers = [line for line in locked("requirements.lock").values() if " ; " in line]
    assert any("sys_platform" in line for line in markers)
    assert any("python_full_version" in line or "python_version" in line for line in markers)


def test_every_dependency_is_locked_at_a_version_it_allows() -> None:
    from packaging.requirements import Requirement

    project = PYPROJECT["project"]
    lines = [*project["dependencies"], *(line for group in project["optional-dependencies"].values() for line in group)]
    for line in lines:
        wanted = Requirement(line)
        if wanted.name == "alertmill":
            continue
        pin = re.search(r"==([\w.!+]+)", locked("requirements.lock")[normal(wanted.name)])
        assert pin and pin[1] in wanted.specifier, line


def test_no_gpu_library_is_locked() -> None:
    found = [name for name in locked("requirements.lock") if re.search(r"nvidia|cuda|cupy|rocm|nccl|triton", name)]
    assert found == []
    assert "xgboost" not in locked("requirements.lock")  # its build with GPU libraries; xgboost-cpu is ours


def imported(*folders: str) -> set[str]:
    """Top-level modules that are imported, looked up by name, or run as ``python -m``."""
    names: set[str] = set()
    for path in sources(*folders):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.add(node.module.split(".")[0])
            elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("find_spec", "importorskip")):
                names.add(ast.unparse(node.args[0]).strip("\"'").split(".")[0])
            elif isinstance(node, ast.List):
                words = [item.value if isinstance(item, ast.Constant) else None for item in node.elts]
                names |= {str(word) for flag, word in itertools.pairwise(words) if flag == "-m"}
    return names


def test_every_dependency_is_imported_and_nothing_else() -> None:
    used = imported("pipeline", "flows")
    unused = {name for name in declared() if MODULES.get(name, name.replace("-", "_")) not in used}
    assert unused - CONSTRAINTS == NOT_YET_USED & declared()
    known = {MODULES.get(name, name.replace("-", "_")) for name in declared(*EXTRAS)}
    brought = {"distributed", "erfa", "markupsafe"}  # by dask[distributed], astropy, jinja2
    assert used - set(sys.stdlib_module_names) - known - brought - {"pipeline", "flows"} == set()


def test_every_dependency_of_the_extras_is_used() -> None:
    used = imported("pipeline", "flows", "tests", "docs")
    extra = declared(*EXTRAS) - declared()
    unused = {name for name in extra if MODULES.get(name, name.replace("-", "_")) not in used}
    assert unused - TOOLS == NOT_YET_USED & extra


# ----------------------------------------------------------------------------------------------- what code may not do
@pytest.mark.parametrize("path", sources("pipeline", "flows"), ids=lambda path: str(path.relative_to(ROOT)))
def test_forbidden_constructs_stand_nowhere(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        where = f"{path.name}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in ("eval", "exec", "compile", "__import__", "os.system", "os.popen"), where
            for keyword in node.keywords:
                given = keyword.value.value if isinstance(keyword.value, ast.Constant) else None
                assert (keyword.arg, given) not in (("shell", True), ("allow_pickle", True)), where
                assert (keyword.arg, given) not in (("fastmath", True), ("parallel", True)), where
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            tops = {name.split(".")[0] for name in names}
            assert not tops & {"pickle", "cloudpickle", "marshal", "shelve", "dill", "joblib"}, where
        elif isinstance(node, ast.ExceptHandler):
            caught = "" if node.type is None else ast.unparse(node.type)
            is_mute = all(isinstance(step, (ast.Pass, ast.Continue)) for step in node.body)
            assert caught not in ("", "BaseException") or not is_mute, where
            assert not (caught == "Exception" and is_mute), where


# ---------------------------------------------------------------------------------------------------- what is shipped
@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("*.whl")
    return built


@pytest.mark.xdist_group("wheel")
def test_the_wheel_has_code_and_every_data_file(wheel: Path) -> None:
    held = set(zipfile.ZipFile(wheel).namelist())
    kinds = (".py", ".avsc", ".j2", ".css", ".ubj", ".json", ".parquet")
    wanted = {name for name in tracked() if name.startswith(("pipeline/", "flows/")) and name.endswith(kinds)}
    wanted |= {f"pipeline/_catalogs/{Path(name).name}" for name in tracked() if name.startswith("catalogs/")}
    assert wanted <= held
    assert {Path(name).suffix for name in wanted} == {*kinds, ".toml", ".csv"}
    assert {name.split("/")[0] for name in held} == {"pipeline", "flows", f"alertmill-{pipeline.__version__}.dist-info"}
    assert not any("__pycache__" in name or name.startswith("tests") for name in held)


@pytest.mark.xdist_group("wheel")
def test_an_installed_wheel_finds_its_data(wheel: Path, tmp_path: Path) -> None:
    target = tmp_path / "site"
    install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index", "--no-deps"]
    subprocess.run([sys.executable, *install, "--target", str(target), str(wheel)], check=True, timeout=120)
    environment = {**os.environ, "PYTHONPATH": str(target), "NUMBA_CACHE_DIR": str(tmp_path / "numba")}

    def run(*arguments: str) -> str:
        command = [sys.executable, *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert run("-c", "import pipeline; print(pipeline.__file__)").startswith(str(target))
    listed = run("-m", "pipeline.cli", "catalogs", "list", "--json")
    assert all(f'"{path.stem}"' in listed for path in (ROOT / "catalogs").glob("*.toml"))
    assert "supernova" in run("-m", "pipeline.cli", "models", "list")
    assert (target / "pipeline/report/templates/night.html.j2").is_file()
    versions = "from pipeline.surveys.superset import known_schemas as k; print(len(k('ztf')), len(k('lsst')))"
    assert all(int(count) > 5 for count in run("-c", versions).split())
