"""Every notebook is a pair that agrees, reads like prose, and was executed; its tiny recording is current."""

import ast
import base64
import re
from pathlib import Path

import jupytext
import nbformat
import pytest

from steerpaper import paths
from steerpaper.concepts import CONCEPTS
from steerpaper.outputs import writing
from steerpaper.presets import REFERENCE as TINY
from steerpaper.recording import read_on

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted((ROOT / "notebooks").glob("*.py"))
# 00 trains the models: it is no part of the workflow and not executed by the tests.
RECORDED = [source for source in SOURCES if not source.name.startswith("00_")]
# Those that end at once on the preset of the tests have no recording.
REPEATED = [source for source in RECORDED if source.stem in writing(TINY)]
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
def test_code_cells_define_nothing(source):
    for cell in code_cells(read(source)):
        defined = [node for node in ast.walk(ast.parse(cell.source)) if isinstance(node, DEFINITIONS)]
        assert not defined, f"a definition belongs into the package:\n{cell.source}"


@each([source for source in RECORDED if not source.name.startswith("06_")])  # which runs no model
def test_code_goes_by_the_concept_and_names_no_set_of_prompts(source):
    sets = {name for concept in CONCEPTS.values() for name in (*concept.sets, concept.second_positive)}
    for cell in code_cells(read(source)):
        named = {node.value for node in ast.walk(ast.parse(cell.source)) if isinstance(node, ast.Constant)} & sets
        assert not named - {None}, f"take concept.positive, concept.negative or concept.sets:\n{cell.source}"


def headings(notebook) -> list[str]:
    return [line for cell in notebook.cells if cell.cell_type == "markdown" for line in cell.source.splitlines()
            if line.startswith("#")]


@each(SOURCES)
def test_code_fits_a_page(source):
    for cell in code_cells(read(source)):
        wide = [line for line in cell.source.splitlines() if len(line) > 88]
        assert not wide, f"a rendered page scrolls sideways beyond 88 characters:\n{wide[0]}"


@each(RECORDED)
def test_an_argument_and_not_a_script(source):
    """A claim of the paper with its place opens it, readings are short, it closes with what was learned, and there is
    at least as much prose as code."""
    notebook = read(source)
    prose = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    assert re.search(r"^> \*.*\((§|abstract|table)", prose[0], re.MULTILINE), "no claim with its place"
    assert "What we learned" in headings(notebook)[-1] or "what we learned" in headings(notebook)[-1]
    for reading in re.findall(r"^\*\*Reading\b.*?(?=\n\s*\n|\Z)", "\n\n".join(prose), re.MULTILINE | re.DOTALL):
        assert len(reading) <= 4 * 121, f"a reading has at most four lines of 120 characters:\n{reading}"
    assert sum(map(len, prose)) >= sum(len(cell.source) for cell in code_cells(notebook)), "more code than prose"
    assert "to be written" not in "\n".join(prose)


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
    counts = [cell.execution_count for cell in cells]
    assert counts == list(range(1, len(cells) + 1)), "run `make notebooks`"
    assert not [output for cell in cells for output in cell.outputs if output.output_type == "error"]


def test_what_is_checked_by_hand_holds_on_every_model():
    """Of whatever model a notebook was executed on: a check that it prints says True."""
    paths = [*(ROOT / "notebooks").rglob("*.ipynb"), *REFERENCE.glob("*.ipynb")]
    said = {(path, line) for path in paths for cell in code_cells(read(path)) for output in cell.outputs
            for line in output.get("text", "").splitlines() if re.search(": (True|False)$", line)}
    assert {path.parent.name for path, _ in said} >= {"notebooks", "reference", "organism-gemma2"}
    assert not [(path, line) for path, line in said if line.endswith("False")]


@each(SOURCES)
def test_outputs_can_be_compared(source):
    for cell in code_cells(read(source)):
        # nbval runs cells outside the history, where a final semicolon hides nothing.
        assert not cell.source.rstrip().endswith(";"), f"assign the last value instead:\n{cell.source}"
    for cell in code_cells(read(source.with_suffix(".ipynb"))):
        assert not [output for output in cell.outputs if "\r" in output.get("text", "")], f"progress bar:\n{cell.source}"
        # Widgets have other ids in every run: `from tqdm import tqdm`, not tqdm.auto.
        shown = {kind for output in cell.outputs for kind in output.get("data", {})}
        assert "application/vnd.jupyter.widget-view+json" not in shown, f"shows a widget:\n{cell.source}"


