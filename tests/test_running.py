"""How long notebooks took goes on record of a run that computed everything, and of no other."""

import os
from datetime import UTC, datetime, timedelta

import nbformat
import pandas as pd
import pytest
from nbformat.v4 import new_notebook

from steerpaper import paths
from steerpaper.outputs import outputs
from steerpaper.paper.page import with_running_times
from steerpaper.running import record_running_times, running_times, running_times_table

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
NAMES = ["01_extract_vectors", "02_patching_circuits"]
EMPTY = "<!-- running-times -->\n<!-- /running-times -->"


@pytest.fixture
def build(tmp_path, monkeypatch):
    """Two executed notebooks of two organisms, of 60 and 90 seconds one after the other, and what they have kept."""
    for name, place in (("DATA", "data"), ("BUILD", "build")):
        monkeypatch.setattr(paths, name, tmp_path / place)
    monkeypatch.setattr("steerpaper.running.writing", lambda preset: NAMES)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "running_times.csv").write_text("preset,notebook,seconds\n")
    for preset in ("organism-llama", "organism-gemma2"):
        (tmp_path / "build" / preset / "kept").mkdir(parents=True)
        for name, start, seconds in ((NAMES[0], 0, 60), (NAMES[1], 60.2, 90)):
            times = [(START + timedelta(seconds=at)).isoformat() for at in (start, start + seconds)]
            about = {"papermill": dict(zip(("start_time", "end_time"), times))}
            nbformat.write(new_notebook(metadata=about), tmp_path / "build" / preset / f"{name}.ipynb")
        keep(preset, "first", 10)
    return tmp_path / "build"


def keep(preset, name, at):
    path = paths.BUILD / preset / "kept" / name
    path.touch()
    os.utime(path, 2 * ((START + timedelta(seconds=at)).timestamp(),))


def test_a_run_that_computed_everything_goes_on_record(build):
    record_running_times(["organism-llama", "organism-gemma2"])
    assert running_times().to_numpy().tolist() == [[preset, name, seconds] for preset in (
        "organism-gemma2", "organism-llama") for name, seconds in zip(NAMES, (60, 90))]
    shown = running_times_table()
    assert shown.notebook.tolist() == [*NAMES, "all"] and shown["organism-llama"].tolist() == ["1.0", "1.5", "2.5"]
    assert "| all | 2.5 | 2.5 |" in with_running_times(EMPTY)


@pytest.mark.parametrize("at", [-1, 200])  # left by an earlier run; in a folder that was copied
def test_a_run_that_took_something_up_leaves_the_record_as_it_is(build, at, capsys):
    record_running_times(["organism-gemma2"])
    before = running_times()
    nbformat.write(new_notebook(metadata={"papermill": {
        "start_time": START.isoformat(), "end_time": (START + timedelta(seconds=2)).isoformat()}}),
        build / "organism-gemma2" / f"{NAMES[0]}.ipynb")
    keep("organism-gemma2", "other", at)
    record_running_times(["organism-llama", "organism-gemma2"])
    pd.testing.assert_frame_equal(running_times().query("preset == 'organism-gemma2'"), before)
    assert set(running_times().preset) == {"organism-llama", "organism-gemma2"}
    assert "organism-gemma2: 1 computations are of another run" in capsys.readouterr().out


def test_without_a_record_the_page_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "DATA", tmp_path)
    (tmp_path / "running_times.csv").write_text("preset,notebook,seconds\n")
    record_running_times(["gemma-2-2b-it"])  # takes what its GPU takes
    assert running_times().empty
    assert "No run that computed everything is on record" in with_running_times(EMPTY)
    with pytest.raises(ValueError, match="one pair of markers"):
        with_running_times("nothing")


def test_what_is_on_record_is_of_notebooks_that_there_are():
    assert set(running_times().notebook) <= set(outputs()) and (running_times().seconds > 0).all()
