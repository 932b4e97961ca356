"""Metrics between the base and the steered run, at every response position (§5, E.2)."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

METRICS = ("logit_difference", "kl")

@dataclass(frozen=True)
class LogitDifference:
    """m = logit(y) - logit(y*): y the steered run's greedy prediction, y* the base run's (§5).

    Attributes:
        mask: response positions at which y differs from y*.
    """

    steered: Int[Tensor, "batch pos"]
    base: Int[Tensor, "batch pos"]
    mask: Bool[Tensor, "batch pos"]

    @classmethod
    def between(cls, base: Float[Tensor, "batch pos vocab"], steered: Float[Tensor, "batch pos vocab"],
                responses: Bool[Tensor, "batch pos"]) -> "LogitDifference":
        """From the logits of the two runs."""
        y, usual = steered.argmax(-1), base.argmax(-1)
        return cls(y, usual, responses & (y != usual))

    def __call__(self, logits: Float[Tensor, "*rows batch pos vocab"]) -> Float[Tensor, "*rows batch pos"]:
        """m per position, 0 where masked."""
        y, usual = (logits.gather(-1, token.expand(logits.shape[:-1])[..., None])[..., 0]
                    for token in (self.steered, self.base))
        return torch.where(self.mask, y - usual, 0)


@dataclass(frozen=True)
class DirectionalKL:
    """m = KL(P_base || P) - KL(P_steered || P), in nats (E.2).

    Attributes:
        direction: P_steered - P_base.
        constant: what m adds to the sum of direction * log P.
        mask: response positions with KL(P_steered || P_base) of at least the threshold.
    """

    direction: Float[Tensor, "batch pos vocab"]
    constant: Float[Tensor, "batch pos"]
    mask: Bool[Tensor, "batch pos"]

    @classmethod
    def between(cls, base: Float[Tensor, "batch pos vocab"], steered: Float[Tensor, "batch pos vocab"],
                responses: Bool[Tensor, "batch pos"], threshold: float) -> "DirectionalKL":
        """From the logits of the two runs."""
        base, steered = base.log_softmax(-1), steered.log_softmax(-1)
        constant = (base.exp() * base).sum(-1) - (steered.exp() * steered).sum(-1)
        kl = (steered.exp() * (steered - base)).sum(-1).clamp(min=0)  # rounding may take it below 0
        return cls(steered.exp() - base.exp(), constant, responses & (kl >= threshold))

    def __call__(self, logits: Float[Tensor, "*rows batch pos vocab"]) -> Float[Tensor, "*rows batch pos"]:
        """m per position, 0 where masked."""
        return torch.where(self.mask, self.constant + (self.direction * logits.log_softmax(-1)).sum(-1), 0)