# -- figures: begun, finished and saved in one cell, and shown as they were saved ---------------------------

DRAWS = re.compile(r"(plt|sns)\..+|sp\.((figures\.)?draw_\w+|save_figure)|(fig|ax|axes)\b.*|.+\.plot(\.\w+)?")
BEGINS = re.compile(r"plt\.(figure|subplots)|sp\.(figures\.)?draw_\w+")
SAVED = "<IPython.core.display.Image object>"  # what `save_figure` returns, as text


def calls(cell) -> list[ast.Call]:
    return [node for node in ast.walk(ast.parse(cell.source)) if isinstance(node, ast.Call)]


def saved_names(cell) -> list[str | None]:
    """The names under which a cell saves its figures, in order; None for one that is made up as the cell runs."""
    given = [call.args[2] for call in calls(cell) if ast.unparse(call.func) == "sp.save_figure"]
    return [name.value if isinstance(name, ast.Constant) else None for name in given]


def pictures(cell) -> list[tuple[str, bytes]]:
    """What a cell shows: every picture as text and as the bytes of its PNG."""
    shown = [output.data for output in cell.outputs if "image/png" in output.get("data", {})]
    return [(data["text/plain"], base64.b64decode(data["image/png"])) for data in shown]


def is_unfinished(cell) -> bool:
    """Whether a cell draws and does not begin (plt.subplots, sp.draw_...) and save each of its figures itself."""
    called = [ast.unparse(call.func) for call in calls(cell)]
    begun = sum(bool(BEGINS.fullmatch(name)) for name in called)
    return any(map(DRAWS.fullmatch, called)) and not begun == called.count("sp.save_figure") > 0


def not_as_saved(cell, folder: Path | None = None) -> str:
    """What is wrong with the pictures that an executed cell shows, if anything; `folder` holds the saved ones."""
    shown, names = pictures(cell), saved_names(cell)
    if any(text != SAVED for text, _ in shown):
        return "shows a picture that is not the one saved: end the cell with sp.save_figure(...)"
    if len(shown) < len(names) or (None not in names and len(shown) > len(names)):
        return f"saves {len(names)} figures and shows {len(shown)}"
    if folder is not None:
        files = [folder / f"{name}.png" for name in names] if None not in names else sorted(folder.glob("*.png"))
        saved = [file.read_bytes() for file in files if file.exists()]
        if [png for _, png in shown if png not in saved] or (None not in names and [png for _, png in shown] != saved):
            return f"shows another picture than {', '.join(file.name for file in files)} in {folder.name}"
    return ""


@each(SOURCES)
def test_a_figure_is_begun_finished_and_saved_in_one_cell(source):
    for cell in code_cells(read(source)):
        assert not is_unfinished(cell), f"a figure is begun, finished and saved in one cell:\n{cell.source}"


@each(RECORDED)
def test_the_picture_shown_is_the_file_saved(source):
    notebook = read(source.with_suffix(".ipynb"))
    preset = read_on(source.stem)
    assert f'preset = "{preset}"' in code_cells(notebook)[0].source
    for cell in (cell for cell in code_cells(notebook) if cell.execution_count):
        wrong = not_as_saved(cell, paths.recorded_figures(preset))
        assert not wrong, f"{wrong}; run `make notebooks`:\n{cell.source}"


@each(REPEATED)
def test_recordings_show_what_is_saved(source):
    for cell in code_cells(jupytext.read(REFERENCE / source.with_suffix(".ipynb").name)):
        assert not (wrong := not_as_saved(cell)), f"{wrong}; run `make notebooks`:\n{cell.source}"


