"""The two runs of every response, base and steered (§5), and the runs of circuits.

Both runs are teacher-forced on the same tokens and share every layer below the steering layer, which are run
once (see `contrasts`).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from steerpaper import arguments
from steerpaper.circuits.graph import Edges, Graph
from steerpaper.circuits.metrics import METRICS, DirectionalKL, LogitDifference
from steerpaper.finite import check_finite
from steerpaper.models.batches import in_batches
from steerpaper.models.maps import head_writes, projected, scaled_heads, wide, with_bias
from steerpaper.models.model import Model
from steerpaper.models.responses import Batch, Response, check_responses, teacher_forcing
from steerpaper.steering import Steering, per_row

T = TypeVar("T")


@dataclass(frozen=True)
class Run:
    """What one forward pass read and wrote from the steering layer on; lists have one entry per layer.

    Attributes:
        attention_inputs: h^l, the stream entering the layer, before the norm.
        mlp_inputs: the stream between attention and MLP, before the norm.
        final: the stream entering the final norm.
        heads: output of every head before `W_O`; with a post-norm, divided by the RMS of the heads' sum.
            Times `W_O`, times the post-norm's gamma, it is the head's write (§4, A): see `head_writes`.
        mlps: what the MLP adds to the stream.
        logits: at the response positions, the last ones of the padded rows.
    """

    attention_inputs: list[Float[Tensor, "batch pos d_model"]]
    mlp_inputs: list[Float[Tensor, "batch pos d_model"]]
    final: Float[Tensor, "batch pos d_model"]
    heads: list[Float[Tensor, "batch pos head d_head"]]
    mlps: list[Float[Tensor, "batch pos d_model"]]
    logits: Float[Tensor, "batch kept vocab"]


@dataclass(frozen=True)
class Contrast:
    """A batch of responses, base and steered.

    Attributes:
        rows: which of the data set's responses these are.
        batch: their tokens; `kept` the number of last positions that hold every response position.
        layer: the steering layer.
        alpha: the coefficient of every row; `addition` is alpha s.
        metric: m between the two runs.
    """

    rows: list[int]
    batch: Batch
    kept: int
    layer: int
    alpha: Float[Tensor, "batch 1 1"]
    addition: Float[Tensor, "batch 1 d_model"]
    base: Run
    steered: Run
    metric: LogitDifference | DirectionalKL


def contrasts(
    model: Model, responses: Sequence[Response], steering: Steering | Sequence[Steering],
    compute: Callable[[Contrast], T] = lambda contrast: contrast, *,
    metric: str, kl_threshold: float, batch_size: int, what: str, done: tuple[int, int] = (0, 0),
) -> Iterator[T]:
    """What `compute` makes of the base and steered runs of the responses, batch by batch; by itself, these runs.

    Args:
        compute: takes a batch; called again with fewer responses if memory runs out, see `batches.in_batches`.
        what: as for `in_batches`.
        done: the number of first responses, by length, that are not needed any more, and of their unmasked positions.

    Raises:
        ValueError: no response, or one that does not fit the model; steerings that do not fit the model or
            the responses, or that differ in layer or vector; an unknown metric; logits that are not finite;
            at the end, if the metric was masked at every position.
    """
    kl_threshold = arguments.number("kl_threshold", kl_threshold)
    if metric not in METRICS or kl_threshold < 0 or (kl_threshold and metric != "kl"):
        raise ValueError(f"metric {metric!r} with kl_threshold {kl_threshold} was given; allowed: "
                         "'logit_difference' without a threshold, 'kl' with one of at least 0")
    steerings = one_steering(model, responses, steering)

    def run(rows: list[int]) -> tuple[int, T]:
        contrast = _contrast(model, rows, [responses[i] for i in rows], [steerings[i] for i in rows],
                             metric, kl_threshold)
        return int(contrast.metric.mask.sum()), compute(contrast)

    n_done, n_positions = done
    lengths = [len(response.tokens) for response in responses]
    for _, (n, result) in in_batches(lengths, batch_size, what, run, n_done):
        n_positions += n
        yield result
        del result  # two batches never live at once
    if not n_positions:
        raise ValueError(
            f"none of the {len(responses)} responses has a position left: " + (
                "steering changes no greedy prediction. Pass responses whose behaviour it flips, or a larger "
                "coefficient" if metric == "logit_difference" else
                f"KL(P_steered || P_base) stays below {kl_threshold} everywhere. Lower kl_threshold"))


def one_steering(
    model: Model, responses: Sequence[Response], steering: Steering | Sequence[Steering],
) -> list[Steering]:
    """One checked steering per response, all of one layer and vector; coefficients may differ.

    Raises:
        ValueError: as for `contrasts`.
    """
    check_responses(model, responses)
    steerings = per_row(model, steering, len(responses))
    if missing := [i for i, entry in enumerate(steerings) if entry is None]:
        raise ValueError(f"responses {missing[:5]} have no steering: there is nothing to attribute to")
    first = steerings[0]
    for i, entry in enumerate(steerings):
        same = entry.vector is first.vector or torch.equal(
            torch.as_tensor(entry.vector).cpu(), torch.as_tensor(first.vector).cpu())
        if entry.layer != first.layer or not same:
            what = "layer" if same else "vector"
            raise ValueError(f"the steerings of responses 0 and {i} differ in {what}: one graph has one "
                             "steering node, only coefficients may differ")
    return steerings


@torch.no_grad()
def _contrast(model, rows, responses, steerings, metric, kl_threshold) -> Contrast:
    batch, layer = teacher_forcing(model, responses), steerings[0].layer
    kept = 1 + max(len(response.completion) for response in responses)
    alpha = torch.tensor([[[s.coefficient]] for s in steerings], dtype=wide(model), device=model.device)
    vector = torch.as_tensor(steerings[0].vector).detach().to(model.device, wide(model))
    base = _run(model, batch, kept, layer)
    steered = _run(model, batch, kept, layer, base.attention_inputs[0] + (alpha * vector).to(model.dtype))
    mask = batch.response_mask[:, -kept:]
    for name, run in (("base", base), ("steered", steered)):
        check_finite(run.logits.where(mask[..., None], 0), f"logits of the {name} run of responses", rows)
    if metric == "kl":
        between = DirectionalKL.between(base.logits, steered.logits, mask, kl_threshold)
    else:
        between = LogitDifference.between(base.logits, steered.logits, mask)
    return Contrast(rows, batch, kept, layer, alpha, alpha * vector, base, steered, between)


def _run(model: Model, batch: Batch, kept: int, layer: int, stream: Tensor | None = None) -> Run:
    """One pass, whole or from `layer` on, recorded there."""
    with model.trace(batch.input_ids, batch.attention_mask, logits_to_keep=kept):
        if stream is not None:
            model.start_at(layer, stream)
        recorded = _record(model, layer)
        recorded.save()
        final = model.final_norm.input.save()
        logits = model.logits.save()
    inputs, heads, mlp_inputs, mlps = map(list, zip(*recorded))
    return Run(inputs, mlp_inputs, final, heads, mlps, logits.to(wide(model)))


def _record(model: Model, first: int) -> list[tuple[Tensor, ...]]:
    """Within a trace: per layer h^l, the heads' scaled outputs, the MLP's input and its write."""
    recorded = []
    for layer in range(first, model.n_layers):
        stream, heads = model.layer(layer).input, scaled_heads(model, layer)
        recorded.append((stream, heads, model.mlp_norm(layer).input, model.mlp_write(layer).output))
    return recorded


def write_differences(
    model: Model, contrast: Contrast, layer: int, rows: slice = slice(None),
) -> tuple[Float[Tensor, "head batch pos d_model"], Float[Tensor, "batch pos d_model"]]:
    """Steered minus base writes of a layer's heads and of its MLP, in some rows of the batch."""
    i, dtype = layer - contrast.layer, wide(model)
    heads = contrast.steered.heads[i][rows].to(dtype) - contrast.base.heads[i][rows].to(dtype)
    mlp = contrast.steered.mlps[i][rows].to(dtype) - contrast.base.mlps[i][rows].to(dtype)
    return head_writes(model, layer, heads), mlp


