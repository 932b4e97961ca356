"""Every notebook is a pair that agrees, reads like prose, and was executed; its tiny recording is current."""

import ast
import re
from pathlib import Path

import jupytext
import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted((ROOT / "notebooks").glob("*.py"))
# 00 trains the models: it is no part of the workflow and not executed by the tests.
RECORDED = [source for source in SOURCES if not source.name.startswith("00_")]
REFERENCE = ROOT / "tests" / "reference"
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
# Paths of the machine that a notebook ran on: outputs and metadata must hold none.
MACHINE_PATH = re.compile(r"(?<![\w.])/(?:home|root|work|tmp|Users|opt|usr)/|site-packages|[A-Z]:\\\\")


def read(path: Path):
    assert path.exists(), f"{path.relative_to(ROOT)} is missing: run `make notebooks`"
    return jupytext.read(path)


def tags(cell) -> list[str]:
    return cell.metadata.get("tags", [])


def content(cell) -> tuple:
    return cell.cell_type, cell.source, tuple(tags(cell))


def code_cells(notebook) -> list:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def each(paths):
    return pytest.mark.parametrize("source", paths, ids=lambda path: path.stem)


def test_there_are_notebooks():
    assert SOURCES, "no notebooks/*.py"
    assert RECORDED, "no notebook of the workflow, notebooks/01_*.py"


def test_no_notebook_without_a_source():
    executed = sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))
    assert executed == [path.stem for path in SOURCES]


@each(SOURCES)
def test_pair_agrees(source):
    text, executed = read(source), read(source.with_suffix(".ipynb"))
    assert [content(cell) for cell in text.cells] == [content(cell) for cell in executed.cells], (
        f"{source.stem}: .py and .ipynb differ; run `make notebooks`"
    )


@each(SOURCES)
def test_code_cells_are_short_and_define_nothing(source):
    for cell in code_cells(read(source)):
        assert len(cell.source.splitlines()) <= 12, f"more than 12 lines:\n{cell.source}"
        defined = [node for node in ast.walk(ast.parse(cell.source)) if isinstance(node, DEFINITIONS)]
        assert not defined, f"a definition belongs into the package:\n{cell.source}"


@each(SOURCES)
def test_parameters_are_one_cell_of_literals_before_all_other_code(source):
    cells = code_cells(read(source))
    tagged = [index for index, cell in enumerate(cells) if "parameters" in tags(cell)]
    assert tagged == [0], f"the first code cell, and no other, must be tagged parameters; found {tagged}"
    statements = ast.parse(cells[0].source).body
    assert statements and all(isinstance(statement, ast.Assign) for statement in statements)
    for statement in statements:
        ast.literal_eval(statement.value)
    names = {target.id for statement in statements for target in statement.targets}
    assert "preset" in names or source not in RECORDED


@each(SOURCES)
def test_was_executed_in_order_and_without_errors(source):
    cells = code_cells(read(source.with_suffix(".ipynb")))
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1)), "run `make notebooks`"
    assert not [output for cell in cells for output in cell.outputs if output.output_type == "error"]


@each(SOURCES)
def test_outputs_can_be_compared(source):
    for cell in code_cells(read(source)):
        # nbval runs cells outside the history, where a final semicolon hides nothing.
        assert not cell.source.rstrip().endswith(";"), f"assign the last value instead:\n{cell.source}"
    for cell in code_cells(read(source.with_suffix(".ipynb"))):
        # Widgets have other ids in every run: `from tqdm import tqdm`, not tqdm.auto.
        shown = {kind for output in cell.outputs for kind in output.get("data", {})}
        assert "application/vnd.jupyter.widget-view+json" not in shown, f"shows a widget:\n{cell.source}"


@each([*SOURCES, *(REFERENCE / source.name for source in RECORDED)])
def test_holds_nothing_of_the_machine_it_ran_on(source):
    path = source.with_suffix(".ipynb")
    notebook = read(path)
    assert set(notebook.metadata) <= {"jupytext", "kernelspec", "language_info"}, "run `make notebooks`"
    assert notebook.metadata.kernelspec.name == "python3"
    for cell in notebook.cells:
        assert set(cell.metadata) <= {"tags"}
    found = MACHINE_PATH.search(path.read_text(encoding="utf-8"))
    assert not found, f"{path.relative_to(ROOT)} holds the path of a machine: {found}"


@each(RECORDED)
def test_recording_is_current(source):
    current = [content(cell) for cell in code_cells(read(source))]
    path = REFERENCE / source.with_suffix(".ipynb").name
    assert path.exists(), f"tests/reference/{path.name} is missing: run `make reference`"
    recorded = [content(cell) for cell in code_cells(jupytext.read(path))]
    injected = [cell for cell in recorded if "injected-parameters" in cell[2]]
    assert [cell[1].strip() for cell in injected] == ['# Parameters\npreset = "tiny"']
    recorded.remove(injected[0])
    assert recorded == current, f"tests/reference/{path.name} is out of date: run `make reference`"


def test_no_recording_without_a_notebook():
    recorded = sorted(path.stem for path in REFERENCE.glob("*.ipynb"))
    assert recorded == [path.stem for path in RECORDED], "run `make reference`, remove what has no notebook"
