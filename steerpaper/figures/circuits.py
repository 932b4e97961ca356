"""The drawing of a circuit (figures 13 to 18).

Time runs from left to right. The bottom row holds the steering node, the MLPs and the logits, with the edges among them
as arcs below it. Above it stand, layer by layer, the inputs of the attention heads (q, k, v) and right of them the
heads, with thin grey lines from an input to the heads that it feeds.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import PathPatch
from matplotlib.path import Path

from steerpaper.circuits.graph import Graph, Node
from steerpaper.figures.style import DOUBLE_COLUMN, PALETTE

_COLUMN, _ROW, _ARC = 0.29, 0.23, 0.09  # inches per column, per row, and of an arc's depth per column
_GAP = 2.5  # rows between the bottom row and the lowest head
_THIN, _THICK = 0.3, 3.5  # points
_LINK = "#bbbbbb"


def draw_circuit(graph: Graph, edges: pd.DataFrame, title: str = "", thickest: float | None = None) -> Figure:
    """Draw scored edges, as large as they need, at least two text columns wide.

    Args:
        graph: where the edges come from; tells which heads share their keys and values.
        edges: columns source, target, score.
        thickest: |score| of the thickest line, to draw several circuits on one scale; by default the largest here.

    Raises:
        ValueError: no edges, ones that the graph does not have, or scores that are missing or not finite.
    """
    if not len(edges):
        raise ValueError("no edges to draw: pass a circuit's edges with their scores")
    graph.index(edges)
    scores = edges.get("score", pd.Series(dtype=object))
    if scores.dtype.kind not in "if" or not np.isfinite(scores).all() or not scores.any():
        raise ValueError("edges to draw need the column score, a finite number for each, not all of them 0: colour and "
                         "width are made of it; take rows of att.edges")
    places = layout(graph, edges)
    depth = _ARC * _longest_arc(places, edges)
    columns, rows = places.x.max() + 1, places.y.max() + 1
    width = max(DOUBLE_COLUMN, _COLUMN * (columns + 1))
    fig, ax = plt.subplots(figsize=(width, _ROW * (rows + 3) + depth + 0.2))
    ax.set(xlim=(-1, columns), ylim=(-depth / _ROW - 1, rows + 1))
    ax.axis("off")
    _bands(ax, places, rows)
    _links(ax, graph, places)
    thickest = thickest or edges.score.abs().max()
    _edges(ax, places, edges, thickest)
    _nodes(ax, places)
    _legend(ax, thickest)
    fig.suptitle(title)
    return fig


def layout(graph: Graph, edges: pd.DataFrame) -> pd.DataFrame:
    """Where the nodes of some edges stand, one to a place: columns x, y, layer, kind and label, indexed by node.

    x counts columns from the left, empty ones left out; y counts rows from the bottom row up. `kind` is
    "spine" (steering node, MLPs, logits), "input" or "head".
    """
    names = set(edges["source"]) | set(edges["target"])
    rows = [(node, *_described(graph, node)) for node in names]
    table = pd.DataFrame(rows, columns=["node", "layer", "kind", "order", "label"])
    table = table.sort_values(["layer", "kind", "order", "label"], key=_left_to_right).set_index("node")
    table["x"] = table.groupby(["layer", "kind"], sort=False).ngroup()
    table.loc[table.index == "logits", "x"] += 1  # a wide label
    above = table.kind != "spine"
    height = table[above].groupby("x").size().max() if above.any() else 0
    in_column = table.groupby("x").cumcount()
    size = table.groupby("x").x.transform("size")
    # Top to bottom in the head's order, each column centred.
    table["y"] = (_GAP + (height + size) / 2 - 1 - in_column).where(above, 0.0)
    return table[["x", "y", "layer", "kind", "label"]]


def _left_to_right(column: pd.Series) -> pd.Series:
    """Sort key of the kinds within a layer: inputs, heads, then the MLP."""
    return column.map({"input": 0, "head": 1, "spine": 2}) if column.name == "kind" else column


def _described(graph: Graph, name: str) -> tuple[int, str, float, str]:
    """Layer, kind, order from the top and label of a node."""
    node = graph.node(name)
    if node.kind in ("steer", "mlp", "logits"):
        return node.layer - (node.kind == "steer"), "spine", 0, name
    if node.kind == "head":
        return node.layer, "head", node.head, f"h{node.head}"
    return node.layer, "input", min(fed(graph, node)), node.kind + ("" if node.head is None else str(node.head))


def fed(graph: Graph, target: Node) -> range:
    """The query heads that a q, k or v target feeds."""
    if target.head is None:
        return range(graph.n_heads)
    group = 1 if target.kind == "q" else graph.n_heads // graph.n_kv_heads
    return range(target.head * group, (target.head + 1) * group)


# -- what is drawn -----------------------------------------------------------------------------------------

def _bands(ax: Axes, places: pd.DataFrame, rows: float) -> None:
    """A light band behind every other layer, and the layers' numbers above."""
    ax.text(-0.8, rows + 0.4, "layer", ha="left", va="center", size=7)
    for i, (layer, nodes) in enumerate(places[~places.index.isin(["steer", "logits"])].groupby("layer")):
        left, right = nodes.x.min() - 0.5, nodes.x.max() + 0.5
        if i % 2 == 0:
            ax.axvspan(left, right, color="#f4f4f4", lw=0, zorder=0)
        ax.text((left + right) / 2, rows + 0.4, f"{layer}", ha="center", va="center", size=7)


