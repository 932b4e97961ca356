"""The computation graph from the steering node to the logits (§3.3, §4.2, D.1): index arithmetic, no model.

Sources write to the residual stream: the steering node `steer` (the stream entering the steering layer) and,
per layer from there on, query heads `a{layer}.h{head}` and the MLP `m{layer}`. Targets read from it: queries
`a{layer}.h{head}<q>`, keys and values of the key-value heads `a{layer}.h{kv_head}<k>`, `...<v>`, the MLP
`m{layer}`, and last `logits`, the final norm's input. A source reaches every target that comes after it; a
head reaches its own layer's MLP.
"""

import re
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool

from steerpaper import arguments
from steerpaper.models.model import Model

Edges = Bool[np.ndarray, "source target"]  # a set of edges: True where one is
_NAME = re.compile(r"(steer|logits)|m(\d+)|a(\d+)(?=[.<])(?:\.h(\d+))?(?:<([qkv])>)?")
_TYPES = {
    "from_steering": ("source", "steer"), "from_attention_head": ("source", "head"), "from_mlp": ("source", "mlp"),
    "into_query": ("target", "q"), "into_key": ("target", "k"), "into_value": ("target", "v"),
    "into_mlp": ("target", "mlp"), "into_logits": ("target", "logits"),
}


class Node(NamedTuple):
    """What a node's name says.

    Attributes:
        kind: of sources "steer", "head" or "mlp", of targets "q", "k", "v", "mlp" or "logits".
        layer: None for "steer" and "logits", which only a graph gives a layer.
        head: None where the node is none of a head's.
    """

    kind: str
    layer: int | None = None
    head: int | None = None

    @classmethod
    def of(cls, name: str) -> "Node":
        """Read a name. Raises ValueError where it is none of a node."""
        if not (found := _NAME.fullmatch(name)):
            raise ValueError(f"{name!r} is no node's name: take names from graph.sources or graph.targets")
        end, mlp, layer, head, letter = found.groups()
        return cls(end or letter or ("mlp" if mlp else "head"),
                   *(None if number is None else int(number) for number in (mlp or layer, head)))


