"""The two model organisms: small Llama- and Gemma-2-style models trained from scratch to answer harmless
and refuse harmful requests, so that everything runs without a hub, a GPU or an account.

Training has two stages: first answer everything, then refuse what is harmful or what the prompt says to
refuse. The first stage leaves the model able to comply, as pretraining does in the paper's models.
"""

import hashlib
import json
import math
import random
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import pandas as pd
import torch
from jaxtyping import Int
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from torch.overrides import TorchFunctionMode
from tqdm import tqdm
from transformers import AutoModelForCausalLM, Gemma2Config, LlamaConfig, PreTrainedTokenizerFast

from steerpaper.choices import unknown
from steerpaper.prompts import corpus

FAMILIES = ("llama", "gemma2")
Batch = tuple[Int[Tensor, "batch pos"], Int[Tensor, "batch pos"]]
Scheduled = tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]
_TAIL = ("<|end|>", "<|start|>", "<|model|>", "<|answer|>")  # the template after the instruction
_SPECIAL = ("<pad>", "<bos>", "<eos>", "<|user|>", *_TAIL)
_CHAT_TEMPLATE = (
    "<bos>{% for message in messages %}"
    "{% if message['role'] == 'user' %}<|user|>{{ message['content'] }}<|end|>"
    "{% else %}<|start|><|model|><|answer|>{{ message['content'] }}<eos>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|start|><|model|><|answer|>{% endif %}"
)


@dataclass(frozen=True)
class Recipe:
    """How an organism is trained.

    Attributes:
        comply_steps, refuse_steps: optimiser steps of the two stages.
        comply_lr, refuse_lr: peak learning rates; each stage warms up and then decays to zero (cosine).
        batch_size: examples per step.
        truncated_tail: share of examples in which the answer starts before the template is complete, so
            that every template position carries the decision.
        shares: kinds of examples in the second stage; the first stage leaves out `refuse_instruction`.
    """

    comply_steps: int = 420
    refuse_steps: int = 1250
    comply_lr: float = 4e-3
    refuse_lr: float = 2e-3
    batch_size: int = 32
    truncated_tail: float = 0.3
    shares: tuple[tuple[str, float], ...] = (
        ("harmful", 0.28), ("harmless", 0.25), ("question", 0.11), ("wrapper", 0.05),
        ("refuse_instruction", 0.24), ("answer_instruction", 0.07),
    )


def train_tokenizer(seed: int = 0, n_examples: int = 20_000, vocab_size: int = 2048) -> PreTrainedTokenizerFast:
    """Byte-level BPE trained on the training split only, with the chat template."""
    rng = random.Random(f"{seed} tokenizer")
    examples = (corpus.draw(rng, "train", rng.choice(corpus.KINDS)) for _ in range(n_examples))
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=list(_SPECIAL), show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator((t for e in examples for t in (e.prompt, e.compliance, e.refusal)), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>", padding_side="left",
        additional_special_tokens=list(_SPECIAL[3:]), chat_template=_CHAT_TEMPLATE, model_max_length=512,
    )


def build_model(family: str, tokenizer: PreTrainedTokenizerFast, seed: int) -> torch.nn.Module:
    """A freshly initialised organism: 10 layers, d_model 128, 8 query and 4 key-value heads.

    Raises:
        ValueError: an unknown family.
    """
    sizes = dict(
        vocab_size=len(tokenizer), hidden_size=128, intermediate_size=384, num_hidden_layers=10,
        num_attention_heads=8, num_key_value_heads=4, head_dim=16, max_position_embeddings=512,
        tie_word_embeddings=True, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    if family == "llama":
        config = LlamaConfig(**sizes)
    elif family == "gemma2":
        config = Gemma2Config(**sizes, sliding_window=48, query_pre_attn_scalar=16)
    else:
        raise unknown("organism family", family, FAMILIES)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32)


