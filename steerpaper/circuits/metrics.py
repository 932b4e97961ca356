"""Metrics between the base and the steered run, at every response position (§5, E.2)."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import kl_div

from steerpaper import arguments
from steerpaper.choices import unknown

Logits = Float[Tensor, "batch pos vocab"]


@dataclass(frozen=True)
class Measure:
    """m of any run, once a metric was put between a base and a steered one.

    Attributes:
        mask: the response positions that count; "unmasked" ones are numbered row by row.
        at: m from logits at these positions alone. Most are masked, and most of a run's cost may be its logits.
    """

    mask: Bool[Tensor, "batch pos"]
    at: Callable[[Float[Tensor, "*runs unmasked vocab"]], Float[Tensor, "*runs unmasked"]]

    def __call__(self, logits: Logits) -> Float[Tensor, "unmasked"]:
        """m from a run's logits at every position."""
        return self.at(logits[self.mask])


@dataclass(frozen=True)
class LogitDifference:
    """m = logit(y) - logit(y*), y the steered run's greedy prediction, y* the base run's; masked where y is y* (§5)."""

    why_masked = ("steering changes no greedy prediction. Pass responses whose behaviour it flips, or a larger "
                  "coefficient")

    def between(self, base: Logits, steered: Logits, responses: Bool[Tensor, "batch pos"]) -> Measure:
        """m between two runs; positions outside `responses` are masked, too."""
        y, usual = (run.argmax(-1) for run in (steered, base))
        mask = responses & (y != usual)
        tokens = torch.stack([y[mask], usual[mask]], dim=-1)

        def difference(logits):
            at_y, at_usual = logits.gather(-1, tokens.expand(*logits.shape[:-1], 2)).unbind(-1)
            return at_y - at_usual

        return Measure(mask, difference)


@dataclass(frozen=True)
class DirectionalKL:
    """m = KL(P_base || P) - KL(P_steered || P), in nats; masked where KL(P_steered || P_base) < threshold (E.2).

    Raises:
        ValueError: a threshold that is not finite, or negative.
    """

    threshold: float = 0.0

    def __post_init__(self):
        if arguments.number("threshold", self.threshold) < 0:
            raise ValueError(f"threshold must be at least 0 nats, {self.threshold} was given")

    @property
    def why_masked(self) -> str:
        """What to say where nothing is left."""
        return f"KL(P_steered || P_base) stays below {self.threshold} everywhere. Lower the threshold"

    def between(self, base: Logits, steered: Logits, responses: Bool[Tensor, "batch pos"]) -> Measure:
        """m between two runs; positions outside `responses` are masked, too."""
        base, steered = base.log_softmax(-1), steered.log_softmax(-1)
        kl = kl_div(base, steered, reduction="none", log_target=True).sum(-1).clamp(min=0)  # rounding: it may be below
        mask = responses & (kl >= self.threshold)
        base, steered = base[mask], steered[mask]
        # By hand: with the difference of the two distributions taken once, m costs one product per position.
        constant = (base.exp() * base).sum(-1) - (steered.exp() * steered).sum(-1)
        direction = steered.exp() - base.exp()
        return Measure(mask, lambda logits: constant + (direction * logits.log_softmax(-1)).sum(-1))


Metric = LogitDifference | DirectionalKL
METRICS = {"logit_difference": LogitDifference(), "kl": DirectionalKL()}


def get_metric(metric: str | Metric) -> Metric:
    """A metric by its name, or as it was given; ValueError for any other."""
    if isinstance(metric, Metric):
        return metric
    if metric not in tuple(METRICS):
        raise unknown("metric", metric, METRICS, ", or give LogitDifference() or DirectionalKL(threshold=…)")
    return METRICS[metric]
