"""Executed notebooks as they are committed."""

import base64

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from steerpaper import paths, recording
from steerpaper.recording import committed


def executed():
    """As papermill leaves a notebook: parameters put in, times and paths in the metadata."""
    cells = [
        new_markdown_cell("# 1. Title"),
        new_code_cell('preset = "organism-llama"', execution_count=1, metadata={"tags": ["parameters"]}),
        new_code_cell('# Parameters\npreset = "organism-llama"\n', execution_count=2,
                      metadata={"tags": ["injected-parameters"], "papermill": {"duration": 0.1}}),
        new_code_cell("1 + 1", execution_count=3, metadata={"execution": {"iopub.execute_input": "2026"}},
                      outputs=[new_output("execute_result", {"text/plain": "2"}, execution_count=3)]),
    ]
    kernel = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    about = {"kernelspec": kernel, "language_info": {"name": "python", "version": "3.11.7"},
             "papermill": {"input_path": "/home/me/01.ipynb"}}
    return new_notebook(cells=cells, metadata=about)


def test_what_people_read_is_the_notebook_executed_by_itself():
    notebook = committed(executed(), injected=False)
    assert [cell.source for cell in notebook.cells] == ["# 1. Title", 'preset = "organism-llama"', "1 + 1"]
    assert [cell.get("execution_count") for cell in notebook.cells] == [None, 1, 2]
    assert notebook.cells[-1].outputs[0].execution_count == 2 and notebook.cells[-1].outputs[0].data["text/plain"] == "2"
    assert [dict(cell.metadata) for cell in notebook.cells] == [{}, {"tags": ["parameters"]}, {}]
    assert set(notebook.metadata) == {"kernelspec", "language_info"} and "home" not in nbformat.writes(notebook)
    nbformat.validate(notebook)


def test_progress_bars_are_left_out_and_warnings_stay():
    notebook = executed()
    bar = "\rcandidates:   0%|          | 0/9 [00:00<?, ?layer/s]\n\rgenerate:   0%|  | 0/2\x1b[A\r        \r"
    notebook.cells[-1].outputs += [new_output("stream", name="stderr", text=text) for text in (bar, "\x1b[A", f"warned\n{bar}")]
    outputs = committed(notebook, injected=True).cells[-1].outputs
    assert [output.get("text") for output in outputs] == [None, "warned\n\n"]


def test_what_was_said_in_pieces_is_one_text():
    """How often a kernel flushes depends on the machine; what stands between two pieces keeps them apart."""
    said = [("stdout", "one "), ("stdout", "two\n"), ("stderr", "warned\n"), ("stderr", "\r 50%"), ("stdout", "three\n")]
    notebook = executed()
    notebook.cells[-1].outputs += [new_output("stream", name=name, text=text) for name, text in said]
    outputs = committed(notebook, injected=True).cells[-1].outputs[1:]
    assert [(output.name, output.text) for output in outputs] == [
        ("stdout", "one two\n"), ("stderr", "warned\n"), ("stdout", "three\n")]


def test_widgets_are_left_out_with_their_state():
    notebook = executed()
    shown = {"application/vnd.jupyter.widget-view+json": {"model_id": "1f72"}, "text/plain": "interactive(...)"}
    notebook.cells[-1].outputs.insert(0, new_output("display_data", shown))
    notebook.metadata["widgets"] = {"application/vnd.jupyter.widget-state+json": {"state": {"1f72": {}}}}
    kept = committed(notebook, injected=True)
    assert kept.cells[-1].outputs == committed(executed(), injected=True).cells[-1].outputs
    assert "1f72" not in nbformat.writes(kept)


def test_recordings_keep_their_parameters_and_ids_stay():
    first, second = (committed(executed(), injected=True) for _ in range(2))
    assert [cell.id for cell in first.cells] == ["cell-001", "cell-002", "injected-parameters", "cell-003"]
    assert nbformat.writes(first) == nbformat.writes(second)
    assert [cell.id for cell in committed(executed(), injected=False).cells] == ["cell-001", "cell-002", "cell-003"]


def test_a_notebook_of_other_parameters_is_not_what_people_read():
    other = executed()
    other.cells[2].source = '# Parameters\npreset = "tiny"\n'
    with pytest.raises(ValueError, match='executed with preset = "tiny", not with its own parameters'):
        committed(other, injected=False)


def test_of_a_notebook_that_ended_early_stays_what_it_found():
    notebook = executed()
    said = [new_output("stream", name="stdout", text="nothing to steer\n"),
            new_output("error", ename="SystemExit", evalue="", traceback=["SystemExit"]),
            new_output("stream", name="stderr", text="/home/me/interactiveshell.py: To exit: use 'exit'")]
    notebook.cells[-1].outputs = said
    notebook.cells.append(new_code_cell("2 + 2"))
    ended = committed(notebook, injected=False)
    assert [cell.get("execution_count") for cell in ended.cells] == [None, 1, 2, None]
    assert [output.get("text") for output in ended.cells[-2].outputs] == ["nothing to steer\n"]
    assert "/home/me" not in nbformat.writes(ended)
    nbformat.validate(ended)


