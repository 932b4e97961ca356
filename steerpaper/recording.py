"""Executed notebooks as they are committed: `notebooks/*.ipynb`, which people read, and `tests/reference`, the same on
the preset "tiny", which the tests execute again.

`python -m steerpaper.recording` takes both from the workflow's executed copies.
"""

from pathlib import Path

import nbformat

from steerpaper import paths
from steerpaper.paths import write_bytes
from steerpaper.reproduction import outputs

READ, REFERENCE = "organism-llama", "tiny"
_INJECTED = "injected-parameters"


def committed(executed: nbformat.NotebookNode, *, injected: bool) -> nbformat.NotebookNode:
    """An executed notebook without the paths, times and durations in its metadata, with ids that stay.

    Args:
        injected: whether the cell that papermill has put in stays. Without it the parameters are the notebook's own,
            which must be what was injected.
    """
    notebook = nbformat.from_dict(executed)
    notebook.metadata = {"kernelspec": notebook.metadata.kernelspec, "language_info": {"name": "python"}}
    if not injected:
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
        if cell.cell_type == "code":
            executed_cells += 1
            cell.execution_count = executed_cells
            for output in cell.outputs:
                if output.output_type == "execute_result":
                    output.execution_count = executed_cells
    return notebook


def main() -> None:
    """Write both sets of notebooks."""
    for preset, folder in ((READ, paths.NOTEBOOKS), (REFERENCE, paths.ROOT / "tests" / "reference")):
        for name in outputs():
            executed = nbformat.read(paths.BUILD / preset / f"{name}.ipynb", as_version=4)
            _write(folder / f"{name}.ipynb", committed(executed, injected=preset == REFERENCE))


def _write(path: Path, notebook: nbformat.NotebookNode) -> None:
    write_bytes(path, nbformat.writes(notebook).encode() + b"\n")


if __name__ == "__main__":
    main()
