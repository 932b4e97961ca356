"""Runs in which only a circuit is steered, and m in them (§6)."""

from collections.abc import Sequence

import pandas as pd
import torch
from jaxtyping import Float
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

M_OF_RUNS = ["m_base", "m_circuit", "m_steered"]


@torch.no_grad()
def m_of_runs(
    model: Model, circuits: Sequence[Circuit], cases: Cases, metric: str | Metric, batch_size: int,
) -> list[pd.DataFrame]:
    """m of the base run, of the steered one, and of each circuit's, which share these two.

    What is made of them, as a ratio or an interval, is none of this module's: that may change, and these runs, hours of
    them on a large model, are not computed again.

    Args:
        cases: checked ones.
        metric: as for `attribute`.
        batch_size: responses per pass.

    Returns:
        Per circuit a table with one row per unmasked position: response (index), position (in its tokens), m_base,
        m_circuit, m_steered.

    Raises:
        ValueError: as for `contrasts`, or a circuit of another graph than the model's at the steering layer.
    """
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
    return [pd.DataFrame({**places, **dict(zip(M_OF_RUNS, (base, values, steered)))}) for values in found]


def _places(contrast: Contrast, row: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
    """Which response, and which of its tokens, stands at some rows and kept positions of a batch."""
    padding, row = (contrast.batch.attention_mask == 0).sum(dim=1), row.cpu()
    position = kept.cpu() + contrast.batch.attention_mask.shape[1] - contrast.kept - padding.cpu()[row]
    return torch.tensor(contrast.rows)[row], position


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