def _links(ax: Axes, graph: Graph, places: pd.DataFrame) -> None:
    """Grey lines from every input to the heads that it feeds."""
    for target, place in places[places.kind == "input"].iterrows():
        for head in fed(graph, graph.node(target)):
            if (node := f"a{place.layer}.h{head}") in places.index:
                end = places.loc[node]
                ax.plot([place.x, end.x], [place.y, end.y], color=_LINK, lw=0.8, zorder=1)


def _edges(ax: Axes, places: pd.DataFrame, edges: pd.DataFrame, thickest: float) -> None:
    """The edges, the strongest on top and the weak ones faint."""
    for edge in edges.sort_values("score", key=abs).itertuples():
        start, end = places.loc[edge.source], places.loc[edge.target]
        colour, share = PALETTE["positive" if edge.score > 0 else "negative"], min(1, abs(edge.score) / thickest)
        ax.add_patch(PathPatch(_curve(start, end), fc="none", ec=colour, lw=_width(share), alpha=0.4 + 0.5 * share,
                               zorder=2, capstyle="round"))


def _width(share: float) -> float:
    """Points of the line of an edge whose |score| is this share of the thickest line's."""
    return _THIN + (_THICK - _THIN) * share


def _curve(start: pd.Series, end: pd.Series) -> Path:
    """An arc below the bottom row, or a straight line."""
    codes = [Path.MOVETO, Path.CURVE4, Path.CURVE4, Path.CURVE4]
    if start.kind == end.kind == "spine":
        depth = -_arc_depth(start, end) / _ROW * 4 / 3  # a cubic arc reaches three quarters of the way
        return Path([(start.x, 0), (start.x, depth), (end.x, depth), (end.x, 0)], codes)
    return Path([(start.x, start.y), (end.x, end.y)], codes[:1] + [Path.LINETO])


def _arc_depth(start: pd.Series, end: pd.Series) -> float:
    """Inches that an arc reaches below the bottom row."""
    return _ARC * (end.x - start.x) + 0.1


def _longest_arc(places: pd.DataFrame, edges: pd.DataFrame) -> float:
    """Columns that the longest arc spans."""
    spine = places.x[places.kind == "spine"]
    spans = edges["target"].map(spine) - edges["source"].map(spine)
    return float(spans.max()) if spans.notna().any() else 0.0


def _nodes(ax: Axes, places: pd.DataFrame) -> None:
    """The nodes' labels in boxes: round for inputs, square for what writes."""
    for node in places.itertuples():
        style = "round,pad=0.15" if node.kind == "input" else "square,pad=0.2"
        face = "white" if node.kind == "input" else "#fff3d6" if node.kind == "head" else "#e4ecd9"
        ax.text(node.x, node.y, node.label, ha="center", va="center", size=6, zorder=3,
                bbox=dict(boxstyle=style, fc=face, ec="#666666", lw=0.5))


def _legend(ax: Axes, thickest: float) -> None:
    """Signs, the scale of the widths, and the grey lines, above the drawing."""
    lines = [(PALETTE["positive"], 1.5, "score > 0: carries the steering"),
             (PALETTE["negative"], 1.5, "score < 0: works against it"),
             ("black", _THICK, f"{thickest:.2g} logits"), ("black", _width(0.2), f"{thickest / 5:.2g} logits"),
             (_LINK, 0.8, "input of a head")]
    handles = [Line2D([], [], color=colour, lw=width, label=label) for colour, width, label in lines]
    ax.legend(handles=handles, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=len(lines), handlelength=1.2,
              handletextpad=0.5, columnspacing=1.0)