# -- circuit runs ------------------------------------------------------------------------------------------

def circuit_logits(
    model: Model, graph: Graph, edges: Edges, contrast: Contrast,
) -> Float[Tensor, "batch kept vocab"]:
    """Logits of the run in which every target reads the base run's stream plus the differences, in this run,
    of the sources that `edges` join it to."""
    batch = contrast.batch
    differences = contrast.addition.new_empty(len(graph.sources), *contrast.base.final.shape)
    differences[0] = contrast.addition
    mixing = torch.from_numpy(edges.T.copy()).to(differences)
    with model.trace(batch.input_ids, batch.attention_mask, logits_to_keep=contrast.kept):
        model.start_at(contrast.layer, contrast.base.attention_inputs[0])
        for layer in graph.layers:
            _run_layer(model, graph, contrast, layer, mixing, differences)
        model.final_norm.input = _mixture(contrast.base.final, mixing[-1:], differences)[0].to(model.dtype)
        logits = model.logits.save()
    return logits.to(wide(model))


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


def target_weight(model: Model, graph: Graph, layer: int, kind: str) -> Float[Tensor, "target d_model width"]:
    """What the "q", "k" or "v" targets of a layer multiply their normed inputs by (a view)."""
    weight = {"q": model.W_Q, "k": model.W_K, "v": model.W_V}[kind](layer)
    return weight if graph.split_heads else weight.mT.flatten(0, 1).mT[None]
