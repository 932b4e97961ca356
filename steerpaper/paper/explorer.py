"""The explorer: a page per model on record that shows its circuits at any size, in one file that needs no server and no
network. `make site` writes it to `explorer/<preset>.html`.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from string import Template

import altair as alt
import numpy as np
import pandas as pd
import vl_convert

from steerpaper import manifests, paths
from steerpaper.artifacts import load_table
from steerpaper.circuits.graph import Graph, Node
from steerpaper.concepts import get_concept
from steerpaper.figures.explorer import MOST, draw_explored_circuit, draw_explored_sizes, least_width
from steerpaper.figures.style import method_label
from steerpaper.presets import get_preset
from steerpaper.vectors.methods import METHODS

_TABLES = ("edge_scores", "fig3_faithfulness", "random_circuits", "svv_tokens")
_WORDS = 6  # tokens that a tooltip shows
_TEMPLATE = Path(__file__).with_name("explorer.html")


def explored(presets: Iterable[str]) -> list[str]:
    """Those of the presets that have all that a page shows on record, the score of every edge by method included."""
    found = []
    for preset in presets:
        tables = manifests.read(paths.recorded_results(preset))["tables"]
        if all(name in tables for name in _TABLES) and set(METHODS) & set(tables["edge_scores"]["columns"]):
            found.append(preset)
    return found


def explorer_page(preset: str, presets: Iterable[str] = ()) -> str:
    """The page of one preset, as HTML.

    Args:
        presets: all that have a page; those of the same model, steered by other concepts, are in a menu.
    """
    scores, curves, random, tokens = (load_table(preset, name, recorded=True) for name in _TABLES)
    methods = [name for name in scores if name in METHODS]
    graph = graph_of(scores)
    edges = strongest_edges(graph, scores[["source", "target", *methods]])
    charts = {"circuit": draw_explored_circuit(graph, edges, _told(graph, scores, tokens, methods))}
    for prompts in get_concept(get_preset(preset).concept).sets:
        charts[prompts] = draw_explored_sizes(*(table[table.prompts == prompts] for table in (curves, random)))
    return Template(_TEMPLATE.read_text("utf-8")).substitute(
        preset=preset, concepts=_menu(preset, presets), most=f"{MOST:,}", edges=f"{graph.n_edges:,}",
        layer=graph.steering_layer, random=method_label("dim"), width=least_width(graph, edges),
        sizes="".join(f"<figure><figcaption>{prompts} test prompts</figcaption><div id='{prompts}'></div></figure>"
                      for prompts in list(charts)[1:]),
        charts=_script(charts), vega=vl_convert.javascript_bundle(vl_version=alt.SCHEMA_VERSION.rpartition(".")[0]),
    )


def graph_of(edges: pd.DataFrame) -> Graph:
    """The graph that has these edges, its sizes read from their names (columns source, target).

    Raises:
        ValueError: not all edges of one graph.
    """
    nodes = [Node.of(name) for name in pd.unique(edges[["source", "target"]].to_numpy().ravel())]
    layers = [node.layer for node in nodes if node.kind == "mlp"]
    heads, groups = (1 + max(node.head for node in nodes if node.kind == kind) for kind in ("q", "k"))
    graph = Graph(max(layers) + 1, heads, groups, min(layers))
    if not np.array_equal(graph.edges.to_numpy(), edges[["source", "target"]].to_numpy()):
        raise ValueError(f"the table's {len(edges)} edges are not the {graph.n_edges} of {graph}, in its order")
    return graph


def strongest_edges(graph: Graph, scores: pd.DataFrame) -> pd.DataFrame:
    """The edges of every method's circuit of `MOST` edges: columns source, target, and for each method score_<method>
    and from_<method>, the size of its smallest circuit that has the edge; beyond `MOST` where none of them has.

    A circuit is that of `Circuit.top`: the strongest edges of which each lies on some path from the steering node to
    the logits. Of equally strong ones the first in the graph's order comes first.

    Args:
        scores: all edges of the graph, in its order: columns source, target, and one of scores per method.
    """
    methods = list(scores.columns.drop(["source", "target"]))
    sizes = pd.DataFrame({f"from_{name}": _sizes(graph, scores[name].to_numpy()) for name in methods})
    table = scores.rename(columns={name: f"score_{name}" for name in methods}).join(sizes)
    return table[(sizes <= MOST).any(axis=1)].reset_index(drop=True)


def _sizes(graph: Graph, scores: np.ndarray) -> np.ndarray:
    """Of every edge, the size of the smallest circuit of strongest edges that has it; `MOST` + 1 for larger ones."""
    sizes, mask = np.full(graph.n_edges, MOST + 1), np.zeros_like(graph.mask)
    source, target = np.nonzero(graph.mask)
    for edge in np.argsort(-np.abs(scores), kind="stable"):
        mask[source[edge], target[edge]] = True
        circuit = graph.prune(mask)[graph.mask]
        if (size := circuit.sum()) > MOST:
            break
        sizes[circuit] = np.minimum(sizes[circuit], size)
    return sizes


def _told(graph: Graph, scores: pd.DataFrame, tokens: pd.DataFrame, methods: list[str]) -> pd.DataFrame:
    """What the nodes' tooltips say, method by method, as text; missing where there is nothing to say."""
    table = pd.DataFrame(index=pd.Index(dict.fromkeys([*graph.sources, *graph.targets]), name="node"))
    for name in methods:
        for words, side in (("out", "source"), ("into", "target")):
            table[f"{words}_{name}"] = scores.groupby(side)[name].sum().map("{:.3g} logits together".format)
        shown = tokens[(tokens.method == name) & (tokens.rank_shown <= _WORDS)]
        table[f"tokens_{name}"] = pd.Series({
            _node(vector): "with its sign flipped: " * (sign < 0) + ", ".join(f"“{word.strip()}”" for word in own.token)
            for (vector, sign), own in shown.groupby(["vector", "sign"])})
    return table.reset_index()


def _node(vector: str) -> str:
    """The node that writes a steering value vector, by what the table of tokens calls it."""
    if vector == "SV":
        return "steer"
    return vector.replace("MLP ", "m").replace("L", "a", 1).replace("H", ".h")


def _menu(preset: str, presets: Iterable[str]) -> str:
    """A menu of the concepts by which this model is steered; nothing where there is but one."""
    same = [other for other in presets if get_preset(other).model == get_preset(preset).model]
    options = "".join(f"<option value='{other}.html'{' selected' * (other == preset)}>"
                      f"{get_preset(other).concept}</option>" for other in same)
    return f"<label>concept <select onchange='location = value'>{options}</select></label>" if len(same) > 1 else ""


def _script(charts: dict[str, alt.LayerChart]) -> str:
    """The drawings by the element they go to, safe within a script."""
    with alt.data_transformers.enable("default", max_rows=None):
        drawn = {name: chart.to_dict() for name, chart in charts.items()}
    return json.dumps(drawn, allow_nan=False, separators=(",", ":"), ensure_ascii=False).replace("</", "<\\/")
