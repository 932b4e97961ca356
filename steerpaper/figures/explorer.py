"""The drawings of the explorer, a page on which a circuit can be had at any size: declared with Altair, drawn by Vega
in the reader's browser. The layout is that of the drawings of circuits.

Both drawings read the page's controls by name: `edges` (how many), `method`, and `other` (a method to lay over it, or
"none"). Only the circuit's has them on the page; `paper.explorer` passes them on to the others.
"""

import altair as alt
import numpy as np
import pandas as pd

from steerpaper.circuits.graph import Graph
from steerpaper.figures.circuits import fed, layout
from steerpaper.figures.faithfulness import BANDS, FAITHFUL
from steerpaper.figures.style import PALETTE, method_label

MOST = 1000  # edges that can be shown of a method
_FIRST = 100  # edges shown at the start, as in figure 13
_THIN, _THICK, _HIT = 0.6, 5, 9  # pixels: of lines, and of what a pointer need meet
_BOTH = "#333333"
_FACES = {"spine": "#e4ecd9", "head": "#fff3d6", "input": "#ffffff"}
_ROW, _COLUMN = 21, 17  # pixels: a row's height, and the least width of a column
_ARC = 17  # points of an arc
_THESE = "datum.method == method || datum.method == other"


def controls(methods: list[str], *, bound: bool) -> list[alt.Parameter]:
    """What the page's drawings read: edges, method, other. Bound, they have a slider and menus in #controls."""
    def menu(options: list[str], name: str):
        words = [method_label(option) if option in methods else option for option in options]
        return alt.binding_select(options=options, labels=words, name=name, element="#controls")

    slider = alt.binding_range(min=1, max=MOST, step=1, name="edges", element="#controls")
    bindings = (slider, menu(methods, "method"), menu(["none", *methods], "compared with")) if bound else (None,) * 3
    return [alt.param(name, value=value, **({"bind": binding} if bound else {}))
            for name, value, binding in zip(("edges", "method", "other"), (_FIRST, methods[0], "none"), bindings)]


def draw_explored_circuit(graph: Graph, edges: pd.DataFrame, nodes: pd.DataFrame) -> alt.LayerChart:
    """The circuit of `edges` edges of a method, or how it differs from another's; a click on a node keeps its edges.

    Args:
        graph: where the edges come from.
        edges: columns source, target, and of every method score_<method> and from_<method>, the size of its smallest
            circuit that has the edge.
        nodes: columns node, and of every method out_<method>, into_<method> and tokens_<method>, what its tooltip says,
            as text: scores of the edges out of it and into it, top tokens of what steering makes it write.
    """
    methods = [name.removeprefix("from_") for name in edges if name.startswith("from_")]
    places = layout(graph, edges)
    nodes = _placed_nodes(graph, places, edges, methods).merge(nodes, "left", "node")
    straight, arcs = _placed_edges(places, edges)
    ends = {"x": (-1, places.x.max() + 1), "y": (min(arcs.y.min(), -1) - 0.5, places.y.max() + 2)}
    x, y = (alt.Scale(domain=list(map(float, ends[name])), nice=False) for name in "xy")
    at = {"x": alt.X("x:Q", axis=None, scale=x), "y": alt.Y("y:Q", axis=None, scale=y)}
    layers = [*_background(places, at), _links(graph, places, at)]
    for thickest in (float(edges[[f"score_{name}" for name in methods]].abs().max(axis=None)), None):
        layers += [_lines(straight, methods, thickest, at), _arcs(arcs, methods, thickest, at)]
    chart = alt.layer(*layers, *_nodes(nodes, methods, at))
    height = _ROW * (ends["y"][1] - ends["y"][0])
    return _plain(chart.properties(width="container", height=height).add_params(*controls(methods, bound=True)))


def least_width(graph: Graph, edges: pd.DataFrame) -> int:
    """Pixels that a drawing of these edges needs for its labels to be read."""
    return round(_COLUMN * (layout(graph, edges).x.max() + 2))