@dataclass(frozen=True)
class Graph:
    """Nodes and edges of a model from its steering layer on.

    Attributes:
        n_layers, n_heads, n_kv_heads: sizes of the model.
        steering_layer: the layer whose entering stream is steered.
        split_heads: whether q, k and v are targets per head (the paper's |M|) or per layer (the second pair
            of counts in D.1). Sources are per head either way.

    Raises:
        ValueError: sizes that no model has, or a steering layer outside the model.
    """

    n_layers: int
    n_heads: int
    n_kv_heads: int
    steering_layer: int
    split_heads: bool = True

    def __post_init__(self):
        for name in ("n_layers", "n_heads", "n_kv_heads", "steering_layer"):
            given = getattr(self, name)
            if arguments.whole(given) is None:
                raise ValueError(f"{name} must be an integer, {arguments.shown(given)} was given")
        if min(self.n_layers, self.n_heads, self.n_kv_heads) < 1 or self.n_heads % self.n_kv_heads:
            raise ValueError("a graph needs at least one layer and query heads in equal groups, but "
                             f"{self.n_layers} layers, {self.n_heads} heads and {self.n_kv_heads} key-value "
                             "heads were given")
        if self.steering_layer not in range(self.n_layers):
            raise ValueError(f"steering layer {self.steering_layer} is outside 0..{self.n_layers - 1}")

    @classmethod
    def of(cls, model: Model, steering_layer: int, split_heads: bool = True) -> "Graph":
        """The graph of `model` steered at `steering_layer`."""
        return cls(model.n_layers, model.n_heads, model.n_kv_heads, steering_layer, split_heads)

    # -- nodes ----------------------------------------------------------------------------------------------

    @property
    def layers(self) -> range:
        """The layers from the steering layer on."""
        return range(self.steering_layer, self.n_layers)

    @property
    def n_query_targets(self) -> int:
        """Query targets per layer."""
        return self.n_heads if self.split_heads else 1

    @property
    def n_key_targets(self) -> int:
        """Key targets per layer, as many as value targets."""
        return self.n_kv_heads if self.split_heads else 1

    @cached_property
    def sources(self) -> list[str]:
        """Names of the sources: `steer`, then heads and MLP layer by layer."""
        layers = ([*(f"a{i}.h{h}" for h in range(self.n_heads)), f"m{i}"] for i in self.layers)
        return ["steer", *(name for layer in layers for name in layer)]

    @cached_property
    def targets(self) -> list[str]:
        """Names of the targets: queries, keys, values and MLP layer by layer, then `logits`."""
        names = []
        for i in self.layers:
            for letter, n in zip("qkv", (self.n_query_targets, self.n_key_targets, self.n_key_targets)):
                nodes = [f"a{i}.h{h}" for h in range(n)] if self.split_heads else [f"a{i}"]
                names += [f"{node}<{letter}>" for node in nodes]
            names.append(f"m{i}")
        return [*names, "logits"]

    def heads(self, layer: int) -> slice:
        """Where the heads of a layer stand among the sources; its MLP comes right after."""
        start = 1 + (layer - self.steering_layer) * (self.n_heads + 1)
        return slice(start, start + self.n_heads)

    def before_mlp(self, layer: int) -> tuple[slice, slice, slice]:
        """Where the query, key and value targets of a layer stand; its MLP target comes right after."""
        q, k = self.n_query_targets, self.n_key_targets
        start = (layer - self.steering_layer) * (q + 2 * k + 1)
        keys = start + q
        return slice(start, keys), slice(keys, keys + k), slice(keys + k, keys + 2 * k)

    def node(self, name: str) -> Node:
        """What a node's name says; `steer` is in the steering layer, `logits` in layer n_layers, after the last.

        Raises:
            ValueError: no node of this graph.
        """
        if name not in self.sources and name not in self.targets:
            raise ValueError(f"{name!r} is no node of {self}: take names from its sources or targets")
        node = Node.of(name)
        return node._replace(layer={"steer": self.steering_layer, "logits": self.n_layers}.get(name, node.layer))

    # -- edges ----------------------------------------------------------------------------------------------

    @cached_property
    def mask(self) -> Edges:
        """Every edge of the graph."""
        mask = np.zeros((len(self.sources), len(self.targets)), dtype=bool)
        for layer in self.layers:
            queries, _, values = self.before_mlp(layer)
            heads = self.heads(layer)
            mask[:heads.start, queries.start:] = True  # what comes before the layer reaches all of it
            mask[heads, values.stop:] = True
            mask[heads.stop, values.stop + 1:] = True
        mask.flags.writeable = False
        return mask

    @property
    def n_edges(self) -> int:
        """Number of edges, |M|."""
        return int(self.mask.sum())

    @property
    def edges(self) -> pd.DataFrame:
        """Every edge, by name: columns source, target."""
        return self.table(self.mask)

    def table(self, edges: Edges) -> pd.DataFrame:
        """A set of edges by name: columns source, target, in the graph's order."""
        source, target = np.nonzero(edges)
        return pd.DataFrame({"source": np.array(self.sources, dtype=object)[source],
                             "target": np.array(self.targets, dtype=object)[target]})

    def index(self, edges: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
        """Indices into sources and targets of edges given by name.

        Raises:
            ValueError: a name that is no node here, or two nodes that no edge joins.
        """
        if missing := {"source", "target"} - set(getattr(edges, "columns", ())):
            raise ValueError("edges need the columns source and target; "
                             f"{', '.join(sorted(missing))} is missing")
        source = pd.Index(self.sources).get_indexer(edges["source"])
        target = pd.Index(self.targets).get_indexer(edges["target"])
        wrong = (source < 0) | (target < 0)
        wrong |= ~self.mask[source, target]
        if wrong.any():
            first = edges[wrong].iloc[0]
            raise ValueError(f"{wrong.sum()} of {len(edges)} edges are not in this graph, the first "
                             f"{first['source']} -> {first['target']}: take names from graph.edges")
        return source, target

    def prune(self, edges: Edges) -> Edges:
        """The edges on a path from the steering node to the logits (§4.2).

        A head is fed by its query target and by its group's key and value targets.
        """
        reached, needed = self._reached(edges), self._needed(edges)
        return edges & reached[:, None] & needed[None, :]

    def _reached(self, edges: Edges) -> np.ndarray:
        """Per source: a path from the steering node leads to it."""
        reached = np.zeros(len(self.sources), dtype=bool)
        reached[0] = True
        for layer in self.layers:
            heads = self.heads(layer)
            before = edges[:heads.start][reached[:heads.start]]
            q, k, v = (before[:, part].any(axis=0) for part in self.before_mlp(layer))
            reached[heads] = self._per_head(q) | self._per_head(k | v)
            mlp = self.before_mlp(layer)[2].stop
            reached[heads.stop] = edges[:heads.stop, mlp][reached[:heads.stop]].any()
        return reached

    def _needed(self, edges: Edges) -> np.ndarray:
        """Per target: a path leads from it to the logits."""
        needed = np.zeros(len(self.targets), dtype=bool)
        needed[-1] = True
        for layer in reversed(self.layers):
            heads, parts = self.heads(layer), self.before_mlp(layer)
            mlp = parts[2].stop
            needed[mlp] = edges[heads.stop, mlp + 1:][needed[mlp + 1:]].any()
            used = edges[heads, mlp:][:, needed[mlp:]].any(axis=1)
            for part in parts:
                needed[part] = used.reshape(part.stop - part.start, -1).any(axis=1)
        return needed

    def _per_head(self, fed: np.ndarray) -> np.ndarray:
        """From targets of one kind to the query heads that they feed."""
        return np.repeat(fed, self.n_heads // len(fed))


def edge_types(edges: pd.DataFrame) -> pd.Series:
    """Edges counted by the kind of their source and of their target (tables 5 to 8).

    Args:
        edges: columns source, target.

    Returns:
        Counts under from_steering, from_attention_head, from_mlp, into_query, into_key, into_value, into_mlp
        and into_logits. The first three sum to the number of edges, the others too.
    """
    kinds = {side: edges[side].map({name: Node.of(name).kind for name in set(edges[side])})
             for side in ("source", "target")}
    return pd.Series({name: int((kinds[side] == kind).sum()) for name, (side, kind) in _TYPES.items()}, name="edges")
