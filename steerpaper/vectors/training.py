"""Training of learned steering vectors (§3.2, B.4): next-token prediction (NTP) and preference optimisation (PO).

Steering with sign times alpha v enters at one layer, so everything below it is run once per response and kept.
Several runs (grid points, seeds) train side by side: their rows share the forward passes, while each run has its
own parameter, clipping, learning rate, schedule and randomness. So a run comes out as it would alone.
"""

import math
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial

import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.optim.lr_scheduler import LinearLR
from tqdm import tqdm

from steerpaper import arguments
from steerpaper.choices import unknown
from steerpaper.models.kept import Kept
from steerpaper.models.model import Model
from steerpaper.vectors.losses import Continuations
from steerpaper.vectors.pairs import ContrastPairs

LEARNED = ("ntp", "po")
_STATE = ("vectors", "free_norms", "match_scores", "losses")  # of all runs, see `_trained`
# A run has diverged once an epoch's mean loss is more than this many times that of the pairs without steering, and a
# nat besides: the layers' norms keep the loss of a vector that has run away finite.
_DIVERGED, _SLACK = 3.0, 1.0
# |alpha| in training: 1 in the paper's text, drawn at every step in the authors' code.
COEFFICIENTS = {"unit": (1.0,), "sampled": tuple(range(2, 21, 2))}


@dataclass(frozen=True)
class Setting:
    """One run of the grid (table 4).

    Attributes:
        method: "ntp" or "po".
        batch_size: pairs per step.
        learning_rate: of the first step; it falls linearly to 0.
        seed: of the initial vector, the order of the pairs and, if they are sampled, the coefficients.
        phi: of PO's weight, see `preference_weight`; None for NTP.

    Raises:
        ValueError: an unknown method, a batch size or learning rate that is not positive, or a phi that is
            missing (PO), negative, or of no use (NTP).
    """

    method: str
    batch_size: int = 6
    learning_rate: float = 0.01
    seed: int = 42
    phi: float | None = None

    def __post_init__(self):
        if self.method not in LEARNED:
            raise unknown("method", self.method, LEARNED)
        size, seed = arguments.whole(self.batch_size), arguments.whole(self.seed)
        if size is None or seed is None:
            raise ValueError(f"batch size and seed must be integers, not {self.batch_size!r} and {self.seed!r}")
        if size < 1 or not arguments.number("learning rate", self.learning_rate) > 0:
            raise ValueError(f"batch size and learning rate must be positive, not {self.batch_size} and "
                             f"{self.learning_rate}")
        phi = None if self.phi is None else arguments.number("phi", self.phi)
        if phi is not None if self.method == "ntp" else phi is None or not phi >= 0:
            raise ValueError(f"phi {self.phi} was given for {self.method!r}: PO takes a number of at least 0, NTP None")


@dataclass(frozen=True, eq=False)
class Training:
    """Trained runs.

    Attributes:
        settings: of every run.
        vectors: as they are to be used, at alpha = +1 to express the concept (refuse) and -1 to withhold it (comply).
        curves: one row per run and epoch: the setting's fields, `epoch` (0: before training), `step`,
            `training_loss` (mean over the epoch's steps; missing at epoch 0) and `validation_loss` (nats per
            response for NTP; of the vector as it is to be used, at alpha = +-1).
        grid: one row per run: the setting's fields, the last `validation_loss`, `match_score`, `norm`, and
            `free_norm`, how long the vector was before it was rescaled for use.
    """

    settings: list[Setting]
    vectors: Float[Tensor, "run d_model"]
    curves: pd.DataFrame
    grid: pd.DataFrame


