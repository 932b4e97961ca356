"""Executed notebooks as they are committed: `notebooks/*.ipynb`, which people read, and `tests/reference`, the same on
the preset "tiny", which the tests execute again, but for those that end at once there; and `notebooks/<preset>`, small
ones of the other models that were measured.

`python -m steerpaper.recording PRESETS` takes them from the workflow's executed copies, once their tables and figures
are on record: the first from the preset that a notebook's own parameters name, the second together with most of these.
What the executed copies say of the time that they took goes on record, too.
"""

import ast
import re
import sys
from functools import cache
from pathlib import Path

import jupytext
import nbformat

from steerpaper import paths
from steerpaper.artifacts import on_record
from steerpaper.copies import small_copy
from steerpaper.outputs import outputs, writing
from steerpaper.paper.page import SHOWN
from steerpaper.paths import write_bytes
from steerpaper.presets import REFERENCE, get_presets
from steerpaper.running import record_running_times

READ = "organism-llama"  # the preset that people read most notebooks on
_INJECTED = "injected-parameters"


@cache
def read_on(name: str) -> str:
    """The preset that people read a notebook on: its own parameter."""
    source = jupytext.read(paths.NOTEBOOKS / f"{name}.py")
    own = next(cell.source for cell in source.cells if "parameters" in cell.metadata.get("tags", []))
    return next(ast.literal_eval(line.value) for line in ast.parse(own).body if line.targets[0].id == "preset")


def committed(executed: nbformat.NotebookNode, *, injected: bool) -> nbformat.NotebookNode:
    """An executed notebook without progress bars, widgets (which only a kernel brings to life) and what its metadata has
    of paths, times and durations; with ids that stay. Of one that ended early, what it found stays, and cells that did
    not run have no number.

    Args:
        injected: whether the cell that papermill has put in stays. Without it the parameters are the notebook's own.

    Raises:
        ValueError: without it, what was put in is not what the notebook's own parameters say.
    """
    notebook = nbformat.from_dict(executed)
    notebook.metadata = {"kernelspec": notebook.metadata.kernelspec, "language_info": {"name": "python"}}
    if not injected:
        _check_own(notebook)
        notebook.cells = [cell for cell in notebook.cells if _INJECTED not in cell.metadata.get("tags", [])]
    own, executed_cells = 0, 0
    for cell in notebook.cells:
        tags = cell.metadata.get("tags")
        cell.metadata = {"tags": tags} if tags else {}
        if tags == [_INJECTED]:
            cell.id = _INJECTED
        else:
            own += 1
            cell.id = f"cell-{own:03d}"
        if cell.cell_type == "code" and cell.execution_count is not None:
            executed_cells += 1
            cell.execution_count = executed_cells
            cell.outputs = _without_end(_without_bars(_without_widgets(cell.outputs)))
            for output in cell.outputs:
                if output.output_type == "execute_result":
                    output.execution_count = executed_cells
    return notebook


def main(presets: str) -> None:
    """Write the notebooks that go with what is put on record, and the times that they took."""
    names = [preset.name for preset in get_presets(presets).values()]
    for name in (name for name in outputs() if read_on(name) in names):
        _write(paths.NOTEBOOKS / f"{name}.ipynb", committed(_executed(read_on(name), name), injected=False))
    if READ in names:
        for name in writing(REFERENCE):
            _write(paths.ROOT / "tests" / "reference" / f"{name}.ipynb", committed(_executed(REFERENCE, name), injected=True))
    for preset in (name for name in names if name in SHOWN):
        _write_small(preset)
    timed = [*names, REFERENCE] if READ in names else names
    record_running_times([name for name in timed if name in (*SHOWN, REFERENCE)])


def _write_small(preset: str) -> None:
    """Make a preset's folder hold small copies of its notebooks on record, but for those that people read on it, and no
    other; or raise, and leave it as it was. A copy stays as it is where its notebook has not run here."""
    names = [name for name in on_record(preset) if read_on(name) != preset]
    there = {path.stem: path for path in (paths.NOTEBOOKS / preset).glob("*.ipynb")}
    copies = {name: small_copy(committed(_executed(preset, name), injected=True), preset, name, read_on(name), names)
              for name in names if name not in there or (paths.BUILD / preset / f"{name}.ipynb").is_file()}
    for name in {*there} - {*names}:
        there[name].unlink()
    for name, copy in copies.items():
        _write(paths.NOTEBOOKS / preset / f"{name}.ipynb", copy)


def _executed(preset: str, name: str) -> nbformat.NotebookNode:
    return nbformat.read(paths.BUILD / preset / f"{name}.ipynb", as_version=4)


def _without_bars(outputs: list) -> list:
    """Outputs without progress bars, drawn from carriage returns on and by moving lines up; what else was said stays, in
    one piece where only time has parted it."""
    kept: list = []
    for output in outputs:
        if output.get("name") == "stderr":
            output.text = re.sub(r"\r[^\r\n\x1b]*|\x1b\[A", "", output.text)
            if not output.text.strip():
                continue
        if kept and output.output_type == kept[-1].output_type == "stream" and output.name == kept[-1].name:
            kept[-1].text += output.text
        else:
            kept.append(output)
    return kept


def _without_widgets(outputs: list) -> list:
    """Outputs without widgets; their ids are others in every run."""
    return [output for output in outputs if "application/vnd.jupyter.widget-view+json" not in output.get("data", {})]


def _without_end(outputs: list) -> list:
    """Outputs without the exception that ends a notebook which has found nothing to measure, and what IPython says of
    it."""
    ended = any(output.get("ename") == "SystemExit" for output in outputs)
    return [output for output in outputs if output.get("ename") != "SystemExit"
            and not (ended and output.get("name") == "stderr")]


def _check_own(notebook: nbformat.NotebookNode) -> None:
    """Raise ValueError if what was put in is none of the notebook's own parameters."""
    given = {tag: cell.source.splitlines() for cell in notebook.cells for tag in cell.metadata.get("tags", [])}
    if others := [line for line in given.get(_INJECTED, [])[1:] if line not in given["parameters"]]:
        raise ValueError(f"the notebook was executed with {'; '.join(others)}, not with its own parameters")


def _write(path: Path, notebook: nbformat.NotebookNode) -> None:
    write_bytes(path, nbformat.writes(notebook).encode() + b"\n")


if __name__ == "__main__":
    main(sys.argv[1])