def draw_explored_sizes(curves: pd.DataFrame, random: pd.DataFrame) -> alt.LayerChart:
    """Faithfulness against size, with a mark at the chosen size, on one kind of prompts.

    Args:
        curves: columns method, n_edges, faithfulness, low, high.
        random: columns control, n_edges, median, low, high: bands that hold 95 % of random circuits.
    """
    methods = list(curves.method.unique())
    colour = _method_colour(methods, legend=False)
    x = alt.X("n_edges:Q", title="edges in the circuit", scale=alt.Scale(domain=[0, MOST], nice=False))
    lows, highs = pd.concat([curves.low, random.low, pd.Series([0.0])]), pd.concat([curves.high, pd.Series([1.0])])
    scale = alt.Scale(domain=[float(lows.min()), float(highs.max())], padding=6)
    y, low = alt.Y("faithfulness:Q", scale=scale), alt.Y("low:Q", title="faithfulness", scale=scale)
    points = alt.Chart(curves).transform_filter(_THESE).encode(x=x, color=colour)
    points = points.transform_calculate(name=f"{_labels(methods)}[datum.method]")
    told = [alt.Tooltip("name:N", title="method"), alt.Tooltip("n_edges:Q", title="edges"),
            *(alt.Tooltip(f"{name}:Q", format=".2f") for name in ("faithfulness", "low", "high"))]
    limit = alt.Chart(pd.DataFrame({"faithfulness": [FAITHFUL]})).mark_rule(strokeDash=[2, 3]).encode(y=y)
    layers = [
        *_bands(random, x, low), limit, *_interpolated(curves, x, y, colour),
        points.mark_rule(clip=True).encode(y=low, y2="high:Q"),
        points.mark_point(clip=True, filled=True, opacity=1, size=30).encode(y=y, tooltip=told),
    ]
    chart = alt.layer(*layers).resolve_scale(color="independent").properties(width="container", height=210)
    return _plain(chart.add_params(*controls(methods, bound=False)))


def _plain(chart: alt.LayerChart) -> alt.LayerChart:
    return chart.configure(font="sans-serif", background="transparent").configure_view(stroke=None).configure_axis(grid=False)


# -- where things are --------------------------------------------------------------------------------------

def _placed_nodes(graph: Graph, places: pd.DataFrame, edges: pd.DataFrame, methods: list[str]) -> pd.DataFrame:
    """Nodes with x, y, kind and label, the size of the smallest circuit that has one of their edges, by method, and
    `keeps`: the names whose edges a click leaves, for a head also those of what it reads."""
    first = {method: pd.concat([edges.groupby(side)[f"from_{method}"].min() for side in ("source", "target")])
             for method in methods}
    sizes = pd.DataFrame({f"from_{method}": found.groupby(level=0).min() for method, found in first.items()})
    keeps = {node: [node] for node in places.index}
    for target, head in _read(graph, places):
        keeps[head].append(target)
    table = places.join(sizes).reset_index()
    return table.assign(keeps=[f"|{'|'.join(keeps[node])}|" for node in table.node])


def _read(graph: Graph, places: pd.DataFrame) -> list[tuple[str, str]]:
    """Every input of a head with every head that it feeds, of those that are drawn."""
    inputs = places.index[places.kind == "input"]
    return [(target, head) for target in inputs for number in fed(graph, graph.node(target))
            if (head := f"a{places.layer[target]}.h{number}") in places.index]


