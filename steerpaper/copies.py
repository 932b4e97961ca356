"""Executed notebooks of the measured presets other than the one that people read first, small enough to be committed:
`notebooks/<preset>/`. Pictures that are on record in `figures/<preset>` are links to them.
"""

import base64
import html
import os
import re
from collections.abc import Collection

import nbformat
from nbformat.v4 import new_output

from steerpaper import manifests, paths
from steerpaper.behaviour.excerpts import SHOWN, is_longer
from steerpaper.paper.gallery import captions
from steerpaper.presets import get_preset

_LEFT_OUT = f"*Left out: text of a real model beyond its first {SHOWN} tokens, which is not committed.*"
_STYLE = re.compile(r"<style scoped>.*?</style>\n", re.DOTALL)
_LINK = re.compile(r"(?<=\]\()(?!\w+:|#)[^)\s]+")


def small_copy(
    notebook: nbformat.NotebookNode, preset: str, name: str, first: str, others: Collection[str],
) -> nbformat.NotebookNode:
    """A preset's executed notebook with links for pictures, without what it says on stderr; of a table its HTML alone.

    Its title names the preset, links lead on from its folder: to another notebook as executed on the same preset where
    there is one. Of a real model, an output is left out that has a longer text than an excerpt, unless that text stands
    in a table on record or the notebook loads no model.

    Args:
        notebook: as `recording.committed` returns it; it is changed.
        name: the notebook's.
        first: the preset that the notebook in `notebooks` was executed on.
        others: the notebooks of which the preset's folder has copies.

    Raises:
        ValueError: a picture that is not on record.
    """
    pictures = {path.read_bytes(): path.stem for path in paths.recorded_figures(preset).glob("*.png")}
    known = None if get_preset(preset).shipped or not _loads_a_model(notebook) else _recorded_texts(preset)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = _LINK.sub(lambda found: _from_folder(found[0], preset, others), cell.source)
        else:
            shown = [output for output in cell.outputs if output.get("name") != "stderr"]
            cell.outputs = [_small(output, preset, name, pictures, known) for output in shown]
    title, _, rest = notebook.cells[0].source.partition("\n")
    about = (f"*As executed on `{preset}`, whose figures stand [on one page](../../figures/{preset}.md). "
             f"[The same on {first}](../{name}.ipynb).*")
    notebook.cells[0].source = f"{title}, on {preset}\n\n{about}\n{rest}"
    return notebook


def long_texts(output: nbformat.NotebookNode) -> list[str]:
    """The texts of an output, table cells and lines, that are longer than an excerpt of a real model's answer can be."""
    data = output.get("data", {"text/plain": output.get("text", "")})
    pieces = re.split(r"<[^>]+>", re.sub(r"<style.*?</style>", "", data.get("text/html", ""), flags=re.DOTALL))
    texts = [html.unescape(piece) for piece in pieces]
    if "text/html" not in data:
        texts += data.get("text/plain", "").splitlines()
    return [text.strip() for text in texts if is_longer(text.strip())]


def _small(output: nbformat.NotebookNode, preset: str, name: str, pictures: dict[bytes, str], known: set[str] | None):
    """An output with a link for its picture, or without text that is not to be committed."""
    data = output.get("data", {})
    if "image/png" in data:
        if (figure := pictures.get(base64.b64decode(data["image/png"]))) is None:
            raise ValueError(f"notebook {name} shows a picture that is none of figures/{preset}: run it again")
        link = os.path.relpath(paths.recorded_figures(preset) / f"{figure}.png", paths.NOTEBOOKS / preset)
        return new_output("display_data", {"text/markdown": f"![{captions()[figure]['shows']}]({link})"})
    if known is not None and set(long_texts(output)) - known:
        return new_output("display_data", {"text/markdown": _LEFT_OUT})
    if "text/html" in data:
        data.pop("text/plain", None)
        data["text/html"] = _STYLE.sub("", data["text/html"])  # that of every table; where it is shown has its own
    return output


def _from_folder(link: str, preset: str, others: Collection[str]) -> str:
    """A link of a notebook in `notebooks`, as one in the preset's folder has it."""
    if link.removesuffix(".ipynb") in others:
        return link
    return os.path.relpath(paths.NOTEBOOKS / link, paths.NOTEBOOKS / preset)


def _loads_a_model(notebook: nbformat.NotebookNode) -> bool:
    return any("load_model(" in cell.source for cell in notebook.cells if cell.cell_type == "code")


def _recorded_texts(preset: str) -> set[str]:
    """What stands as text in the preset's tables on record, but for answers: these are cut there."""
    tables = [manifests.table(path.read_bytes()) for path in paths.recorded_results(preset).glob("*.csv")]
    return {value.strip() for table in tables for column in table for value in table[column].unique()
            if isinstance(value, str)}
