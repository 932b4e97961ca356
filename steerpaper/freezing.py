"""Freezing (§6, table 1): one part of every layer does in the steered run what it does in the unsteered one.

Attention weights depend on queries and keys alone. So a run whose `q_proj` and `k_proj` put out what they do in
the unsteered run on the same tokens *has* the unsteered attention weights, whatever the attention's kernel,
grouping, window or cap, and a run with the unsteered `v_proj` outputs has the unsteered values. The unsteered run
is in the same batch, from the first steered layer on, below which both are one: there rows [:n] are the unsteered
*twins* of the steered rows [n:].
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from steerpaper import arguments
from steerpaper.choices import unknown
from steerpaper.models.maps import rms
from steerpaper.models.model import Model

# Parts that are copied from the twin, by the module whose output they are. The others take the steering vector's direct
# term out of the steered run.
_COPIED = {"q": "q_proj", "k": "k_proj", "v": "v_proj", "attention-write": "attention_write", "mlp-write": "mlp_write"}
# The parts that every freeze consists of.
FREEZES = {
    "qk": ("q", "k"), "q": ("q",), "k": ("k",), "ov": ("v",), "qk+ov": ("q", "k", "v"),
    "svv": ("svv",), "mlp": ("mlp",), "mlp-before-norm": ("mlp-before-norm",),
    "mlp-total": ("mlp-write",), "residual-only": ("attention-write", "mlp-write"),
}


@dataclass(frozen=True)
class Freeze:
    """Which parts are frozen, and in which layers. Made by `Freeze.of`."""

    kind: str
    parts: tuple[str, ...]
    layers: tuple[int, ...]

    @classmethod
    def of(cls, model: Model, kind: str, layers: Collection[int] | None, steered: Sequence[int]) -> "Freeze":
        """The freeze `kind` of `steerpaper.steering.generate`.

        Args:
            layers: None for all from a row's steering layer on.
            steered: steering layer of every steered row.

        Raises:
            ValueError: an unknown kind, no steered row, no layers, or one outside l..n_layers-1 for some row.
        """
        if kind not in tuple(FREEZES):
            raise unknown("freeze", kind, FREEZES)
        if not steered:
            raise ValueError(f"freeze {kind!r} without steering: an unsteered run has nothing to freeze, pass a "
                             "steering or leave `frozen` out")
        if layers is None:
            return cls(kind, FREEZES[kind], tuple(range(min(steered), model.n_layers)))
        first, layers = max(steered), arguments.listed("frozen_layers", layers)
        chosen = {arguments.whole(layer) for layer in layers}
        if not chosen or not chosen <= set(range(first, model.n_layers)):
            raise ValueError(f"frozen_layers {layers} was given for {kind!r}: choose at least one of "
                             f"{first}..{model.n_layers - 1}, from the steering layer on")
        return cls(kind, FREEZES[kind], tuple(sorted(chosen)))

    @property
    def needs_twins(self) -> bool:
        """Whether it copies from unsteered twins, rows [:n] of 2n."""
        return not _COPIED.keys().isdisjoint(self.parts)

    def intervene(self, model: Model, layer: int, added: Float[Tensor, "batch 1 d_model"]) -> None:
        """Freeze one layer, within a trace and after its input was read.

        Args:
            added: alpha s (or `Steering.direct` instead of s) of the rows that are steered in this layer or below, else
                zero.
        """
        for part in self.parts:
            if part in _COPIED:
                output = getattr(model, _COPIED[part])(layer).output
                output[len(output) // 2:] = output[:len(output) // 2]
            elif part == "svv":
                direct = _direct(added, model.layer(layer).input, model.attention_gamma(layer), model.norm_eps)
                model.v_proj(layer).input = model.v_proj(layer).input - direct
            elif part == "mlp":
                direct = _direct(added, model.mlp_norm(layer).input, model.mlp_gamma(layer), model.norm_eps)
                model.mlp(layer).input = model.mlp(layer).input - direct
            else:
                # Only the norm reads this input: the residual stream itself keeps alpha s.
                model.mlp_norm(layer).input = model.mlp_norm(layer).input - added

    def check_effect(
        self, base: Float[Tensor, "batch vocab"], steered: Float[Tensor, "batch vocab"],
        frozen: Callable[["Freeze"], Float[Tensor, "batch vocab"]],
    ) -> None:
        """Check that every part by itself changes the logits, where steering changed them by more than rounding.

        Args:
            base, steered: logits of the same rows without and with steering.
            frozen: the steered logits under a freeze. Runs of one shape, so that an intervention that does not arrive
                leaves the logits as they were to the bit.

        Raises:
            RuntimeError: which part, in which layers, has no effect.
        """
        if (steered - base).abs().max() <= 4 * torch.finfo(steered.dtype).eps * steered.abs().max():
            return
        for part in self.parts:
            if torch.equal(frozen(replace(self, parts=(part,))), steered):
                raise RuntimeError(f"freezing {self.kind!r} in layers {list(self.layers)} has no effect: its part "
                                   f"{part!r} leaves the logits as steering makes them, so the intervention does not "
                                   "reach this model")


def _direct(
    added: Float[Tensor, "batch 1 d_model"], stream: Float[Tensor, "batch pos d_model"],
    gamma: Float[Tensor, "d_model"], eps: float,
) -> Float[Tensor, "batch pos d_model"]:
    """alpha (s * gamma) / RMS(h): what alpha s adds to the norm's output, at the RMS of the steered stream h.

    In float32, as the norms compute.
    """
    return (added.float() * gamma.float() / rms(stream.float(), eps)).to(stream.dtype)