def _placed_edges(places: pd.DataFrame, edges: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Edges with their ends, the strongest last and so on top: straight ones, and those of the bottom row by the points
    of their arcs."""
    scores = edges[[name for name in edges if name.startswith("score_")]]
    edges = edges.iloc[scores.abs().max(axis=1).argsort(kind="stable")].reset_index(drop=True)
    ends = {f"{axis}{number}": edges[side].map(places[axis]).to_numpy()
            for number, side in (("", "source"), ("2", "target")) for axis in "xy"}
    edges = edges.assign(**ends, edge=edges.index)
    arched = (edges["source"].map(places.kind) == "spine") & (edges["target"].map(places.kind) == "spine")
    t = np.linspace(0, 1, _ARC)
    arcs = edges[arched].merge(pd.DataFrame({"t": t}), how="cross")
    span = arcs.x2 - arcs.x
    arcs["y"] = -1.3 * np.sqrt(span) * 4 * arcs.t * (1 - arcs.t)
    arcs["x"] += span * arcs.t
    return edges[~arched], arcs.drop(columns=["x2", "y2"])


# -- the circuit -------------------------------------------------------------------------------------------

def _background(places: pd.DataFrame, at: dict) -> list[alt.Chart]:
    """A light band behind every other layer, and the layers' numbers above."""
    spans = places[~places.index.isin(["steer", "logits"])].groupby("layer").x.agg(["min", "max"])
    bands = pd.DataFrame({"x": spans["min"] - 0.5, "x2": spans["max"] + 0.5})[::2]
    words = pd.DataFrame({"x": spans.mean(axis=1), "word": spans.index.astype(str)})
    words = pd.concat([words, pd.DataFrame({"x": [-0.4], "word": "layer"})]).assign(y=places.y.max() + 1.2)
    return [alt.Chart(bands).mark_rect(color="#f4f4f4").encode(at["x"], x2="x2:Q"),
            alt.Chart(words).mark_text(fontSize=11).encode(**at, text="word:N")]


def _links(graph: Graph, places: pd.DataFrame, at: dict) -> alt.Chart:
    """Grey lines from every input to the heads that it feeds."""
    pairs = pd.DataFrame(_read(graph, places), columns=["input", "head"])
    ends = {f"{axis}{number}": pairs[side].map(places[axis])
            for number, side in (("", "input"), ("2", "head")) for axis in "xy"}
    return alt.Chart(pairs.assign(**ends)).mark_rule(color="#dddddd").encode(**at, x2="x2:Q", y2="y2:Q")


def _chosen(table: pd.DataFrame, methods: list[str]) -> alt.Chart:
    """The edges that are to be drawn, with `looks`, what the legend calls them, and |score| as `strength`."""
    chart = alt.Chart(table).transform_calculate(
        here="datum['from_' + method] <= edges", there="datum['from_' + other] <= edges",
    ).transform_filter("datum.here || datum.there").transform_filter(
        "!isValid(node.keeps) || indexof(join(node.keeps, ''), '|' + datum.source + '|') >= 0 || "
        "indexof(join(node.keeps, ''), '|' + datum.target + '|') >= 0"
    ).transform_calculate(score="datum['score_' + (datum.here ? method : other)]").transform_calculate(
        strength="abs(datum.score)",
        looks="other == 'none' ? (datum.score > 0 ? 'positive' : 'negative') : datum.here && datum.there ? 'both' : "
              "datum.here ? method : other",
    )
    return chart.transform_calculate(**{f"told_{name}": _told(name) for name in methods}, name="datum.source + ' → ' + "
                                     "datum.target")


def _told(method: str) -> str:
    """What an edge's tooltip says of a method."""
    return (f"format(datum.score_{method}, '.3~g') + ' logits, ' + (datum.from_{method} <= {MOST} ? "
            f"'from ' + datum.from_{method} + ' edges on' : 'not among the first {MOST:,}')")


def _styled(chart: alt.Chart, methods: list[str], thickest: float | None) -> alt.Chart:
    """An edge's colour, and its width on a scale up to |score| `thickest`; without one it is invisible, wider, and has
    the tooltip."""
    if not thickest:
        told = [alt.Tooltip("name:N", title="edge"),
                *(alt.Tooltip(f"told_{name}:N", title=method_label(name)) for name in methods)]
        return chart.encode(opacity=alt.value(0), strokeWidth=alt.value(_HIT), tooltip=told)
    width = alt.Scale(domain=[0, thickest], range=[_THIN, _THICK], clamp=True)
    return chart.encode(color=_method_colour(methods, legend=True), opacity=alt.value(0.75),
                        strokeWidth=alt.StrokeWidth("strength:Q", scale=width, legend=None))


def _method_colour(methods: list[str], *, legend: bool) -> alt.Color:
    """Colours of edges (by sign, or by who has them), or of methods."""
    if not legend:
        scale = alt.Scale(domain=methods, range=[PALETTE[name] for name in methods])
        return alt.Color("method:N", scale=scale, legend=None)
    words = {"positive": "score > 0: carries the steering", "negative": "score < 0: works against it",
             "both": "in both", **{name: f"only in {method_label(name)}'s" for name in methods}}
    scale = alt.Scale(domain=list(words), range=[_BOTH if name == "both" else PALETTE[name] for name in words])
    shown = alt.Legend(
        title=None, orient="top", symbolType="stroke", labelExpr=f"{words}[datum.value]", labelLimit=260,
        columnPadding=16, values=alt.ExprRef("other == 'none' ? ['positive', 'negative'] : [method, other, 'both']"))
    return alt.Color("looks:N", scale=scale, legend=shown)


def _lines(table: pd.DataFrame, methods: list[str], thickest: float | None, at: dict) -> alt.Chart:
    """Edges that do not stay in the bottom row."""
    chart = _chosen(table, methods).mark_rule(aria=False).encode(**at, x2="x2:Q", y2="y2:Q")
    return _styled(chart, methods, thickest)


def _arcs(table: pd.DataFrame, methods: list[str], thickest: float | None, at: dict) -> alt.Chart:
    """Edges of the bottom row."""
    chart = _chosen(table, methods).mark_line(aria=False).encode(**at, detail="edge:N", order="t:Q")
    return _styled(chart, methods, thickest)


def _nodes(table: pd.DataFrame, methods: list[str], at: dict) -> list[alt.Chart]:
    """Nodes, those without an edge in the circuit faint; their tooltip is about the chosen method."""
    told = {"out": "edges out of it", "into": "edges into it", "tokens": "says"}  # the page leaves out what is empty
    first = "datum['from_' + method]"
    click = alt.selection_point(name="node", fields=["keeps"], on="click", toggle=False)
    has = "datum['from_' + method] <= edges || datum['from_' + other] <= edges"
    base = alt.Chart(table).transform_calculate(
        **{name: f"datum['{name}_' + method] || ''" for name in told}, of=f"{_labels(methods)}[method]",
        since=f"{first} <= {MOST} ? 'from ' + {first} + ' edges on' : 'not among the first {MOST:,} edges'",
    ).encode(**at, opacity=alt.condition(has, alt.value(1), alt.value(0.25)))
    faces = alt.Scale(domain=list(_FACES), range=list(_FACES.values()))
    boxes = base.mark_square(stroke="#666666", cursor="pointer").encode(
        size=alt.condition("length(datum.label) > 3", alt.value(560), alt.value(260)),
        fill=alt.Fill("kind:N", scale=faces, legend=None),
        strokeWidth=alt.condition(click, alt.value(2), alt.value(0.7), empty=False),
        tooltip=[alt.Tooltip("node:N"), alt.Tooltip("of:N", title="steered by"), alt.Tooltip("since:N", title="in the circuit"),
                 *(alt.Tooltip(f"{name}:N", title=words) for name, words in told.items())],
    ).add_params(click)
    return [boxes, base.mark_text(fontSize=9).encode(text="label:N")]


def _labels(methods: list[str]) -> dict[str, str]:
    return {name: method_label(name) for name in methods}


# -- faithfulness against size -----------------------------------------------------------------------------

def _bands(random: pd.DataFrame, x: alt.X, low: alt.Y) -> list[alt.Chart]:
    """Where 95 % of random circuits lie, of the kinds that are small enough; where there is only one size, a bar."""
    random = random[random.groupby("control").n_edges.transform("min") <= MOST]
    names = list(random.control.unique())
    scale = alt.Scale(domain=[BANDS[name][0] for name in names], range=[BANDS[name][1] for name in names])
    table = random.assign(kind=[BANDS[name][0] for name in random.control])
    single = table.groupby("control").n_edges.transform("size") == 1
    legend = alt.Legend(title="95 % of random circuits", orient="bottom", columns=2, symbolType="square")
    areas = alt.Chart(table[~single]).mark_area(clip=True, opacity=0.3)
    bars = alt.Chart(table[single]).mark_rule(clip=True, strokeWidth=5, opacity=0.5)
    return [chart.encode(x, low, y2="high:Q", color=alt.Color("kind:N", scale=scale, legend=shown))
            for chart, shown in ((areas, legend), (bars, None))]


def _interpolated(curves: pd.DataFrame, x: alt.X, y: alt.Y, colour: alt.Color) -> list[alt.Chart]:
    """The lines, the chosen size, and what the lines are there, said to be interpolated where it was not measured."""
    ends = curves[["method", "n_edges", "faithfulness"]]
    nothing = ends.drop_duplicates("method").assign(n_edges=0, faithfulness=0.0)  # the base run, by definition
    ends = pd.concat([nothing, ends]).sort_values(["method", "n_edges"], ignore_index=True)
    after = ends.groupby("method").shift(-1).fillna({"n_edges": ends.n_edges.max() + 1}).ffill()
    parts = ends.assign(n_after=after.n_edges, after=after.faithfulness)
    names = _labels(list(curves.method.unique()))
    at = alt.Chart(parts).transform_filter(f"({_THESE}) && datum.n_edges <= edges && edges < datum.n_after")
    at = at.transform_calculate(
        before="datum.n_edges", share="(edges - datum.n_edges) / (datum.n_after - datum.n_edges)", n_edges="edges",
    ).transform_calculate(
        faithfulness="datum.faithfulness + datum.share * (datum.after - datum.faithfulness)",
    ).transform_calculate(
        words=f"{names}[datum.method] + ': ' + format(datum.faithfulness, '.2f') + ' at ' + edges + ' edges, ' + "
              "(datum.share == 0 ? 'measured' : 'interpolated from ' + datum.before + ' and ' + datum.n_after)",
        place="datum.method == method ? -22 : -8",
    )
    lines = alt.Chart(ends).transform_filter(_THESE).mark_line(clip=True).encode(x, y, color=colour, detail="method:N")
    size = alt.Chart(pd.DataFrame({"n": [0]})).mark_rule(color="#888888").transform_calculate(n_edges="edges").encode(x)
    mark = at.mark_point(size=110, strokeWidth=2, fill="white").encode(x, y, color=colour)
    said = at.mark_text(align="left", fontSize=12).encode(
        x=alt.value(0), y=alt.Y("place:Q", axis=None, scale=None), text="words:N")
    return [lines, size, mark, said]
