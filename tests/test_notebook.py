"""The quickstart notebook runs, and uses nothing but the public API and the command line."""

from __future__ import annotations

import ast
import os
from pathlib import Path

import nbclient
import nbformat
import pytest

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "quickstart.ipynb"


def test_it_is_kept_without_outputs() -> None:
    cells = nbformat.read(NOTEBOOK, as_version=4).cells
    code = [cell for cell in cells if cell.cell_type == "code"]
    assert len(code) >= 10
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)


def test_it_uses_only_the_public_api() -> None:
    cells = nbformat.read(NOTEBOOK, as_version=4).cells
    lines = [line for cell in cells if cell.cell_type == "code" for line in cell.source.splitlines()]
    shell = [line.strip() for line in lines if line.strip().startswith("!")]
    assert all(line.startswith("!alertmill ") for line in shell)
    source = "\n".join(line for line in lines if line.strip() not in shell)
    imported = {
        name
        for line in source.splitlines()
        if line.strip().startswith(("import ", "from "))
        for node in ast.walk(ast.parse(line.strip()))
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for name in ([node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])
    }
    assert {name for name in imported if str(name).split(".")[0] in ("pipeline", "flows")} == {"pipeline"}
    assert "pipeline.open(root)" in source
    assert source.count("pipeline.") == 1


@pytest.mark.interop
def test_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From nothing to a plot: it simulates and runs a night of its own."""
    monkeypatch.setenv("ALERTMILL_ROOT", str(tmp_path / "archive"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    (tmp_path / "archive").mkdir()
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    text = "".join(output.get("text", "") + output.get("data", {}).get("text/plain", "") for output in outputs)
    assert not any(output.output_type == "error" for output in outputs)
    assert "alertmill: " not in text  # no command failed
    assert "'packets_in': 400" in text and "'written': 400" in text
    assert "median_mag" in text
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 1
    assert (tmp_path / "archive/reports/ztf/20240115/index.html").is_file()
    assert os.environ["ALERTMILL_ROOT"] == str(tmp_path / "archive")
