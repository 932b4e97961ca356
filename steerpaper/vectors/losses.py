"""What learned vectors minimise (§3.2): log-probabilities of responses, the losses of next-token prediction (NTP) and
preference optimisation (PO), and pairs made ready to be continued from the steering layer on, over and over."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy, logsigmoid

from steerpaper.finite import check_finite
from steerpaper.models.batches import in_batches
from steerpaper.models.model import Model
from steerpaper.models.responses import Batch, Response, teacher_forcing
from steerpaper.vectors.pairs import ContrastPairs

T = TypeVar("T")


def response_log_probs(
    logits: Float[Tensor, "token vocab"], batch: Batch, rows: Int[Tensor, "row"],
) -> Float[Tensor, "row"]:
    """log p of each row's response in nats: the sum of its tokens' log-probabilities, in float32.

    Args:
        logits: at the response positions of `rows`, one row's after the other's.
    """
    mask = batch.response_mask[rows]
    tokens = torch.zeros(mask.shape, device=logits.device)
    tokens[mask] = -cross_entropy(logits.float(), batch.targets[rows][mask], reduction="none")
    return tokens.sum(1)


def preference_weight(
    winner: Float[Tensor, "pair"], loser: Float[Tensor, "pair"], phi: Float[Tensor, "pair"] | float,
) -> Float[Tensor, "pair"]:
    """PO's beta+ = max((log p(loser) - log p(winner)) phi, 1) (§3.2), with the *unsteered* model's log p."""
    return ((loser - winner) * phi).clamp(min=1)


def preference_loss(
    winner: Float[Tensor, "pair"], loser: Float[Tensor, "pair"], n_winner: Int[Tensor, "pair"],
    n_loser: Int[Tensor, "pair"], weight: Float[Tensor, "pair"],
) -> Float[Tensor, "pair"]:
    """PO (§3.2, uni-directional RePS): -log sigma(beta+/|y_w| log p(y_w) - 1/|y_l| log p(y_l)), with the *steered*
    model's log p of all tokens of y, and |y| their number."""
    return -logsigmoid(weight * winner / n_winner - loser / n_loser)


@dataclass(frozen=True, eq=False)
class Continuations:
    """Pairs ready to be continued from the steering layer on: nothing below it depends on the steering.

    Attributes:
        batch: winners, then (for PO) losers: row i is winner i, row n + i loser i.
        stream: the unsteered residual stream entering `layer`.
        base: log p of every row's response under the unsteered model.
        signs: of alpha, one per pair.
        batch_size: rows per pass.
    """

    model: Model
    layer: int
    batch: Batch
    stream: Float[Tensor, "row pos d_model"]
    base: Float[Tensor, "row"]
    signs: Float[Tensor, "pair"]
    batch_size: int

    @classmethod
    @torch.no_grad()
    def of(
        cls, model: Model, pairs: ContrastPairs, method: str, layer: int, n_tokens: int, batch_size: int,
    ) -> "Continuations":
        """Cut the responses to their first `n_tokens` tokens and run the unsteered model on them, once.

        Raises:
            ValueError: a response without tokens, or one that exceeds the model's context.
        """
        whole = pairs.winners if method == "ntp" else [*pairs.winners, *pairs.losers]
        responses = [Response(response.prompt, response.completion[:n_tokens]) for response in whole]
        batch = teacher_forcing(model, responses)
        stream = torch.zeros(*batch.input_ids.shape, model.d_model, dtype=model.dtype, device=model.device)
        base = torch.empty(len(responses), device=model.device)

        def run(indices: list[int]) -> None:
            rows = torch.tensor(indices, device=model.device)
            ids, mask = _inputs(batch, rows)
            with model.trace(ids, mask):
                entering = model.layer(layer).input.save()
                _unembed_responses(model, batch, rows)
                logits = model.logits.save()
            base[rows] = response_log_probs(logits[0], batch, rows)
            check_finite(base[rows, None], "log-probabilities of responses", indices)
            stream[rows, -ids.shape[1]:] = entering

        for _ in in_batches([len(response.tokens) for response in responses], batch_size, "unsteered", run):
            pass
        signs = torch.tensor(pairs.signs, dtype=torch.float32, device=model.device)
        return cls(model, layer, batch, stream, base, signs, batch_size)

    def losses(
        self, pairs: Int[Tensor, "item"], vectors: Float[Tensor, "item d_model"], phi: Float[Tensor, "item"],
    ) -> Float[Tensor, "item"]:
        """Loss of every pair under its own vector times the pair's sign: PO's where there are losers, else NTP's."""
        n = len(self.signs)
        if len(self.base) == n:
            return -response_log_probs(self.logits(pairs, vectors), self.batch, pairs)
        rows = torch.cat([pairs, pairs + n])
        steered = response_log_probs(self.logits(rows, vectors.repeat(2, 1)), self.batch, rows).view(2, -1)
        n_tokens = self.batch.response_mask[rows].sum(1).view(2, -1)
        return preference_loss(*steered, *n_tokens, preference_weight(*self.base[rows].view(2, -1), phi))

    def logits(
        self, rows: Int[Tensor, "row"], vectors: Float[Tensor, "row d_model"],
    ) -> Float[Tensor, "token vocab"]:
        """Logits at the response positions, with every row's vector times its pair's sign added to the stream."""
        ids, mask = _inputs(self.batch, rows)
        additions = self.signs[rows % len(self.signs), None] * vectors
        stream = self.stream[rows, -ids.shape[1]:] + additions[:, None].to(self.model.dtype)
        with self.model.trace(ids, mask):
            self.model.start_at(self.layer, stream)
            _unembed_responses(self.model, self.batch, rows)
            logits = self.model.logits.save()
        return logits[0]

    def in_chunks(
        self, pairs: Int[Tensor, "item"], compute: Callable[[Int[Tensor, "chunk"]], T],
    ) -> Iterator[tuple[Int[Tensor, "chunk"], T]]:
        """`compute(chunk)` for indices into `pairs`, in chunks of like length that fit one pass."""
        per_pair = len(self.base) // len(self.signs)
        lengths = self.batch.attention_mask.sum(1).view(per_pair, -1).amax(0)[pairs].tolist()

        def run(chunk: list[int]) -> tuple[Tensor, T]:
            index = torch.tensor(chunk, device=pairs.device)
            return index, compute(index)

        size = max(1, self.batch_size // per_pair)
        for _, result in in_batches(lengths, size, "training", run, show=False):
            yield result


def _inputs(batch: Batch, rows: Int[Tensor, "row"]) -> tuple[Int[Tensor, "row pos"], Int[Tensor, "row pos"]]:
    """Token ids and mask of some rows, without the padding that they share."""
    width = int(batch.attention_mask[rows].sum(1).max())
    return batch.input_ids[rows, -width:], batch.attention_mask[rows, -width:]


def _unembed_responses(model: Model, batch: Batch, rows: Int[Tensor, "row"]) -> None:
    """Within a trace: hand on the response positions only, as one long row. After the layers every position is by
    itself, and most of the logits would not be read."""
    stream = model.final_norm.input
    model.final_norm.input = stream[batch.response_mask[rows, -stream.shape[1]:]][None]
