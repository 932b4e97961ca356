"""Cost of the selection scores (§3.2), as a share of whole passes for every candidate and prompt.

The model is the random one of `attribution.py`: 10 layers, 2 candidates in each but the first, 8 prompts of 32 tokens
per class. Steered passes begin at the layer that the vector enters, with what lies below run once; KL under ablation
needs whole passes. All run in this process, in turns, and are compared by processor time. Prints a table, and writes it
between the markers `<!-- bench-selection -->` and `<!-- /bench-selection -->` of docs/cost.md where it has them.
"""

import time
from functools import partial

import torch
from attribution import RESPONSES, TOKENS, of_one_row, publish, random_model, seconds

from steerpaper.models.model import Model
from steerpaper.steering import Entering, Steering, next_token_logits
from steerpaper.vectors.selection import score_candidates

POSITIONS = 2


def whole_passes(model: Model, vectors: torch.Tensor, prompts: list[list[list[int]]], *, ablate: bool) -> None:
    """Every layer's candidates on the prompts of both classes, steered, and with `ablate` on those of one ablated."""
    for layer in range(1, model.n_layers):
        for sign, rows in zip((-1.0, 1.0), prompts):
            steerings = [Steering(vector, layer, sign) for vector in vectors[layer] for _ in rows]
            next_token_logits(model, rows * POSITIONS, steerings)
        if ablate:
            spread = vectors[layer].repeat_interleave(len(rows), dim=0)
            next_token_logits(model, rows * POSITIONS, ablation=spread)


def from_the_layer_on(model: Model, vectors: torch.Tensor, prompts: list[list[list[int]]]) -> None:
    """The same steered passes from the stream that enters the layer."""
    for sign, rows in zip((-1.0, 1.0), prompts):
        entering = Entering.of(model, rows * POSITIONS, 1)
        for layer in range(1, model.n_layers):
            entering = entering.at(layer)
            entering.next_token_logits([Steering(vector, layer, sign) for vector in vectors[layer] for _ in rows])


def shares(model: Model) -> dict[str, float]:
    """Time of each way over that of whole passes."""
    generator = torch.Generator().manual_seed(1)
    shape = 2, RESPONSES, TOKENS // 4
    prompts = torch.randint(1, model.n_vocab, shape, generator=generator).tolist()
    vectors = torch.randn(model.n_layers, POSITIONS, model.d_model, generator=generator)
    vectors[0] = 0
    scored = partial(score_candidates, model, vectors, *prompts, [1])
    calls = [partial(whole_passes, model, vectors, prompts, ablate=False),
             partial(from_the_layer_on, model, vectors, prompts),
             partial(whole_passes, model, vectors, prompts, ablate=True),
             scored, partial(scored, skip_excluded=True)]
    steered, begun, all_three, found, fewer = seconds(*calls, clock=time.process_time)
    return {"bypass and induce": begun / steered, "all three": found / all_three,
            "all three, without excluded layers": fewer / all_three}


def main() -> None:
    """Measure, print, and write to docs/cost.md."""
    publish(of_one_row("scores", shares(random_model(n_kv_heads=2))), "bench-selection")


if __name__ == "__main__":
    main()