@torch.inference_mode(False)  # gradients are taken wherever it is called from
def train(
    model: Model, pairs: ContrastPairs, validation: ContrastPairs, layer: int, settings: Sequence[Setting], *,
    epochs: int = 10, coefficients: str = "unit", norm: float | None = None, n_tokens: int = 64, batch_size: int = 16,
) -> Training:
    """Train one vector per setting, all of one method, on the same pairs (§3.2, B.4).

    The loss of a step is the mean over its pairs of -sum_i log p(y_i) over the winner's tokens (NTP) or of
    `preference_loss` (PO). Adam without weight decay, gradients clipped at norm 1, the learning rate falling
    linearly to 0, initial values N(0, 0.01^2).

    Args:
        layer: the vector is added to the stream entering it, at every position, times the pair's sign and |alpha|.
        epochs: passes over the pairs, each in a new order.
        coefficients: |alpha| in training: "unit" (1, the paper's text) or "sampled" (drawn for every step from
            2, 4, ..., 20, the authors' code).
        norm: None to use the vector as it was learned, or the norm that it is rescaled to for use.
        n_tokens: response tokens learned from, the first ones.
        batch_size: responses per forward pass. On a processor few are faster, since they stay in its caches.

    Raises:
        ValueError: no settings or settings of several methods, a layer that the model does not have, an unknown
            kind of coefficients, a norm, or a number of epochs or tokens, that is not positive, or responses that
            do not fit the model.
        FloatingPointError: a loss that is not finite, or an epoch's mean loss of more than three times the pairs' loss
            without steering and 1 nat besides, with the run's settings and the step. PO's loss compares two responses
            and may stay small where both are broken: match scores and test prompts tell.
    """
    methods = sorted({setting.method for setting in arguments.listed("settings", settings)})
    if len(methods) != 1:
        raise ValueError(f"settings of the methods {methods} were given: pass at least one, all of one method")
    layer = arguments.integer("layer", layer, 0, model.n_layers - 1)
    if coefficients not in tuple(COEFFICIENTS):
        raise unknown("coefficients", coefficients, COEFFICIENTS)
    sizes = [arguments.whole(size) or 0 for size in (epochs, n_tokens, batch_size)]
    if min(sizes) < 1 or not (norm is None or arguments.number("norm", norm) > 0):
        raise ValueError(f"epochs, n_tokens, batch_size and norm must be positive, not {epochs}, {n_tokens}, "
                         f"{batch_size} and {norm}")
    settings, how = list(settings), dict(epochs=epochs, coefficients=coefficients, norm=norm)
    kept = _kept(model, pairs, validation, layer, settings, n_tokens=n_tokens, batch_size=batch_size, **how)
    if not kept.done:
        both = (Continuations.of(model, p, methods[0], layer, n_tokens, batch_size) for p in (pairs, validation))
        kept.state = _trained(*both, settings, **how)
        kept.keep(len(settings))
    vectors, free_norms, match_scores, losses = (kept.state[name] for name in _STATE)
    steps = [math.ceil(len(pairs) / setting.batch_size) for setting in settings]
    curves = pd.DataFrame([
        {**asdict(setting), "epoch": epoch, "step": epoch * each, "training_loss": trained, "validation_loss": validated}
        for setting, each, curve in zip(settings, steps, losses.tolist())
        for epoch, (trained, validated) in enumerate(curve)
    ])
    grid = curves[curves.epoch == epochs].drop(columns=["epoch", "step", "training_loss"])
    grid = grid.assign(match_score=match_scores.tolist(), norm=vectors.norm(dim=1).tolist(),
                       free_norm=free_norms.tolist())
    return Training(settings, vectors, curves, grid.reset_index(drop=True))


def _kept(model: Model, pairs: ContrastPairs, validation: ContrastPairs, layer: int, settings: list[Setting], **how,
          ) -> Kept:
    """What was trained already from the same pairs in the same way: a whole grid, or nothing."""
    rows = [[(winner.tokens, loser.tokens, len(winner.prompt), sign)
             for winner, loser, sign in zip(p.winners, p.losers, p.signs)] for p in (pairs, validation)]
    inputs = {"pairs": rows, "layer": layer, "settings": [asdict(setting) for setting in settings], **how}
    shapes = zip(_STATE, ((model.d_model,), (), (), (how["epochs"] + 1, 2)), (None, *[torch.float64] * 3))
    state = {name: torch.zeros(len(settings), *shape, dtype=dtype) for name, shape, dtype in shapes}
    return Kept("train", __name__, model.hf, inputs, state)


