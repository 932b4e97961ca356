"""Executed notebooks of the models that are not read first: small, and the same notebooks."""

import base64
import re
from pathlib import Path

import jupytext
import nbformat
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from steerpaper import manifests, paths
from steerpaper.artifacts import on_record
from steerpaper.behaviour.excerpts import SHOWN as TOKENS
from steerpaper.copies import _small, long_texts, small_copy
from steerpaper.outputs import writing
from steerpaper.paper.gallery import captions
from steerpaper.paper.page import SHOWN
from steerpaper.recording import READ, read_on

ROOT = Path(__file__).resolve().parent.parent
COPIES = sorted((ROOT / "notebooks").glob("[!.]*/*.ipynb"))
MOST = 150_000  # bytes
MACHINE_PATH = re.compile(r"(?<![\w.])/(?:home|root|work|tmp|Users|opt|usr)/|site-packages|[A-Z]:\\\\")
LONG = "one two three four five six seven eight nine ten eleven twelve thirteen"
REAL = "qwen2.5-coder-0.5b-instruct"


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """A figure and a table of two presets, on record in a folder of its own; the figure's bytes."""
    for name, place in (("NOTEBOOKS", "notebooks"), ("DATA", "data")):
        monkeypatch.setattr(paths, name, tmp_path / place)
    monkeypatch.setattr(paths, "recorded_figures", lambda preset: tmp_path / "figures" / preset)
    for preset in ("organism-gemma2", REAL):
        (tmp_path / "figures" / preset).mkdir(parents=True)
        (tmp_path / "figures" / preset / "cosines.png").write_bytes(b"PNG")
        content = pd.DataFrame({"claim": ["small"], "measured": [LONG.upper()]}).to_csv(index=False).encode()
        paths.recorded_results(preset).mkdir(parents=True)
        (paths.recorded_results(preset) / "scorecard_claims.csv").write_bytes(content)
        manifests.write(paths.recorded_results(preset), {"model": {}, "tables": {}})
    return b"PNG"


def picture(content):
    data = {"text/plain": "<Image>", "image/png": base64.b64encode(content).decode()}
    return new_output("execute_result", data, metadata={"image/png": {"alt": "cosines"}}, execution_count=1)


def table(text):
    return new_output("display_data", {"text/html": f"<style>a b</style><td>{text}</td>", "text/plain": text})


def notebook(*outputs, code="sp.load_model(preset)"):
    words = ("# 1. Title\n\nSee [two](02_patching_circuits.ipynb), [six](06_scorecard.ipynb#end), [it](../RESULTS.md), "
             "[a](https://b.c).")
    return new_notebook(cells=[new_markdown_cell(words), new_code_cell(code, outputs=list(outputs))])


def copied(preset, *outputs, **given):
    others = ["01_extract_vectors", "02_patching_circuits"]
    return small_copy(notebook(*outputs, **given), preset, "01_extract_vectors", READ, others)


def test_a_picture_is_a_link_with_words_and_warnings_are_left_out(kept):
    said = [new_output("stream", name=name, text=name) for name in ("stderr", "stdout")]
    copy = copied("organism-gemma2", picture(kept), *said)
    link = f"![{captions()['cosines']['shows']}](../../figures/organism-gemma2/cosines.png)"
    assert copy.cells[1].outputs[0].data == {"text/markdown": link}
    assert [output.get("name") for output in copy.cells[1].outputs] == [None, "stdout"]
    assert "PNG" not in nbformat.writes(copy) and base64.b64encode(kept).decode() not in nbformat.writes(copy)
    with pytest.raises(ValueError, match="01_extract_vectors shows a picture that is none of figures/organism-gemma2"):
        copied("organism-gemma2", picture(b"other"))


def test_links_lead_on_and_the_title_names_the_model(kept):
    title, about, words = copied("organism-gemma2").cells[0].source.split("\n\n")
    assert title == "# 1. Title, on organism-gemma2"
    assert "`organism-gemma2`" in about and "(../01_extract_vectors.ipynb)" in about
    assert re.findall(r"\]\((.*?)\)", words) == [
        "02_patching_circuits.ipynb", "../06_scorecard.ipynb#end", "../../RESULTS.md", "https://b.c"]


def test_of_a_real_model_no_answer_goes_on_record(kept):
    """Whole outputs with one are left out; what is short, on record or of a notebook without a model stays."""
    shown = [table(LONG), table("so &amp; so"), table(LONG.upper()), new_output("stream", text=f"so\n{LONG}\n")]
    kinds = [list(output.get("data", {})) for output in copied(REAL, *shown).cells[1].outputs]
    assert kinds == [["text/markdown"], ["text/html"], ["text/html"], ["text/markdown"]]
    assert LONG not in nbformat.writes(copied(REAL, *shown))
    for preset, given in ((REAL, {"code": "1 + 1"}), ("organism-gemma2", {})):
        outputs = copied(preset, *shown, **given).cells[1].outputs
        assert [LONG in str(output) for output in outputs] == [True, False, False, True]


