"""What steering does beside its purpose: to harmless text that the model reads, and to answers to prompts of all
kinds."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from scipy.stats import bootstrap
from torch import Tensor

from steerpaper import arguments
from steerpaper.behaviour.judging import judged_responses, wilson_interval
from steerpaper.concepts import get_concept
from steerpaper.finite import check_finite
from steerpaper.models.batches import in_batches
from steerpaper.models.model import Model
from steerpaper.models.responses import Batch, Response, check_responses, teacher_forcing
from steerpaper.presets import Preset
from steerpaper.prompts.probes import corpus_answers, is_answered
from steerpaper.prompts.sets import concept_prompts
from steerpaper.steering import Steering, generate, per_row

_MEASURES = ["n", "value", "low", "high"]


def judged_at_both_signs(
    model: Model, prompts: Mapping[str, pd.DataFrame], steerings: Mapping[str, Steering], **how,
) -> pd.DataFrame:
    """Judged responses to every set of prompts, unsteered and under every steering at -|alpha| and at +|alpha|.

    Args:
        prompts: tables by name, any; of closed questions with the column answers, see `closed_questions`.
        steerings: by the name of their method.
        how: as for `judged_responses`.

    Returns:
        The rows of `judged_responses` with the columns prompts, method ("none" unsteered), sign (-1, 0 or 1) and right,
        whether an answer has a right one in it (missing where the prompts have no answers).

    Raises:
        ValueError: no prompts, or as for `judged_responses`.
    """
    runs = list(_runs(steerings))
    tables = [judged_responses(model, table, [steering for *_, steering in runs], **how).assign(prompts=name)
              for name, table in prompts.items()]
    if not tables:
        raise ValueError("no prompts given: pass at least one table by its name")
    judged = pd.concat(tables, ignore_index=True)
    judged["method"], judged["sign"] = ([runs[run][i] for run in judged.run] for i in (0, 1))
    if "answers" in judged:
        has = judged.answers.notna()
        judged.loc[has, "right"] = [float(is_answered(*row)) for row in
                                    judged.loc[has, ["text", "answers"]].itertuples(index=False)]
    return judged if "right" in judged else judged.assign(right=np.nan)


def answer_effects(judged: pd.DataFrame) -> pd.DataFrame:
    """How often answers express the concept, loop and are right, and how long they are, by set, method and sign.

    Args:
        judged: as of `judged_at_both_signs`, every prompt once per method and sign.

    Returns:
        One row per set, method, sign and measure: prompts, method, sign, measure ("expressed", "loops" and "right",
        shares; "tokens", a mean), n (answers), value, low and high (95 %: Wilson's of shares, by resampling prompts of
        the mean). "right" only of sets that have answers.
    """
    rows, judged = [], judged.assign(loops=~judged.no_loop, tokens=judged.completion.map(len))
    for key, group in judged.groupby(["prompts", "method", "sign"], sort=False):
        for measure in ("expressed", "loops", "right"):
            if len(flags := group[measure].dropna()):
                rows.append((*key, measure, len(flags), flags.mean(), *wilson_interval(int(flags.sum()), len(flags))))
        rows.append((*key, "tokens", len(group), *_mean(group.tokens.to_numpy(float), np.ones(len(group)))))
    return pd.DataFrame(rows, columns=["prompts", "method", "sign", "measure", *_MEASURES])


def harmless_texts(model: Model, preset: Preset, n: int, seed: int = 0) -> list[Response]:
    """Harmless prompts with a text that answers each: for the built-in prompts the corpus' answers, for public ones the
    unsteered model's own to the first `n` negative test prompts.

    Raises:
        ValueError: fewer than one, more than there are, or what `generate` refuses.
    """
    if preset.prompts == "built-in":
        return [Response(model.tokenize(prompt), model.tokenizer(text, add_special_tokens=False)["input_ids"], text)
                for prompt, text in corpus_answers(n, seed)]
    concept = get_concept(preset.concept)
    prompts = concept_prompts(concept, "test", n, preset.prompts)[concept.negative]
    return generate(model, prompts, max_new_tokens=preset.max_new_tokens, batch_size=preset.batch_size)


@torch.no_grad()
def text_effects(
    model: Model, responses: Sequence[Response], steerings: Mapping[str, Steering], *, seed: int = 0,
    batch_size: int = 8,
) -> pd.DataFrame:
    """What steering does to the model's predictions along given texts, read with the same tokens in every run.

    Args:
        responses: a prompt and the text that answers it, of which every token counts.
        steerings: by the name of their method, each at -|alpha| and at +|alpha|.

    Returns:
        One row per method ("none" unsteered), sign and measure: method, sign, measure ("kl": KL(P_base || P_steered) of
        the next token; "loss": the text's mean negative log likelihood; nats per token), n (tokens), value, low and
        high (95 %, by resampling texts).

    Raises:
        ValueError: no text or an empty one, a steering that does not fit the model, or logits that are not finite.
    """
    check_responses(model, responses)
    runs, counts = list(_runs(steerings)), np.array([len(response.completion) for response in responses], float)
    checked = per_row(model, [steering for *_, steering in runs], len(runs))
    sums = torch.zeros(len(runs), 2, len(responses), dtype=torch.float64)

    def compute(rows: list[int]) -> Tensor:
        return _sums(model, teacher_forcing(model, [responses[i] for i in rows]), checked, rows)

    for rows, own in in_batches([len(response.tokens) for response in responses], batch_size, "texts", compute):
        sums[..., rows] = own
    found = [(method, sign, measure, int(counts.sum()), *_mean(own, counts, seed))
             for (method, sign, _), both in zip(runs, sums.numpy()) for measure, own in zip(("kl", "loss"), both)]
    return pd.DataFrame(found, columns=["method", "sign", "measure", *_MEASURES])


def _runs(steerings: Mapping[str, Steering]) -> Iterable[tuple[str, int, Steering | None]]:
    """Method, sign and steering of every run, the unsteered one first."""
    yield "none", 0, None
    for method, steering in steerings.items():
        size = abs(arguments.number("the steering's coefficient", steering.coefficient))
        for sign in (-1, 1):
            yield method, sign, replace(steering, coefficient=sign * size)


def _sums(
    model: Model, batch: Batch, steerings: Sequence[Steering | None], rows: Sequence[int],
) -> Float[Tensor, "run measure batch"]:
    """KL and negative log likelihood of every run, the first unsteered, summed over each row's text."""
    mask, found = batch.response_mask, []
    row, targets = mask.nonzero()[:, 0], batch.targets[mask][:, None]
    base = None
    for steering in steerings:
        own = _log_probabilities(model, batch, steering, rows)
        base = own if base is None else base
        kl, loss = (base.exp() * (base - own)).sum(-1), -own.gather(-1, targets)[:, 0]
        found.append(torch.zeros(2, len(rows), dtype=torch.float64, device=row.device).index_add(
            1, row, torch.stack([kl, loss]).double()))
    return torch.stack(found).cpu()


def _log_probabilities(
    model: Model, batch: Batch, steering: Steering | None, rows: Sequence[int],
) -> Float[Tensor, "text_position vocab"]:
    """Of the next token at every position of the batch's texts, in float32."""
    with model.trace(batch.input_ids, batch.attention_mask):
        if steering is not None:
            stream = model.layer(steering.layer)
            added = steering.coefficient * steering.vector.float()
            stream.input = stream.input + added.to(model.device, model.dtype)
        logits = model.logits.save()
    check_finite(logits, "logits of texts", rows)
    return logits[batch.response_mask].float().log_softmax(-1)


def _mean(sums: Float[np.ndarray, "text"], counts: Float[np.ndarray, "text"], seed: int = 0) -> tuple[float, ...]:
    """Mean over all that is counted, with its 95 % interval by resampling texts; without one of a single text."""
    value = sums.sum() / counts.sum()
    if len(sums) < 2 or len(set(sums / counts)) == 1:  # resampling could only repeat it
        return value, *((np.nan, np.nan) if len(sums) < 2 else (value, value))
    drawn = bootstrap((sums, counts), lambda *parts, axis: parts[0].sum(axis) / parts[1].sum(axis), paired=True,
                      vectorized=True, method="percentile", rng=seed).confidence_interval
    return value, float(drawn.low), float(drawn.high)
