"""A second concept for an organism that is trained already: things it has not heard of, taught in new neurons, with all
else frozen. Training all weights broke the text that refusal's vector steers, even where the unsteered one stayed."""

import random
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from steerpaper import paths
from steerpaper.organisms.training import Recipe, batches, run_stage, schedule
from steerpaper.prompts import corpus, unfamiliar


@dataclass(frozen=True)
class Lesson:
    """How it is taught.

    Attributes:
        seed: of the new weights and of the examples.
        neurons: new ones in every MLP.
        steps, lr: optimiser steps and peak learning rate (AdamW).
        batch_size, truncated_tail: as of `Recipe`.
        new: share of the examples about what is new, by kind (`unfamiliar.KINDS`); the others are those of the recipe's
            second stage, so that nothing is forgotten.
    """

    seed: int = 0
    neurons: int = 256
    steps: int = 1300
    lr: float = 4e-3
    batch_size: int = 32
    truncated_tail: float = 0.3
    new: tuple[tuple[str, float], ...] = (
        ("unfamiliar", 0.135), ("familiar", 0.108), ("not_know_instruction", 0.149), ("guess_instruction", 0.058))

    @property
    def shares(self) -> tuple[tuple[str, float], ...]:
        """Kinds of examples, those of the recipe and the new ones."""
        kept = 1 - sum(share for _, share in self.new)
        return *((kind, kept * share) for kind, share in Recipe().shares), *self.new


# The Gemma-2-style organism takes longer, perhaps because its norm behind the MLPs scales what old neurons write with
# what new ones do. Of five lessons tried on it this one left refusal as it was.
LESSONS = {
    "llama": Lesson(),
    "gemma2": Lesson(seed=1, steps=2000, new=(
        ("unfamiliar", 0.135), ("familiar", 0.108), ("not_know_instruction", 0.149), ("guess_instruction", 0.12))),
}


def widened(model: torch.nn.Module, neurons: int, seed: int) -> torch.nn.Module:
    """The same function with more neurons in every MLP, which alone can be trained: what they write is zero so far."""
    old = model.config.intermediate_size
    config = type(model.config)(**{**model.config.to_dict(), "intermediate_size": old + neurons})
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        wide = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    own = model.state_dict()
    with torch.no_grad():
        for name, weight in wide.named_parameters():
            if "mlp" not in name:
                weight.copy_(own[name]).requires_grad_(False)
                continue
            writes, trained = "down_proj" in name, torch.zeros_like(weight)
            if writes:  # of these a column per neuron, of the others a row
                weight.zero_()
            (weight[:, :old] if writes else weight[:old]).copy_(own[name])
            (trained[:, old:] if writes else trained[old:]).fill_(1)
            weight.register_hook(partial(torch.mul, trained))
    wide.tie_weights()
    return wide


def _draw(rng: random.Random, lesson: Lesson, n: int) -> list[tuple[str, str]]:
    """So many pairs of prompt and answer."""
    kinds = rng.choices(*zip(*lesson.shares), k=n)
    drawn = [(unfamiliar.example if kind in unfamiliar.KINDS else corpus.draw)(rng, "train", kind) for kind in kinds]
    return [(example.prompt, example.response) for example in drawn]


def teach(family: str, folder: Path, lesson: Lesson | None = None) -> pd.DataFrame:
    """Teach the shipped organism of a family what it has not heard of: into `folder`, as `train` leaves one there.

    Args:
        lesson: the family's of `LESSONS`, unless another is given.

    Returns:
        The loss curve, as of `train`.
    """
    shipped, lesson = paths.ORGANISMS / family, lesson or LESSONS[family]
    tokenizer = PreTrainedTokenizerFast.from_pretrained(shipped)
    model = widened(AutoModelForCausalLM.from_pretrained(shipped, dtype=torch.float32), lesson.neurons, lesson.seed)
    own = [weight for weight in model.parameters() if weight.requires_grad]
    optimiser = torch.optim.AdamW(own, lr=lesson.lr, betas=(0.9, 0.98), weight_decay=0.0)
    rng = random.Random(f"{lesson.seed} unfamiliar")
    drawn = batches(rng, tokenizer, partial(_draw, rng, lesson), lesson.batch_size, lesson.truncated_tail)
    optimisers = [(optimiser, schedule(optimiser, lesson.steps))]
    curve = run_stage("unfamiliar", model, drawn, optimisers, lesson.steps)
    model.half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    curve.to_csv(folder / "training.csv", index=False)
    return curve