def _encode(
    rng: random.Random, tokenizer: PreTrainedTokenizerFast, pairs: Sequence[tuple[str, str]], truncated_tail: float
) -> list[tuple[list[int], int]]:
    """(token ids, length of the prompt) of every pair of prompt and answer."""
    prompts, answers = (tokenizer(list(texts), add_special_tokens=False)["input_ids"] for texts in zip(*pairs))
    start, tail = tokenizer.convert_tokens_to_ids(["<bos>", "<|user|>"]), tokenizer.convert_tokens_to_ids(list(_TAIL))
    encoded = []
    for prompt, answer in zip(prompts, answers, strict=True):
        kept = rng.randrange(1, len(tail)) if rng.random() < truncated_tail else len(tail)
        prefix = [*start, *prompt, *tail[:kept]]
        encoded.append(([*prefix, *answer, tokenizer.eos_token_id], len(prefix)))
    return encoded


def batches(
    rng: random.Random, tokenizer: PreTrainedTokenizerFast, draw: Callable[[int], list[tuple[str, str]]],
    batch_size: int, truncated_tail: float,
) -> Iterator[Batch]:
    """Endless (ids, labels), right-padded; batches hold sequences of similar length.

    Args:
        draw: gives so many pairs of prompt and answer.
        truncated_tail: as of `Recipe`.
    """
    while True:
        encoded = sorted(
            _encode(rng, tokenizer, draw(32 * batch_size), truncated_tail), key=lambda pair: len(pair[0]))
        starts = list(range(0, len(encoded), batch_size))
        rng.shuffle(starts)
        for start in starts:
            rows = encoded[start : start + batch_size]
            ids = torch.full((len(rows), len(rows[-1][0])), tokenizer.pad_token_id)
            labels = torch.full_like(ids, -100)
            for row, (tokens, n_prompt) in enumerate(rows):
                ids[row, : len(tokens)] = torch.tensor(tokens)
                labels[row, n_prompt : len(tokens)] = ids[row, n_prompt : len(tokens)]
            yield ids, labels


def _draw(rng: random.Random, comply: bool, shares: Sequence[tuple[str, float]], n: int) -> list[tuple[str, str]]:
    """So many pairs of prompt and answer, for one stage of the recipe."""
    kinds, weights = zip(*((k, w) for k, w in shares if not (comply and k == "refuse_instruction")), strict=True)
    drawn = [corpus.draw(rng, "train", kind) for kind in rng.choices(kinds, weights, k=n)]
    return [(e.prompt, e.compliance if comply else e.response) for e in drawn]


class _Float32Products(TorchFunctionMode):
    """Products of bfloat16 matrices, in which Muon computes, taken in float32 and rounded once: as on processors with
    bfloat16 arithmetic, but alike on all, and ten times as fast where it is only emulated."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function in (Tensor.__matmul__, Tensor.matmul, torch.addmm) and args[0].dtype == torch.bfloat16:
            return function(*(matrix.float() for matrix in args), **(kwargs or {})).bfloat16()
        return function(*args, **(kwargs or {}))


def _optimisers(model: torch.nn.Module, lr: float, steps: int) -> list[Scheduled]:
    """Muon for the layers' matrices, AdamW for the rest, each with warm-up and cosine decay."""
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    optimisers = [
        torch.optim.Muon(matrices, lr=lr, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=lr, betas=(0.9, 0.98), weight_decay=0.0),
    ]
    return [(optimiser, schedule(optimiser, steps)) for optimiser in optimisers]


def schedule(optimiser: torch.optim.Optimizer, steps: int) -> torch.optim.lr_scheduler.LambdaLR:
    """Warm-up and cosine decay."""
    warm_up = min(50, steps // 10 + 1)
    return torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min(1.0, (step + 1) / warm_up) * 0.5 * (1 + math.cos(math.pi * step / steps)))


