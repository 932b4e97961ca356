"""Parameters that a notebook does not have, or of the wrong kind, stop it before it writes anything."""

import re
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import jupytext
import nbformat
import papermill
import pytest
from papermill.cli import _resolve_type
from papermill.exceptions import PapermillExecutionError
from papermill.translators import PythonTranslator
from traitlets.config import Config

from steerpaper import parameters
from steerpaper.parameters import check_parameters

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted((ROOT / "notebooks").glob("*.py"))


@pytest.fixture
def history(monkeypatch):
    """Set the cells that a session has run, as IPython keeps them."""
    def run(*cells):
        monkeypatch.setattr(parameters, "get_ipython", lambda: SimpleNamespace(user_ns={"In": ["", *cells]}))
    return run


def test_good_parameters_pass(history):
    check_parameters(preset="tiny", seed=0)  # outside a notebook
    history('preset = "organism-llama"\nseed = 0', '# Parameters\npreset = "tiny"\nseed = 4294967295\n')
    check_parameters(preset="tiny", seed=4294967295)
    history('# Parameters\nseeds = [0, 1]\n')
    check_parameters(seeds=[0, 1])


def test_a_folder_is_a_preset(tmp_path):
    with pytest.raises(ValueError, match="unknown preset"):
        check_parameters(preset=str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    check_parameters(preset=str(tmp_path))


@pytest.mark.parametrize("cell, message", [
    ('# Parameters\npresets = "tiny"\n', r"unknown parameter 'presets' \(did you mean 'preset'\?\): .*preset, seed"),
    ('# Parameters\nsede = 1\n', r"unknown parameter 'sede' \(did you mean 'seed'\?\)"),
    ('# Parameters\npreset = "tiny"\nlayer = 3\n', r"unknown parameter 'layer': choose one of preset, seed"),
])
def test_names_that_are_no_parameters_are_refused(history, cell, message):
    history('preset = "organism-llama"\nseed = 0', cell)
    with pytest.raises(ValueError, match=message):
        check_parameters(preset="tiny", seed=0)


def test_cells_that_papermill_did_not_put_in_may_assign_anything(history):
    history("layer = 3", "presets = 1  # Parameters", "import os")
    check_parameters(preset="tiny", seed=0)


@pytest.mark.parametrize("given, message", [
    (dict(preset=5), "parameter 'preset' is 5: give the name of a preset"),
    (dict(preset=None), "parameter 'preset' is None: give the name of a preset"),
    (dict(preset="tinny"), "unknown preset 'tinny'"),
    (dict(preset=""), "unknown preset ''"),
    *[(dict(seed=seed), f"parameter 'seed' is {seed!r}: give a whole number from 0 to 4294967295")
      for seed in ("abc", "1", 1.5, 1.0, True, -1, 2**32, None, [0])],
    *[(dict(seeds=seeds), f"parameter 'seeds' is {seeds!r}: give a list of whole numbers")
      for seeds in ([], 0, "01", [0, "1"], [0, 1.5], [True], [-1])],
])
def test_values_of_the_wrong_kind_are_refused(given, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        check_parameters(**given)


def check_cell(source: Path) -> tuple[list, int]:
    """The code cells of a notebook, and the place of the one that checks the parameters."""
    cells = [cell for cell in jupytext.read(source).cells if cell.cell_type == "code"]
    return cells, next(i for i, cell in enumerate(cells) if "sp.check_parameters(" in cell.source)


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_every_notebook_checks_all_its_parameters_first(source):
    cells, at = check_cell(source)
    assert at == 1, "after the cell of parameters, with the imports"
    names = [line.split(" = ")[0] for line in cells[0].source.splitlines()]
    assert f"sp.check_parameters({', '.join(f'{name}={name}' for name in names)})" in cells[1].source


@pytest.mark.parametrize("given, message", [
    ("seed abc", "parameter 'seed' is 'abc': give a whole number"),
    ("seed 1.5", "parameter 'seed' is 1.5: give a whole number"),
    ("seed True", "parameter 'seed' is True: give a whole number"),
    ("preset 5", "parameter 'preset' is 5: give the name of a preset"),
])
def test_values_as_papermill_reads_them(history, given, message):
    name, text = given.split()
    history(PythonTranslator.codify({name: _resolve_type(text)}, "Parameters"))
    with pytest.raises(ValueError, match=re.escape(message)):
        check_parameters(**{"preset": "tiny", "seed": 0, name: _resolve_type(text)})


# A kernel's TCP ports are only looked for, not held, until it binds them; kernels of other tests start meanwhile.
NO_PORTS = Config(KernelManager={"transport": "ipc"})


@pytest.mark.parametrize("given, message", [
    ("presets tiny", "unknown parameter 'presets' (did you mean 'preset'?)"),
    ("seed 1.5", "parameter 'seed' is 1.5: give a whole number"),
    ("preset tiny", None),
])
def test_papermill_stops_before_anything_is_written(tmp_path, monkeypatch, given, message):
    """Notebook 01 down to its check, then a cell that writes a file in place of the rest."""
    notebook = jupytext.read(SOURCES[1])
    cells, at = check_cell(SOURCES[1])
    notebook.cells = [*cells[:at + 1], nbformat.v4.new_code_cell("open('written', 'w').close()")]
    nbformat.write(notebook, tmp_path / "in.ipynb")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    name, text = given.split()
    stops = pytest.raises(PapermillExecutionError, match=re.escape(f"ValueError: {message}"))
    with stops if message else nullcontext():
        papermill.execute_notebook(tmp_path / "in.ipynb", tmp_path / "out.ipynb", {name: _resolve_type(text)},
                                   kernel_name="python3", cwd=tmp_path, progress_bar=False, config=NO_PORTS)
    assert (tmp_path / "written").exists() == (message is None)
