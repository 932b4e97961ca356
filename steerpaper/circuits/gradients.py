"""Gradients of the metric at every target and stream, summed over the midpoints of the path (§5).

Every target is read in its own right without copies of the residual stream per head: gradients are taken at
the outputs of the q, k and v projections and at the MLP's and the final norm's input, and pulled back through
each head's rows of the weight and through the norm's vector-Jacobian product. That product at h is
y / r - h (h y) / (d r^3), with r the RMS of h and y the gradient after the norm times its gamma. Its first
term is summed over the steps in the head's own space; its second needs one number per step, head and
position. So what a step costs beyond its forward and backward pass does not grow with the number of heads.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from steerpaper.circuits.contrast import Contrast, only_unmasked, target_weight
from steerpaper.circuits.graph import Graph
from steerpaper.models.maps import rms, wide
from steerpaper.models.model import Model


class _Layer(NamedTuple):
    """What a pass read of one layer, or the gradients there."""

    entering: Tensor  # h^l
    q: Tensor  # outputs of the projections
    k: Tensor
    v: Tensor
    middle: Tensor  # before the MLP's norm
    normed: Tensor  # after it


class _Projection:
    """Gradients of one layer's q, k or v targets, summed over the steps in the projection's output space."""

    def __init__(self, weight: Float[Tensor, "target d_model width"], bias: Float[Tensor, "target*width"] | None):
        self.weight, self.bias, self.n_targets = weight, bias, len(weight)
        self.total: Tensor | None = None
        self.along: list[Tensor] = []  # per step, what multiplies h in the norm's second term

    def add(self, output: Tensor, gradient: Tensor, scale: Tensor | None) -> None:
        """One step, [batch pos head*d_head]; `scale` the RMS of the stream, None to stop after the norm."""
        if scale is None:
            self.total = _plus(self.total, gradient)
            return
        product = output if self.bias is None else output - self.bias.to(output.dtype)  # what the norm scales
        dot = (product * gradient).unflatten(-1, (self.n_targets, -1)).sum(-1)
        self.along.append(dot / (scale.square() * self.weight.shape[1]))
        self.total = _plus(self.total, gradient / scale)

    def pull_back(self, gamma: Tensor | None, row: int, out: Float[Tensor, "target pos d_model"]) -> None:
        """Write the gradients after the norm of one row, times gamma, into `out`; summed over the steps."""
        weight = self.weight.mT.to(out.dtype) if gamma is None else self.weight.mT * gamma.to(out.dtype)
        total = self.total[row].unflatten(-1, (self.n_targets, -1)).transpose(0, 1)
        torch.bmm(total, weight, out=out)


class Gradients:
    """Gradients summed over the steps: at the streams, and at the targets of every layer.

    `streams` holds those at h^l, then in turn at the input of each layer's MLP norm and at its output.
    """

    def __init__(self, model: Model, graph: Graph, mask: Bool[Tensor, "batch kept"], norm_jacobian: bool):
        self.model, self.graph, self.mask, self.norm_jacobian = model, graph, mask, norm_jacobian
        self.projections = [[_Projection(target_weight(model, graph, layer, kind), model.bias(layer, kind))
                             for kind in "qkv"] for layer in graph.layers]
        self.inputs: list[list[Tensor]] = [[] for _ in graph.layers]
        self.mlps: list[Tensor | None] = [None for _ in graph.layers]
        self.streams: list[Tensor | None] = [None for _ in range(2 * len(graph.layers) + 1)]
        self.final: Tensor | None = None

    def add(self, read: list[_Layer], found: Sequence[Tensor]) -> None:
        """One step: what was read of the layers, and the gradients there, one behind the other, then those at the final
        norm's input and at its output at unmasked positions."""
        dtype, eps, n = wide(self.model), self.model.norm_eps, len(_Layer._fields)
        for i, layer in enumerate(read):
            at = _Layer(*(tensor.detach().to(dtype) for tensor in layer))
            gradients = _Layer(*(gradient.to(dtype) for gradient in found[n * i:n * (i + 1)]))
            self.streams[2 * i] = _plus(self.streams[2 * i], gradients.entering)
            self.streams[2 * i + 1] = _plus(self.streams[2 * i + 1], gradients.middle)
            scale = rms(at.entering, eps) if self.norm_jacobian else None
            for projection, output, gradient in zip(self.projections[i], (at.q, at.k, at.v),
                                                    (gradients.q, gradients.k, gradients.v)):
                projection.add(output, gradient, scale)
            gradient = gradients.normed
            if self.norm_jacobian:
                self.inputs[i].append(at.entering)
                gamma = self.model.mlp_gamma(self.graph.layers[i]).to(dtype)
                gradient = norm_vjp(gradient * gamma, at.middle, eps)
            self.mlps[i] = _plus(self.mlps[i], gradient)
        self.streams[-1] = _plus(self.streams[-1], found[-2].to(dtype))
        self.final = _plus(self.final, found[-1][0].to(dtype))

    def targets(self, layer: int, row: int) -> tuple[slice, Float[Tensor, "target pos d_model"]]:
        """Where the targets of a layer stand, and the gradients at their inputs in one row of the batch;
        n_layers for the logits."""
        if layer == self.graph.n_layers:
            final = self.streams[-1][row] if self.norm_jacobian else self._after_final_norm(row)
            return slice(len(self.graph.targets) - 1, len(self.graph.targets)), final[None]
        i, parts = layer - self.graph.steering_layer, self.graph.before_mlp(layer)
        first, mlp = parts[0].start, parts[2].stop
        gradients = self.mlps[i].new_empty(mlp + 1 - first, *self.mlps[i].shape[1:])
        gamma = self.model.attention_gamma(layer) if self.norm_jacobian else None
        for projection, part in zip(self.projections[i], parts):
            projection.pull_back(gamma, row, gradients[part.start - first:part.stop - first])
        if self.norm_jacobian:
            along = torch.cat([torch.stack([step[row] for step in part.along], dim=-1)
                               for part in self.projections[i]], dim=1)
            inputs = torch.stack([step[row] for step in self.inputs[i]], dim=1)
            gradients[:-1] -= torch.einsum("pts,psd->tpd", along, inputs)
        gradients[-1] = self.mlps[i][row]
        return slice(first, mlp + 1), gradients

    def _after_final_norm(self, row: int) -> Float[Tensor, "pos d_model"]:
        """What was summed at the unmasked positions of all rows, at those of one row; zero elsewhere."""
        gradient, kept = torch.zeros_like(self.streams[-1][row]), self.mask[row]
        gradient[-len(kept):][kept] = self.final[self.mask.nonzero()[:, 0] == row]
        return gradient