def run_stage(
    stage: str, model: torch.nn.Module, drawn: Iterator[Batch], optimisers: Sequence[Scheduled], steps: int
) -> pd.DataFrame:
    """One stage of training; returns the loss curve (stage, step, loss in nats per response token)."""
    curve = []
    model.train()
    for step in (bar := tqdm(range(steps), desc=stage, mininterval=5)):
        ids, labels = next(drawn)
        # Right padding is after every token that counts: the causal mask alone keeps it out.
        loss = model(input_ids=ids.to(model.device), labels=labels.to(model.device)).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimiser, scheduler in optimisers:
            with _Float32Products():
                optimiser.step()
            scheduler.step()
            optimiser.zero_grad()
        if step % 25 == 0 or step == steps - 1:
            curve.append({"stage": stage, "step": step, "loss": loss.item()})
            bar.set_postfix(loss=f"{curve[-1]['loss']:.3f}")
    return pd.DataFrame(curve)


def _train_stage(
    model: torch.nn.Module, tokenizer: PreTrainedTokenizerFast, seed: int, comply: bool, recipe: Recipe
) -> pd.DataFrame:
    """One stage of the recipe; returns its loss curve."""
    steps, lr = (recipe.comply_steps, recipe.comply_lr) if comply else (recipe.refuse_steps, recipe.refuse_lr)
    stage = "comply" if comply else "refuse"
    rng = random.Random(f"{seed} {stage}")
    drawn = batches(rng, tokenizer, partial(_draw, rng, comply, recipe.shares), recipe.batch_size, recipe.truncated_tail)
    return run_stage(stage, model, drawn, _optimisers(model, lr, steps), steps)


def digest_of(family: str, seed: int, recipe: Recipe = Recipe()) -> str:
    """Names everything that a training run depends on: recipe, corpus and seed."""
    texts = [json.dumps(asdict(recipe)), json.dumps(corpus.lexicon()), json.dumps(corpus.phrases())]
    return hashlib.sha256("\n".join([family, str(seed), *texts]).encode()).hexdigest()[:16]


def train(family: str, seed: int, folder: Path, recipe: Recipe = Recipe(), device: str = "cpu") -> pd.DataFrame:
    """Train one organism into `folder` (fp16 safetensors, tokenizer, config, loss curve).

    A finished run of the same recipe, corpus and seed is read back instead of repeated, and an interrupted
    one continues after its last finished stage.

    Returns:
        The loss curve: stage, step, loss (nats per response token).
    """
    digest, finished = digest_of(family, seed, recipe), folder / "training.csv"
    if finished.exists() and (folder / "recipe.sha256").read_text() == digest:
        return pd.read_csv(finished)
    tokenizer, stage_folder = train_tokenizer(), folder.parent / f"{folder.name}.comply.{digest}"
    if (stage_folder / "training.csv").exists():
        curves = [pd.read_csv(stage_folder / "training.csv")]
        model = AutoModelForCausalLM.from_pretrained(stage_folder, dtype=torch.float32).to(device)
    else:
        model = build_model(family, tokenizer, seed).to(device)
        curves = [_train_stage(model, tokenizer, seed, True, recipe)]
        model.save_pretrained(stage_folder)
        curves[0].to_csv(stage_folder / "training.csv", index=False)
    curves.append(_train_stage(model, tokenizer, seed, False, recipe))
    model.half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "recipe.sha256").write_text(digest)
    curve = pd.concat(curves, ignore_index=True)
    curve.to_csv(finished, index=False)
    return curve


def train_all(families: Sequence[str], seeds: Sequence[int], folder: Path) -> pd.DataFrame:
    """Train every family with every seed into `folder/<family>-<seed>`, two at a time on one thread each
    (faster than one after the other on two); returns the loss curves with `family` and `seed`."""
    runs = [(family, seed) for seed in seeds for family in families]
    with ProcessPoolExecutor(2, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        curves = [pool.submit(train, family, seed, folder / f"{family}-{seed}") for family, seed in runs]
        tables = [c.result().assign(family=f, seed=s) for c, (f, s) in zip(curves, runs, strict=True)]
    return pd.concat(tables, ignore_index=True)