def _trained(
    data: Continuations, held_out: Continuations, settings: list[Setting], *, epochs: int, coefficients: str,
    norm: float | None,
) -> dict[str, Tensor]:
    """The trained runs' vectors, lengths before rescaling, match scores and losses by epoch, as `_STATE` names them."""
    runs = [_Run(setting, data, COEFFICIENTS[coefficients], norm, epochs) for setting in settings]
    for size in sorted({setting.batch_size for setting in settings}):  # these take the same number of steps
        _train_together([run for run in runs if run.setting.batch_size == size], data, held_out, epochs)
    vectors, lengths = torch.stack([run.used for run in runs]), [float(run.vector.detach().norm()) for run in runs]
    numbers = (lengths, _match_scores(held_out, vectors), [run.curve for run in runs])
    return dict(zip(_STATE, (vectors.cpu(), *(torch.tensor(each, dtype=torch.float64) for each in numbers))))


class _Run:
    """One run's vector and all that belongs to it alone."""

    def __init__(self, setting: Setting, data: Continuations, alphas: Sequence[float], norm: float | None, epochs: int):
        self.setting, self.alphas, self.norm = setting, alphas, norm
        self.generator = torch.Generator().manual_seed(zlib.crc32(f"{setting.seed} learned vector".encode()))
        start = 0.01 * torch.randn(data.model.d_model, generator=self.generator)
        self.vector = torch.nn.Parameter(start.to(data.model.device))
        self.optimizer = torch.optim.Adam([self.vector], lr=setting.learning_rate)
        self.n_steps = epochs * math.ceil(len(data.signs) / setting.batch_size)
        self.schedule = LinearLR(self.optimizer, 1.0, 0.0, total_iters=self.n_steps)
        self.curve: list[tuple[float, float]] = []

    @property
    def used(self) -> Float[Tensor, "d_model"]:
        """The vector as it is to be used."""
        vector = self.vector.detach()
        return vector.clone() if self.norm is None else vector * (self.norm / vector.norm())

    def shuffled(self, n: int) -> tuple[Tensor, ...]:
        """The pairs of every step of the next epoch."""
        return torch.randperm(n, generator=self.generator).split(self.setting.batch_size)

    def alpha(self) -> float:
        """|alpha| of the next step."""
        return self.alphas[int(torch.randint(len(self.alphas), (), generator=self.generator))]

    def step(self) -> None:
        """Follow the gradient."""
        torch.nn.utils.clip_grad_norm_([self.vector], 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.schedule.step()

    def check(self, loss: float, step: int, unsteered: float = math.inf) -> None:
        """Raise FloatingPointError where the loss is not finite, or far above that of the same pairs unsteered."""
        where = f"at step {step} of {self.n_steps} of {self.setting}"
        if not math.isfinite(loss):
            raise FloatingPointError(f"the loss is {loss} {where}: lower the learning rate, or look for broken pairs")
        if loss > _DIVERGED * unsteered + _SLACK:
            raise FloatingPointError(
                f"training diverges: the epoch's mean loss is {loss:.3g} {where}, that of the pairs without steering "
                f"{unsteered:.3g}, and at most {_DIVERGED:g} times that and {_SLACK:g} is allowed. Lower the learning "
                "rate (`learning_rates` of a preset)")


def _train_together(runs: list[_Run], data: Continuations, held_out: Continuations, epochs: int) -> None:
    """Train runs of one batch size side by side, step by step, and record their curves."""
    n, step = len(data.signs), 0
    unsteered = _unsteered(runs, data)
    _record(runs, held_out, step, [math.nan] * len(runs))
    what = f"{runs[0].setting.method}, {len(runs)} runs"
    for epoch in tqdm(range(1, epochs + 1), desc=what, unit="epoch", leave=False):
        totals = torch.zeros(len(runs))
        steps = list(zip(*(run.shuffled(n) for run in runs)))
        for pairs in tqdm(steps, desc=f"epoch {epoch}", unit="step", leave=False):
            step += 1
            losses = _accumulate(runs, data, torch.stack(pairs).to(data.signs.device))
            for run, loss in zip(runs, losses.tolist()):
                run.check(loss, step)
                run.step()
            totals += losses
        means = (totals / len(steps)).tolist()
        for run, mean in zip(runs, means):
            run.check(mean, step, unsteered[run.setting.phi])
        _record(runs, held_out, step, means)


def _unsteered(runs: list[_Run], data: Continuations) -> dict[float | None, float]:
    """Mean loss over all pairs without steering, which of a run's setting only phi changes."""
    each = list({run.setting.phi: run for run in runs}.values())
    pairs = torch.arange(len(data.signs), device=data.signs.device).expand(len(each), -1)
    losses = _losses(each, data, pairs, torch.zeros(len(each), data.model.d_model, device=pairs.device))
    return {run.setting.phi: loss for run, loss in zip(each, losses.mean(1).tolist())}


def _accumulate(runs: list[_Run], data: Continuations, pairs: Int[Tensor, "run pair"]) -> Float[Tensor, "run"]:
    """Set each run's gradient of its mean loss over its pairs; the mean losses."""
    alphas = torch.tensor([run.alpha() for run in runs], device=pairs.device)[:, None]
    steered = (alphas * torch.stack([run.vector.detach() for run in runs])).requires_grad_()
    losses = _losses(runs, data, pairs, steered).mean(1)
    for run, gradient in zip(runs, alphas * steered.grad):
        run.vector.grad = gradient
    return losses


def _record(runs: list[_Run], held_out: Continuations, step: int, training_losses: list[float]) -> None:
    """Add an epoch's training and validation loss to every run's curve."""
    pairs = torch.arange(len(held_out.signs), device=held_out.signs.device).expand(len(runs), -1)
    losses = _losses(runs, held_out, pairs, torch.stack([run.used for run in runs]))
    for run, trained, validated in zip(runs, training_losses, losses.mean(1).tolist()):
        run.check(validated, step)
        run.curve.append((trained, validated))


def _losses(
    runs: list[_Run], data: Continuations, pairs: Int[Tensor, "run pair"], vectors: Float[Tensor, "run d_model"],
) -> Float[Tensor, "run pair"]:
    """Each run's loss on its pairs; where `vectors` ask for a gradient that of the runs' means is accumulated there."""
    owner = torch.arange(len(runs), device=pairs.device).repeat_interleave(pairs.shape[1])
    phi = torch.tensor([run.setting.phi or 0.0 for run in runs], device=pairs.device)
    losses = torch.empty(pairs.numel(), device=pairs.device)

    def compute(chunk: Tensor) -> Tensor:
        with torch.set_grad_enabled(vectors.requires_grad):
            part = data.losses(pairs.flatten()[chunk], vectors[owner[chunk]], phi[owner[chunk]])
            if vectors.requires_grad:
                (part.sum() / pairs.shape[1]).backward()
        return part.detach()

    for chunk, part in data.in_chunks(pairs.flatten(), compute):
        losses[chunk] = part
    return losses.view(pairs.shape).cpu()


@torch.no_grad()
def _match_scores(held_out: Continuations, vectors: Float[Tensor, "run d_model"]) -> list[float]:
    """Share of the winners' tokens that each vector's steered model predicts greedily, given those before."""
    pairs = torch.arange(len(held_out.signs), device=vectors.device)

    def hits(vector: Tensor, chunk: Tensor) -> int:
        logits = held_out.logits(chunk, vector.expand(len(chunk), -1))
        targets = held_out.batch.targets[chunk][held_out.batch.response_mask[chunk]]
        return int((logits.argmax(-1) == targets).sum())

    n = int(held_out.batch.response_mask[pairs].sum())
    return [sum(found for _, found in held_out.in_chunks(pairs, partial(hits, vector))) / n for vector in vectors]