def _plus(total: Tensor | None, term: Tensor) -> Tensor:
    """A running sum of its own: what autograd returns may share memory."""
    return term.clone() if total is None else total.add_(term)


def norm_vjp(
    gradient: Float[Tensor, "*rows d_model"], x: Float[Tensor, "*rows d_model"], eps: float,
) -> Float[Tensor, "*rows d_model"]:
    """The gradient at x from that at x / rms(x)."""
    scale = rms(x, eps)
    along = (gradient * x).sum(-1, keepdim=True) / (scale.square() * x.shape[-1])
    return (gradient - along * x) / scale


@torch.enable_grad()
def integrate(
    model: Model, graph: Graph, contrast: Contrast, steps: int, norm_jacobian: Sequence[bool],
) -> list[Gradients]:
    """Gradients at every target and stream, summed over the midpoints of the path: before the targets' norms for True,
    after them for False. The passes are the same."""
    gradients = [Gradients(model, graph, contrast.measure.mask, before) for before in norm_jacobian]
    for step in range(steps):
        read, final, metric = _pass(model, contrast, (step + 0.5) / steps)
        found = torch.autograd.grad(metric, [tensor for layer in read for tensor in layer] + list(final))
        for one in gradients:
            one.add(read, found)
        del read, final, metric, found  # the pass is gone before the next
    return gradients


def _pass(model: Model, contrast: Contrast, fraction: float) -> tuple[list[_Layer], tuple[Tensor, Tensor], Tensor]:
    """One forward pass on the path, `fraction` of the way from the base to the steered stream: what it reads of the
    layers, the final norm's input and its output at unmasked positions, and m summed over these."""
    start, batch = contrast.base.attention_inputs[0], contrast.batch
    stream = (start + (fraction * contrast.addition).to(model.dtype)).requires_grad_()
    with model.trace(batch.input_ids, batch.attention_mask, logits_to_keep=0):  # 0: all there are
        model.start_at(contrast.layer, stream)
        read = _read(model, contrast.layer)
        read.save()
        before = model.final_norm.input.save()
        model.final_norm.input = only_unmasked(before, contrast.measure.mask)
        after = model.final_norm.output.save()
        logits = model.logits.save()
    return read, (before, after), contrast.measure.at(logits[0].to(wide(model))).sum()


def _read(model: Model, first: int) -> list[_Layer]:
    """Within a trace: of every layer from `first` on."""
    return [_Layer(model.layer(i).input, model.q_proj(i).output, model.k_proj(i).output, model.v_proj(i).output,
                   model.mlp_norm(i).input, model.mlp(i).input) for i in range(first, model.n_layers)]
