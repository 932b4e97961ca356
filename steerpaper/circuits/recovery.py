"""How much of the steering a circuit carries when only it runs steered: its faithfulness (§6)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from scipy.stats import bootstrap
from torch import Tensor

from steerpaper import arguments
from steerpaper.circuits.cases import Cases
from steerpaper.circuits.circuit import Circuit
from steerpaper.circuits.contrast import Contrast, contrasts, only_unmasked, target_weight
from steerpaper.circuits.graph import Edges, Graph
from steerpaper.circuits.metrics import Metric, get_metric
from steerpaper.models.kept import Kept
from steerpaper.models.maps import head_writes, projected, scaled_heads, wide, with_bias
from steerpaper.models.model import Model
from steerpaper.models.responses import Response
from steerpaper.steering import Steering

_SUMS = ["m_base", "m_circuit", "m_steered"]


@dataclass(frozen=True, eq=False)
class Faithfulness:
    """How much of the steering's effect a circuit carries.

    Attributes:
        table: one row per unmasked position: response (index), position (in its tokens), m_base, m_circuit,
            m_steered.

    Raises:
        ValueError: where it is undefined: m of the base and the steered run is equal on the whole, or an m not finite.
    """

    table: pd.DataFrame

    def __post_init__(self):
        _check_defined(self._sums)

    @property
    def _sums(self) -> np.ndarray:
        return self.table[_SUMS].sum(skipna=False).to_numpy()

    @property
    def value(self) -> float:
        """(m(C) - m(base)) / (m(steered) - m(base)): 0 for the base run, 1 for the steered one, not confined to these.

        Each m is averaged over the unmasked positions of all responses first: position by position the ratio has
        denominators near 0.
        """
        return float(_ratio(*self._sums))

    def interval(self, level: float = 0.95, n_resamples: int = 2000, seed: int = 0) -> tuple[float, float]:
        """Percentile bootstrap interval of `value`, responses resampled whole.

        Raises:
            ValueError: fewer than two responses, or a level outside (0, 1).
        """
        sums = self.table.groupby("response")[_SUMS].sum().to_numpy().T
        if sums.shape[1] < 2 or not 0 < arguments.number("level", level) < 1:
            raise ValueError(f"{sums.shape[1]} responses and level {level} were given: a bootstrap needs at "
                             "least two responses, and a level between 0 and 1")
        how = dict(paired=True, vectorized=True, method="percentile", rng=np.random.default_rng(seed))
        found = bootstrap(sums, lambda *m, axis: _ratio(*(part.sum(axis) for part in m)), n_resamples=n_resamples,
                          confidence_level=level, **how).confidence_interval
        return float(found.low), float(found.high)

    def by(self, labels: pd.Series | pd.DataFrame, together: str | None = None, *, seed: int = 0) -> pd.DataFrame:
        """Faithfulness of groups of responses, each by itself.

        Args:
            labels: what tells the groups apart, in one or several columns; indexed by response.
            together: a label for all responses together, which get a row of their own, the first.
            seed: of the intervals.

        Returns:
            One row per group, sorted: the labels' columns, faithfulness, low, high (the `interval`; NaN for a single
            response) and responses, the number of those with an unmasked position.

        Raises:
            ValueError: labels that some response lacks, or a group in which faithfulness is undefined.
        """
        own = pd.DataFrame(labels).reindex(self.table.response)
        if (lacking := own.isna().any(axis=1)).any():
            raise ValueError(f"responses {own.index[lacking].unique().tolist()[:5]} have no label: the labels need a "
                             "row for every response, indexed by its number")
        keys = [own[name].to_numpy() for name in own]
        groups = [(key, Faithfulness(table)) for key, table in self.table.groupby(keys)]
        if together is not None:
            groups.insert(0, ((together,) * own.shape[1], self))
        rows = []
        for key, part in groups:
            n = part.table.response.nunique()
            rows.append((*key, part.value, *(part.interval(seed=seed) if n > 1 else (np.nan, np.nan)), n))
        return pd.DataFrame(rows, columns=[*own, "faithfulness", "low", "high", "responses"])


def _ratio(base, circuit, steered):
    """Faithfulness from the sums of m_base, m_circuit and m_steered."""
    _check_defined(np.stack((base, circuit, steered)))
    return (circuit - base) / (steered - base)


def _check_defined(sums: np.ndarray) -> None:
    base, _, steered = sums
    if not (np.isfinite(sums).all() and np.all(steered != base)):
        raise ValueError("m of the base and the steered run is equal or not finite: faithfulness is "
                         "undefined. Pass responses that the steering changes")


def faithfulness(
    model: Model, circuit: Circuit, responses: Sequence[Response], steering: Steering | Sequence[Steering], *,
    metric: str | Metric = "logit_difference", batch_size: int = 8,
) -> Faithfulness:
    """Faithfulness of a circuit (§6): the steered model with all edges outside it at their base activations.

    Args:
        responses, steering, metric: as for `attribute`; the paper uses steered responses.
        batch_size: responses per pass.

    Raises:
        ValueError: as for `attribute`, a circuit of another graph than the model's at the steering layer, or
            faithfulness that is undefined.
    """
    return faithfulness_of(model, [circuit], responses, steering, metric=metric, batch_size=batch_size)[0]


def faithfulness_of(
    model: Model, circuits: Sequence[Circuit], responses: Sequence[Response],
    steering: Steering | Sequence[Steering], *, metric: str | Metric = "logit_difference", batch_size: int = 8,
) -> list[Faithfulness]:
    """As `faithfulness`, of many circuits that share the base and the steered runs.

    Raises:
        ValueError: as for `faithfulness`.
    """
    cases, circuits = Cases.of(model, responses, steering), arguments.listed("circuits", circuits)
    return recovered(model, circuits, cases, metric, batch_size)


@torch.no_grad()
def recovered(
    model: Model, circuits: Sequence[Circuit], cases: Cases, metric: str | Metric, batch_size: int,
) -> list[Faithfulness]:
    """As `faithfulness_of`, of cases that are checked."""
    for circuit in circuits:
        if not isinstance(circuit, Circuit):
            raise ValueError(f"{arguments.shown(circuit)} of type {type(circuit).__name__} is no circuit: give one as "
                             "Circuit.top or Circuit.of makes it")
        if circuit.graph != (own := Graph.of(model, cases.layer, circuit.graph.split_heads)):
            raise ValueError(f"the circuit belongs to {circuit.graph}, model and steering to {own}: "
                             "attribute with this model and steering layer first")

    metric, shape = get_metric(metric), (len(cases.responses), max(cases.lengths))
    inputs = {**cases.inputs, "metric": repr(metric), "batch_size": batch_size,
              "circuits": [[str(circuit.graph), torch.tensor(circuit.mask)] for circuit in circuits]}
    kept = Kept("faithfulness", __name__, model.hf, inputs, {
        "m": torch.zeros(2 + len(circuits), *shape, dtype=torch.float64), "counts": torch.zeros(shape, dtype=torch.bool)})

    def measured(contrast: Contrast) -> tuple[int, tuple[Tensor, Tensor], Float[Tensor, "run place"]]:
        measure = contrast.measure
        runs = [measure(run.logits) for run in (contrast.base, contrast.steered)]
        runs += [measure.at(circuit_logits(model, circuit.graph, circuit.mask, contrast)) for circuit in circuits]
        places = _places(contrast, *measure.mask.nonzero(as_tuple=True))
        return len(contrast.rows), places, torch.stack(runs).cpu().double()

    done = kept.done, int(kept.state["counts"].sum())
    for n, (response, position), values in contrasts(model, cases, measured, metric=metric, batch_size=batch_size,
                                                     what="faithfulness", done=done):
        kept.state["counts"][response, position] = True
        kept.state["m"][:, response, position] = values
        kept.keep(n)
    response, position = kept.state["counts"].nonzero(as_tuple=True)
    base, steered, *found = kept.state["m"][:, response, position].numpy()
    places = {"response": response.numpy(), "position": position.numpy()}
    return [Faithfulness(pd.DataFrame({**places, **dict(zip(_SUMS, (base, values, steered)))})) for values in found]


def _places(contrast: Contrast, row: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
    """Which response, and which of its tokens, stands at some rows and kept positions of a batch."""
    padding, row = (contrast.batch.attention_mask == 0).sum(dim=1), row.cpu()
    position = kept.cpu() + contrast.batch.attention_mask.shape[1] - contrast.kept - padding.cpu()[row]
    return torch.tensor(contrast.rows)[row], position


# -- circuit runs ------------------------------------------------------------------------------------------

def circuit_logits(
    model: Model, graph: Graph, edges: Edges, contrast: Contrast,
) -> Float[Tensor, "unmasked vocab"]:
    """Logits of the run in which every target reads the base run's stream plus the differences, in this run,
    of the sources that `edges` join it to; at the measure's unmasked positions."""
    batch = contrast.batch
    differences = contrast.addition.new_empty(len(graph.sources), *contrast.base.final.shape)
    differences[0] = contrast.addition
    mixing = torch.from_numpy(edges.T.copy()).to(differences)
    with model.trace(batch.input_ids, batch.attention_mask, logits_to_keep=0):  # 0: all there are
        model.start_at(contrast.layer, contrast.base.attention_inputs[0])
        for layer in graph.layers:
            _run_layer(model, graph, contrast, layer, mixing, differences)
        final = _mixture(contrast.base.final, mixing[-1:], differences)[0].to(model.dtype)
        model.final_norm.input = only_unmasked(final, contrast.measure.mask)
        logits = model.logits.save()
    return logits[0].to(wide(model))


