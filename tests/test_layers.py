"""The layers of the architecture: imports point strictly downwards, and Prefect stands in flows alone."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

LAYERS = {
    "errors": 0,
    **dict.fromkeys(
        ["schema", "night", "photometry", "healpix", "points", "lightcurve", "paths", "cosmology", "luminosity"], 1
    ),
    **dict.fromkeys(["tables", "surveys"], 2),
    **dict.fromkeys(["avro", "xmatch", "skymap", "features", "classify", "coincidence"], 3),
    **dict.fromkeys(["science", "filters", "simulate"], 4),
    **dict.fromkeys(["stages", "compat"], 5),
    **dict.fromkeys(["config", "store", "dumps", "catalogs", "dust", "skymaps", "events", "models", "simulation"], 6),
    **dict.fromkeys(["execute", "nights", "report", "archive", "followup", "streams", "status", "training", "warm"], 7),
    "flows": 7.5,
    "cli": 8,
}
"""Layer of every module of ``pipeline/``; ``flows`` stands between L7 and L8."""

THIRD_PARTY = {
    0: set(),
    1: {"numpy", "pyarrow", "numba", "astropy", "erfa", "blake3"},
    2: set(),
    3: {"fastavro", "cramjam", "zstandard", "scipy", "xgboost", "light_curve"},
    4: {"coniferest", "sqlglot", "zlib_ng"},
    5: set(),
    6: {"fsspec", "s3fs", "isal", "astroquery", "httpx", "pydantic", "psutil", "lsst"},
    7: {"dask", "distributed", "fastapi", "matplotlib", "jinja2", "markupsafe", "pandas", "polars", "duckdb"},
    7.5: {"prefect"},
    8: {"click", "rich"},
}
"""What a layer may import besides the standard library and what lower layers may. Prefect: flows alone."""

EFFECTS = {
    "os",
    "subprocess",
    "socket",
    "threading",
    "time",
    "random",
    "secrets",
    "uuid",
    "tempfile",
    "shutil",
    "urllib",
}
"""Standard modules that bring effects or hidden state; below L6 they are forbidden."""

ALLOWED_EFFECTS = {("pipeline/surveys/superset.py", "importlib")}


def _files() -> list[Path]:
    return sorted([*(ROOT / "pipeline").rglob("*.py"), *(ROOT / "flows").rglob("*.py")])


def _module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    if parts[0] == "flows":
        return "flows"
    return parts[1] if parts[1] != "__init__" else ""


def _imports(path: Path) -> list[str]:
    """Every imported name, dotted, those within functions too; TYPE_CHECKING blocks are not imports."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.dump(block.test)
        for inner in block.body
        for node in ast.walk(inner)
    }
    names = []
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


@pytest.mark.parametrize("path", _files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_strictly_downwards(path: Path) -> None:
    module = _module_of(path)
    if not module:
        return  # pipeline/__init__: the public name of the reading API, imported when it is called
    assert module in LAYERS, f"{path.relative_to(ROOT)}: module {module} has no layer"
    layer = LAYERS[module]
    allowed = set().union(*(THIRD_PARTY[level] for level in THIRD_PARTY if level <= layer and level != 7.5))
    if module == "flows":
        allowed |= THIRD_PARTY[7.5]
    for name in _imports(path):
        top, _, rest = name.partition(".")
        if top == "flows":
            assert module in ("flows", "cli"), f"{module} imports flows; only the cli may"
        elif top == "pipeline":
            other = rest.split(".")[0]
            if other in ("", "__version__"):
                continue
            assert other in LAYERS, f"import of {name}: no such module"
            is_lower = LAYERS[other] < layer or other == module
            is_beside = LAYERS[other] == layer and layer in (1, 2, 3, 4, 6, 7)
            assert is_lower or is_beside, f"{module} (L{layer}) imports {other} (L{LAYERS[other]})"
            if module == "simulate":
                assert other != "science", "the simulator must not know what a module fits"
        elif top in __import__("sys").stdlib_module_names or top == "__future__":
            if layer < 6 and (str(path.relative_to(ROOT)), top) not in ALLOWED_EFFECTS:
                assert top not in EFFECTS, f"{module} (L{layer}) imports {top}: effects stand at L6 and above"
        else:
            assert top in allowed, f"{module} (L{layer}) imports {top}"


def test_modules_of_one_layer_do_not_import_each_other_in_circles() -> None:
    graph: dict[str, set[str]] = {}
    for path in _files():
        module = _module_of(path)
        for name in _imports(path):
            if module and name.startswith("pipeline."):
                other = name.split(".")[1]
                if other != module and other in LAYERS:
                    graph.setdefault(module, set()).add(other)
    import graphlib

    order = list(graphlib.TopologicalSorter(graph).static_order())
    assert order.index("errors") < order.index("cli")


def test_no_file_is_longer_than_about_four_hundred_lines() -> None:
    long = {str(p.relative_to(ROOT)): n for p in _files() if (n := len(p.read_text().splitlines())) > 420}
    assert not long


def test_prefect_stands_in_flows_alone() -> None:
    users = {_module_of(path) for path in _files() if any(name.split(".")[0] == "prefect" for name in _imports(path))}
    assert users <= {"flows"}
