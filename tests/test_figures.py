import itertools
import json
import subprocess
import sys

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from steerpaper import paths
from steerpaper.figures import style
from steerpaper.figures.style import PALETTE, save_figure, use_style

SAVE = """
import hashlib, json, sys
from pathlib import Path
from matplotlib.figure import Figure
from steerpaper import paths
from steerpaper.figures import style
paths.figures = lambda preset: Path(sys.argv[1]) / preset
style.use_style()
axes = (figure := Figure(figsize=(style.SINGLE_COLUMN, 2))).subplots()
axes.fill_between([0, 1, 2], [0, 1, 0], [1, 2, 3], color=style.PALETTE["+s"], label="$+s$")
axes.plot([0, 1, 2], [1, 0, 2], "o-", color=style.PALETTE["base"], label="base")
axes.legend()
style.save_figure(figure, "tiny", "fig2_faithfulness")
files = (Path(sys.argv[1]) / "tiny").iterdir()
print(json.dumps({file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}))
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "figures", lambda preset: tmp_path / preset)
    with mpl.rc_context():
        yield tmp_path / "tiny"


def test_two_processes_save_the_same_bytes(tmp_path):
    digests = []
    for run in ("first", "second"):
        command = [sys.executable, "-c", SAVE, str(tmp_path / run)]
        digests.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    assert digests[0] == digests[1]
    assert digests[0].keys() == {"fig2_faithfulness.svg", "fig2_faithfulness.png"}


def test_saving_twice_gives_the_same_bytes_and_leaves_no_other_file(folder):
    figure = Figure()
    figure.subplots().hist(np.arange(10))
    save_figure(figure, "tiny", "hist")
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    save_figure(figure, "tiny", "hist")
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    assert before.keys() == {"hist.svg", "hist.png"}


def test_what_is_returned_is_the_picture_saved(folder):
    image = save_figure(Figure(figsize=(style.DOUBLE_COLUMN, 2)), "tiny", "fig2_faithfulness")
    assert image.data == (folder / "fig2_faithfulness.png").read_bytes()
    assert (image.format, image.width, image.alt) == ("png", 748, "fig2 faithfulness")
    assert repr(image) == "<IPython.core.display.Image object>"  # nbval compares it


def test_a_saved_figure_is_closed_and_may_be_saved_again(folder):
    figure, other = plt.figure(), plt.figure()
    first = save_figure(figure, "tiny", "a")
    assert not plt.fignum_exists(figure.number) and plt.fignum_exists(other.number)
    assert save_figure(figure, "organism-llama", "a").data == first.data
    plt.close(other)


def test_svg_holds_no_date(folder):
    save_figure(Figure(), "tiny", "empty")
    assert "dc:date" not in (folder / "empty.svg").read_text()


@pytest.mark.parametrize("name", ["", "a/b", "fig2.svg"])
def test_names_are_plain(folder, name):
    with pytest.raises(ValueError, match="plain name"):
        save_figure(Figure(), "tiny", name)


def test_unknown_presets_are_refused(folder):
    with pytest.raises(ValueError, match="unknown preset"):
        save_figure(Figure(), "small", "a")


def test_a_figure_that_cannot_be_drawn_leaves_no_file(folder):
    figure = Figure()
    figure.text(0, 0, "$\\nonsense$")
    with pytest.raises(ValueError):
        save_figure(figure, "tiny", "broken")
    assert not folder.exists()


def test_importing_changes_no_plot_defaults():
    code = """import matplotlib; before = dict(matplotlib.rcParams)
import steerpaper.figures; assert before == dict(matplotlib.rcParams)"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_style_is_complete():
    with mpl.rc_context():
        use_style()
        assert mpl.rcParams["figure.figsize"][0] == style.SINGLE_COLUMN
        cycle = [color["color"] for color in mpl.rcParams["axes.prop_cycle"]]
    assert [to_rgb(color) for color in cycle] == [to_rgb(PALETTE[name]) for name in list(PALETTE)[:6]]


# Full deuteranopia and protanopia in linear RGB (Machado, Oliveira and Fernandes 2009, severity 1).
DEFICIENCIES = {
    "none": np.eye(3),
    "deuteranopia": [[0.3673, 0.8606, -0.2280], [0.2801, 0.6725, 0.0474], [-0.0118, 0.0429, 0.9689]],
    "protanopia": [[0.1523, 1.0526, -0.2049], [0.1145, 0.7863, 0.0992], [-0.0039, -0.0481, 1.0520]],
}


def lab(color: str, deficiency) -> np.ndarray:
    """CIELAB of a colour as seen with a deficiency of colour vision (D65 white)."""
    rgb = np.array(to_rgb(color))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    linear = np.clip(np.asarray(deficiency) @ linear, 0, 1)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    x, y, z = np.cbrt(to_xyz @ linear / to_xyz.sum(1))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("deficiency", DEFICIENCIES)
@pytest.mark.parametrize(
    "group", [("base", "-s", "+s", "random"), ("harmful", "harmless"), ("dim", "ntp", "po", "random")]
)
def test_colours_shown_together_can_be_told_apart(group, deficiency):
    seen = {name: lab(PALETTE[name], DEFICIENCIES[deficiency]) for name in group}
    distances = {(a, b): np.linalg.norm(seen[a] - seen[b]) for a, b in itertools.combinations(group, 2)}
    assert min(distances.values()) > 20, distances
