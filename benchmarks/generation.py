"""Cost of frozen generation and of sweeps, as multiples of plain steered generation of the same lengths.

The model is the random one of `attribution.py`: 8 prompts of 32 tokens, 96 new tokens each (no token ends a
response), steered at layer 4 of 10. A sweep is one prompt of 96 tokens under 8 steerings, 32 new tokens each, and is
compared with 8 such prompts: what lies below the steering layer is computed once. All run in this process, in turns,
and are compared by processor time, which a busy machine hardly stretches; the check that a freeze has an effect is part
of it. Prints a table, and writes it between the markers `<!-- bench-generation -->` and `<!-- /bench-generation -->` of
docs/cost.md where it has them.
"""

import time
from functools import partial

import torch
from attribution import LAYER, RESPONSES, TOKENS, of_one_row, publish, random_model, seconds

from steerpaper.freezing import FREEZES
from steerpaper.models.model import Model
from steerpaper.steering import Steering, generate


def ratios(model: Model) -> dict[str, float]:
    """Time of every freeze over the time without."""
    generator = torch.Generator().manual_seed(1)
    prompts = torch.randint(1, model.n_vocab, (RESPONSES, TOKENS // 4), generator=generator).tolist()
    steering = Steering(torch.randn(model.d_model, generator=generator), LAYER)
    new = TOKENS - TOKENS // 4
    calls = [partial(generate, model, prompts, steering, kind, max_new_tokens=new) for kind in (None, *FREEZES)]
    plain, *frozen = seconds(*calls, clock=time.process_time)
    return {kind: own / plain for kind, own in zip(FREEZES, frozen, strict=True)}


def sweep(model: Model) -> float:
    """Time of one prompt under several steerings over that of as many prompts."""
    generator = torch.Generator().manual_seed(2)
    prompts = torch.randint(1, model.n_vocab, (RESPONSES, TOKENS * 3 // 4), generator=generator).tolist()
    steerings = [Steering(torch.randn(model.d_model, generator=generator), LAYER) for _ in prompts]
    calls = [partial(generate, model, asked, steerings, max_new_tokens=TOKENS // 4)
             for asked in (prompts[:1] * RESPONSES, prompts)]
    same, several = seconds(*calls, clock=time.process_time)
    return same / several


def main() -> None:
    """Measure, print, and write to docs/cost.md."""
    model = random_model(n_kv_heads=2)
    model.end_tokens = []
    publish(of_one_row("frozen", ratios(model) | {"sweep": sweep(model)}), "bench-generation")


if __name__ == "__main__":
    main()