@pytest.fixture
def build(tmp_path, monkeypatch):
    """A build folder with one notebook of organism-gemma2 that shows a picture on record, and a copy of a notebook that
    is no more."""
    for name, place in (("BUILD", "build"), ("NOTEBOOKS", "notebooks")):
        monkeypatch.setattr(paths, name, tmp_path / place)
    monkeypatch.setattr(paths, "recorded_figures", lambda preset: tmp_path / "figures" / preset)
    monkeypatch.setattr(recording, "on_record", lambda preset: {"01_extract_vectors": {}})
    monkeypatch.setattr(recording, "read_on", lambda name: "organism-llama")
    monkeypatch.setattr(recording, "record_running_times",
                        lambda presets: (tmp_path / "times").write_text(" ".join(presets)))
    for folder in ("build/organism-gemma2", "notebooks/organism-gemma2", "figures/organism-gemma2"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "notebooks/organism-gemma2/07_old.ipynb").touch()
    (tmp_path / "figures/organism-gemma2/cosines.png").write_bytes(b"PNG")
    notebook = executed()
    notebook.cells[2].source = '# Parameters\npreset = "organism-gemma2"\n'
    picture = {"image/png": base64.b64encode(b"PNG").decode(), "text/plain": "<Image>"}
    notebook.cells[-1].outputs = [new_output("execute_result", picture, execution_count=3)]
    nbformat.write(notebook, tmp_path / "build/organism-gemma2/01_extract_vectors.ipynb")
    return tmp_path


def test_of_other_models_small_notebooks_go_on_record(build):
    recording.main("organism-gemma2")
    assert [path.name for path in (build / "notebooks").rglob("*.ipynb")] == ["01_extract_vectors.ipynb"]
    copy = nbformat.read(build / "notebooks/organism-gemma2/01_extract_vectors.ipynb", as_version=4)
    assert [cell.id for cell in copy.cells] == ["cell-001", "cell-002", "injected-parameters", "cell-003"]
    assert copy.cells[-1].outputs[0].data["text/markdown"].endswith("(../../figures/organism-gemma2/cosines.png)")
    assert (build / "times").read_text() == "organism-gemma2"
    nbformat.validate(copy)


def test_of_what_is_restored_the_copies_stay(build, monkeypatch):
    monkeypatch.setattr(recording, "on_record", lambda preset: {"01_extract_vectors": {}, "07_old": {}})
    recording.main("organism-gemma2")
    folder = build / "notebooks/organism-gemma2"
    assert sorted(path.name for path in folder.iterdir()) == ["01_extract_vectors.ipynb", "07_old.ipynb"]
    assert not (folder / "07_old.ipynb").read_bytes() and (folder / "01_extract_vectors.ipynb").read_bytes()
    (folder / "07_old.ipynb").unlink()
    with pytest.raises(FileNotFoundError, match="07_old"):
        recording.main("organism-gemma2")


def test_a_picture_that_is_not_on_record_leaves_them_as_they_were(build):
    (build / "figures/organism-gemma2/cosines.png").write_bytes(b"another")
    with pytest.raises(ValueError, match="none of figures/organism-gemma2"):
        recording.main("organism-gemma2")
    assert [path.name for path in (build / "notebooks").rglob("*.ipynb")] == ["07_old.ipynb"]


def test_what_people_read_on_a_preset_has_no_small_copy(build, monkeypatch):
    monkeypatch.setattr(recording, "read_on", lambda name: "organism-gemma2")
    with pytest.raises(ValueError, match="executed with"):  # its own parameters would be other ones
        recording.main("organism-gemma2")
    notebook = nbformat.read(build / "build/organism-gemma2/01_extract_vectors.ipynb", as_version=4)
    notebook.cells[1].source = 'preset = "organism-gemma2"'
    for name in recording.outputs():
        nbformat.write(notebook, build / f"build/organism-gemma2/{name}.ipynb")
    recording.main("organism-gemma2")
    found = sorted(path.relative_to(build / "notebooks").as_posix() for path in (build / "notebooks").rglob("*.ipynb"))
    assert found == [f"{name}.ipynb" for name in recording.outputs()]


def test_a_notebook_is_read_on_the_preset_of_its_own_parameters():
    assert recording.read_on("01_extract_vectors") == "organism-llama"
    assert recording.read_on("08_second_concept") == "organism-llama-taught"


def test_of_a_model_without_a_page_none_do(build):
    recording.main("tiny")
    assert [path.name for path in (build / "notebooks").rglob("*.ipynb")] == ["07_old.ipynb"]