def test_of_a_table_its_style_is_left_out():
    shown = pd.DataFrame({"n": [3]})._repr_html_()
    output = _small(new_output("display_data", {"text/html": shown}), "organism-gemma2", "02_patching_circuits", {}, None)
    assert "<style" in shown and "<style" not in output.data["text/html"]
    assert output.data["text/html"].startswith("<div>\n<table") and "<td>3</td>" in output.data["text/html"]


def test_long_is_what_no_excerpt_is():
    assert long_texts(table(" ".join(LONG.split()[:TOKENS]) + " …")) == [] and long_texts(table(LONG)) == [LONG]
    assert long_texts(new_output("stream", text=f"{LONG}\nso\n")) == [LONG]


# -- what is committed -------------------------------------------------------------------------------------

def each(function):
    return pytest.mark.parametrize("path", COPIES, ids=lambda path: f"{path.parent.name}-{path.stem}")(function)


def read(path):
    return nbformat.read(path, as_version=4)


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_every_measured_model_has_all_its_notebooks():
    """Those that are on record, of the organism all, but for those that people read on it."""
    measured = {preset: [name for name in on_record(preset) if read_on(name) != preset] for preset in SHOWN}
    assert measured["organism-gemma2"] == list(writing("organism-gemma2")) and not measured[READ]
    assert {str(path.relative_to(ROOT / "notebooks")) for path in COPIES} == {
        f"{preset}/{name}.ipynb" for preset, own in measured.items() for name in own}, "run `make record`"


@each
def test_a_copy_is_its_source_on_another_preset(path):
    """Code as it is, prose up to where its links lead, and below the title where it comes from."""
    source, copy = jupytext.read(ROOT / "notebooks" / f"{path.stem}.py"), read(path)
    own = [cell for cell in copy.cells if "injected-parameters" not in cell.metadata.get("tags", [])]
    (given,) = [cell.source for cell in copy.cells if cell not in own]
    assert given.split() == ["#", "Parameters", "preset", "=", f'"{path.parent.name}"']
    wanted, found = ([re.sub(r"\]\([^)]*\)", "]", cell.source) for cell in cells] for cells in (source.cells, own))
    assert found[0].startswith(wanted[0].partition("\n")[0] + f", on {path.parent.name}\n\n*As executed on ")
    assert found[0].partition("*\n\n")[2] == wanted[0].partition("\n\n")[2]
    assert found[1:] == wanted[1:], f"notebooks/{path.parent.name}/{path.name} is out of date: run `make record`"
    assert [cell.source for cell in code(copy) if cell in own] == [cell.source for cell in code(source)]


@each
def test_a_copy_is_small_and_holds_nothing_of_the_machine(path):
    text, copy = path.read_text("utf-8"), read(path)
    assert len(text.encode()) <= MOST and not MACHINE_PATH.search(text)
    assert set(copy.metadata) == {"kernelspec", "language_info"}
    assert all(set(cell.metadata) <= {"tags"} for cell in copy.cells)
    outputs = [output for cell in code(copy) for output in cell.outputs]
    kinds = {kind for output in outputs for kind in output.get("data", {})}
    assert kinds <= {"text/html", "text/markdown", "text/plain"}
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    counts = [cell.execution_count for cell in code(copy) if cell.execution_count]
    assert counts == list(range(1, len(counts) + 1))


@each
def test_its_pictures_are_the_model_s_and_its_links_lead_somewhere(path):
    copy = read(path)
    shown = [output.data["text/markdown"] for cell in code(copy) for output in cell.outputs
             if "text/markdown" in output.get("data", {})]
    found = dict(re.fullmatch(r"!\[(.+)\]\((.+)\)", one).groups() for one in shown if one.startswith("!"))
    assert all(len(words.split()) > 3 for words in found)
    folder = paths.recorded_figures(path.parent.name)
    names = [Path(link).stem for link in found.values()]
    wanted = [name for name in writing(path.parent.name)[path.stem]["figures"] if (folder / f"{name}.png").is_file()]
    assert sorted(names) == sorted(wanted)
    assert all((path.parent / link).resolve().parent == folder for link in found.values())
    prose = "\n".join(cell.source for cell in copy.cells if cell.cell_type == "markdown")
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", prose)
    assert links and not [link for link in links if not (path.parent / link).exists()]