@pytest.mark.parametrize("source, unfinished", [
    ("fig, ax = plt.subplots()\nax.plot(x)", True),
    ("fig = sp.draw_circuit(graph, edges)", True),
    ("fig = sp.figures.draw_overlap(table)", True),
    ("table.plot.bar()", True),
    ("sns.heatmap(table)", True),
    ("axes[0].set(ylabel='ASR')\nsp.save_figure(fig, preset, 'a')", True),
    ("fig.legend()\nsp.save_figure(fig, preset, 'a')", True),
    ("sns.heatmap(table, ax=ax)\nsp.save_figure(fig, preset, 'a')", True),
    ("sp.save_figure(fig, preset, 'a')", True),
    ("fig, ax = plt.subplots()\nsns.heatmap(table, ax=ax)\nsp.save_figure(fig, preset, 'a')", False),
    ("fig = sp.draw_circuit(graph, edges)\nsp.save_figure(fig, preset, 'a')", False),
    ("sp.save_figure(sp.figures.draw_overlap(table), preset, 'a')", False),
    ("fig, ax = plt.subplots()\nother, axes = plt.subplots()\nsp.save_figure(fig, preset, 'a')", True),
    ("table.round(2)", False),
])
def test_unfinished_figures_are_found(source, unfinished):
    assert is_unfinished(nbformat.v4.new_code_cell(source)) == unfinished


@pytest.mark.parametrize("source, shown, wrong", [
    ("sp.save_figure(fig, preset, 'a')", [(SAVED, b"A")], ""),
    ("sp.save_figure(fig, preset, 'a')", [("<Figure size 640x480 with 1 Axes>", b"A")], "not the one saved"),
    ("plt.plot(x)", [("<Figure size 640x480 with 1 Axes>", b"A")], "not the one saved"),
    ("sp.save_figure(fig, preset, 'a')\nNone", [], "shows 0"),
    ("sp.save_figure(fig, preset, 'a')", [(SAVED, b"A"), (SAVED, b"A")], "shows 2"),
    ("sp.save_figure(fig, preset, 'a')", [(SAVED, b"B")], "another picture than a.png"),
    ("sp.save_figure(fig, preset, 'c')", [(SAVED, b"A")], "another picture than c.png"),
    ("for n in 'ab':\n    display(sp.save_figure(fig, preset, n))", [(SAVED, b"A"), (SAVED, b"B")], ""),
    ("for n in 'ab':\n    display(sp.save_figure(fig, preset, n))", [(SAVED, b"A"), (SAVED, b"C")], "another picture"),
])
def test_pictures_that_are_not_the_files_are_found(tmp_path, source, shown, wrong):
    for name in "ab":
        (tmp_path / f"{name}.png").write_bytes(name.upper().encode())
    outputs = [nbformat.v4.new_output("display_data", {"text/plain": text, "image/png": base64.b64encode(png).decode()})
               for text, png in shown]
    found = not_as_saved(nbformat.v4.new_code_cell(source, outputs=outputs), tmp_path)
    assert wrong in found and bool(wrong) == bool(found)


@each([*SOURCES, *(REFERENCE / source.name for source in REPEATED)])
def test_holds_nothing_of_the_machine_it_ran_on(source):
    path = source.with_suffix(".ipynb")
    notebook = read(path)
    assert set(notebook.metadata) <= {"jupytext", "kernelspec", "language_info"}, "run `make notebooks`"
    assert notebook.metadata.kernelspec.name == "python3"
    for cell in notebook.cells:
        assert set(cell.metadata) <= {"tags"}
    found = MACHINE_PATH.search(path.read_text(encoding="utf-8"))
    assert not found, f"{path.relative_to(ROOT)} holds the path of a machine: {found}"


@each(REPEATED)
def test_recording_is_current(source):
    current = [content(cell) for cell in code_cells(read(source))]
    path = REFERENCE / source.with_suffix(".ipynb").name
    assert path.exists(), f"tests/reference/{path.name} is missing: run `make notebooks`"
    recorded = [content(cell) for cell in code_cells(jupytext.read(path))]
    injected = [cell for cell in recorded if "injected-parameters" in cell[2]]
    assert [cell[1].strip() for cell in injected] == ['# Parameters\npreset = "tiny"']
    recorded.remove(injected[0])
    assert recorded == current, f"tests/reference/{path.name} is out of date: run `make notebooks`"


def test_no_recording_without_a_notebook():
    recorded = sorted(path.stem for path in REFERENCE.glob("*.ipynb"))
    assert recorded == [path.stem for path in REPEATED], "run `make notebooks`, remove what has no notebook"
