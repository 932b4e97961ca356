"""One look for every figure: colours by meaning, the paper's widths, files that are the same in every run."""

import re
from io import BytesIO
from itertools import cycle
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import matplotlib.style
import numpy as np
import pandas as pd
from IPython.display import Image
from jaxtyping import Float
from matplotlib.figure import Figure

from steerpaper import paths
from steerpaper.concepts import CONCEPTS
from steerpaper.paths import write_bytes
from steerpaper.presets import get_preset
from steerpaper.vectors.methods import METHODS

# Of every concept's positive and negative prompts.
_SETS = (("#AA4499", "#117733"), ("#332288", "#999933"), ("#661100", "#6699CC"))
# Told apart with the common colour-vision deficiencies within each line; grey is always the control.
PALETTE = {
    "base": "#333333", "-s": "#0072B2", "+s": "#D55E00", "random": METHODS["random"].colour,
    **{name: colour for concept, pair in zip(CONCEPTS.values(), cycle(_SETS))
       for name, colour in zip(concept.sets, pair)},
    "positive": "#2166AC", "negative": "#B2182B",
    **{method.name: method.colour for method in METHODS.values()},
}

# Widths of a figure in inches.
SINGLE_COLUMN = 3.3
DOUBLE_COLUMN = 6.8
_SCREEN_DPI = 110  # at which a figure is shown in a notebook, whatever its file's resolution


def method_label(method: str) -> str:
    """What figures call a method."""
    return "not steered" if method == "none" else METHODS[method].label


def with_labels(text: str) -> str:
    """A text with the names of methods in it as figures write them: "dim, norm skipped" becomes "DIM, norm skipped"."""
    methods = [name for name, method in METHODS.items() if not method.baseline]
    return re.sub(rf"\b({'|'.join(map(re.escape, methods))})\b", lambda found: method_label(found[1]), text)


def error_bars(rows: pd.DataFrame, value: str, ends: tuple[str, str] = ("low", "high")) -> Float[np.ndarray, "end row"]:
    """How far the ends of intervals lie from a column's values, as `Axes.errorbar` takes it; 0 where there is none."""
    return rows[list(ends)].sub(rows[value], axis=0).abs().fillna(0).to_numpy().T


def use_style() -> None:
    """Set the plot defaults of `paper.mplstyle` for the rest of the session."""
    mpl.style.use(Path(__file__).with_name("paper.mplstyle"))


def save_figure(fig: Figure, preset: str, name: str) -> Image:
    """Save a finished figure as `<name>.svg` and `<name>.png` in the preset's folder, the same bytes in every run.

    The figure is closed, so that a notebook does not show it a second time, drawn anew.

    Returns:
        The picture that was saved, bytes of `<name>.png`: as the last value of a cell it is what the notebook shows.

    Raises:
        ValueError: an unknown preset, or a name with a folder or a suffix.
    """
    folder = paths.figures(get_preset(preset).name)
    if not name or Path(name).name != name or Path(name).suffix:
        raise ValueError(f"figure name {name!r}: give a plain name such as 'fig2_faithfulness'")
    # Without a date, and with element ids from the name instead of from chance.
    drawn = {}
    with mpl.rc_context({"svg.hashsalt": name}):
        for suffix, metadata in (("svg", {"Date": None}), ("png", None)):
            content = BytesIO()
            fig.savefig(content, format=suffix, metadata=metadata)
            drawn[suffix] = content.getvalue()
    for suffix, content in drawn.items():
        write_bytes(folder / f"{name}.{suffix}", content)
    plt.close(fig)
    width = round(_SCREEN_DPI * fig.get_figwidth())
    return Image(data=drawn["png"], width=width, alt=name.replace("_", " "))