def _run_layer(model: Model, graph: Graph, contrast: Contrast, layer: int,
               mixing: Float[Tensor, "target source"],
               differences: Float[Tensor, "source batch pos d_model"]) -> None:
    """Within a trace: one layer of a circuit run; fills in the differences of the layer's sources."""
    i, heads, parts = layer - contrast.layer, graph.heads(layer), graph.before_mlp(layer)
    gamma, before = model.attention_gamma(layer), differences[:heads.start]
    projections = {"q": model.q_proj(layer), "k": model.k_proj(layer), "v": model.v_proj(layer)}
    together = slice(parts[0].start, parts[2].stop)  # one product: `before` is read once
    streams = _mixture(contrast.base.attention_inputs[i], mixing[together, :heads.start], before)
    for (kind, projection), own in zip(projections.items(), streams.split([p.stop - p.start for p in parts])):
        outputs = projected(own, target_weight(model, graph, layer, kind), gamma, model.norm_eps)
        outputs = with_bias(outputs, model.bias(layer, kind))
        projection.skip(outputs.to(model.dtype))
    change = scaled_heads(model, layer).to(differences.dtype) - contrast.base.heads[i].to(differences.dtype)
    differences[heads] = head_writes(model, layer, change)
    mlp = parts[2].stop
    stream = _mixture(contrast.base.mlp_inputs[i], mixing[mlp:mlp + 1, :heads.stop], differences[:heads.stop])
    model.mlp_norm(layer).input = stream[0].to(model.dtype)
    write = model.mlp_write(layer).output.to(differences.dtype)
    differences[heads.stop] = write - contrast.base.mlps[i].to(differences.dtype)


def _mixture(
    base: Float[Tensor, "batch pos d_model"], mixing: Float[Tensor, "target source"],
    differences: Float[Tensor, "source batch pos d_model"],
) -> Float[Tensor, "target batch pos d_model"]:
    """The base stream plus what each target reads of the differences."""
    base = base.to(differences.dtype).flatten()[None]
    return torch.addmm(base, mixing, differences.flatten(1)).unflatten(1, differences.shape[1:])
