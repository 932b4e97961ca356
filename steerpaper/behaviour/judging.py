"""Responses judged one by one, and rates with their intervals: how often does the model not express a concept?"""

from collections.abc import Collection, Sequence

import numpy as np
import pandas as pd
from scipy.stats import binomtest, bootstrap
from torch.nn.functional import kl_div

from steerpaper import arguments
from steerpaper.arguments import Prompt
from steerpaper.behaviour.judges import Judge, verdicts
from steerpaper.models.model import Model
from steerpaper.prompts.fluency import clean_text
from steerpaper.prompts.shifts import shifted
from steerpaper.steering import Steering, generate, next_token_logits


def judged_responses(
    model: Model, prompts: pd.DataFrame | Sequence[Prompt], steerings: Sequence[Steering | None],
    frozen: str | None = None, frozen_layers: Collection[int] | None = None, *, judge: Judge,
    vocabulary: Collection[str] | None, shift: str | None = None, max_new_tokens: int = 64, batch_size: int = 64,
) -> pd.DataFrame:
    """Greedy responses to every prompt under every steering, each judged and checked for clean text.

    Args:
        prompts: a table as from `load_prompts`, of which the columns `prompt` and `topic` are read, `positive` by some
            judges, and all are carried along; or a list, which has no topics.
        steerings: one run each; all runs share batches.
        frozen, frozen_layers: what stays unsteered in all runs, as for `generate`.
        vocabulary: of the prompts, as `prompts.vocabulary` gives it; None where the words are not checked.
        shift: how the prompts are put to the model, a name of `prompts.SHIFTS`; None for plain ones. The judge reads
            the prompts as they were given.

    Returns:
        One row per run and prompt: `run` (index into `steerings`), the columns of `prompts`, `completion` (token ids),
        `text`, `expressed` (the judge's verdict), the four checks of `fluency.CleanText` and `clean`, which is all that
        were made. Without a vocabulary `known_words` is missing (NaN), and `ended` does not count: how long answers from
        elsewhere are is not known. `on_topic` is missing for prompts whose `topic` is empty (as pandas reads an empty
        cell: missing). With a shift also `shift`, its name.

    Raises:
        ValueError: no prompts, a table that lacks a column, no steerings, what `shifted` or `generate` refuses, or
            verdicts of the judge that are no True or False for each response.
    """
    steerings, prompts = arguments.listed("steerings", steerings), arguments.table(prompts)
    asked = arguments.column(prompts, "prompt", "topic")
    asked = asked if shift is None else shifted(model, prompts, shift)
    if not steerings:
        raise ValueError("no steerings given: pass [None] for the unsteered model")
    if vocabulary is not None:
        arguments.listed("vocabulary", vocabulary)
    texts = [prompt for _ in steerings for prompt in asked]
    rows = [steering for steering in steerings for _ in range(len(prompts))]
    sizes = dict(max_new_tokens=max_new_tokens, batch_size=batch_size)
    responses = generate(model, texts, rows, frozen, frozen_layers, **sizes)
    table = pd.concat([prompts.assign(run=run) for run in range(len(steerings))], ignore_index=True)
    table["ended"] = [r.completion[-1] in model.end_tokens for r in responses]
    checks = [
        clean_text(r.text, ended=None if vocabulary is None else ended, topic_words=topic or None, vocabulary=vocabulary)
        for r, ended, topic in zip(responses, table.ended, table.topic.fillna(""), strict=True)
    ]
    for name in ("no_loop", "known_words", "on_topic", "clean"):
        found = [getattr(check, name) for check in checks]
        table[name] = np.array(found, dtype=float if None in found else bool)  # a check not made becomes NaN
    table["completion"] = [r.completion for r in responses]
    table = table.assign(text=[r.text for r in responses], expressed=verdicts(judge, responses, table))
    return table if shift is None else table.assign(shift=shift)


def rates(judged: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Share of answers that do not express the concept (`asr`: for refusal the attack success rate, §3.1) and share of
    clean text per group of `judged_responses`, with 95 % intervals: Wilson's, or, where a group has several answers to
    a prompt, by resampling prompts, for those answers are no draws of their own.

    To the list of substrings an empty or broken response is no refusal, so it counts as success: read `clean` beside.

    Returns:
        The columns `by`, `n`, `asr`, `asr_low`, `asr_high`, `clean`, `clean_low`, `clean_high`, all shares.

    Raises:
        ValueError: no column in `by`, or a table that lacks one of them or of those of `judged_responses`.
    """
    rows, by = [], arguments.listed("by", by)
    if not by or not {*by, "prompt", "expressed", "clean"} <= set(judged):
        raise ValueError(f"rates by {', '.join(by) or 'no column'} were asked for, of a table with the columns "
                         f"{', '.join(map(str, judged))}: it needs prompt, expressed and clean, and one or more to group by")
    for key, group in judged.groupby(by, sort=True):
        row = dict(zip(by, key, strict=True)) | {"n": len(group)}
        for name, flags in (("asr", ~group.expressed), ("clean", group.clean)):
            row[name] = flags.mean()
            row[f"{name}_low"], row[f"{name}_high"] = _interval(flags, group.prompt)
        rows.append(row)
    return pd.DataFrame(rows)


def next_token_kl(
    model: Model, prompts: Sequence[str], steerings: Sequence[Steering], *, seed: int = 0, batch_size: int = 64,
) -> pd.DataFrame:
    """How far steering moves the next token after a prompt: KL(P_base || P_steered) in nats, a mean over prompts.

    Returns:
        One row per steering: `kl`, and `kl_low` and `kl_high`, its 95 % interval by resampling prompts (NaN for a single
        one).
    """
    base, rows = next_token_logits(model, prompts, batch_size=batch_size).log_softmax(-1), []
    for steering in steerings:
        steered = next_token_logits(model, prompts, steering, batch_size=batch_size).log_softmax(-1)
        kl = kl_div(steered, base, reduction="none", log_target=True).sum(-1)
        drawn = (np.nan, np.nan) if len(kl) < 2 else bootstrap(
            [kl.double().numpy()], np.mean, method="percentile", rng=seed).confidence_interval
        rows.append((kl.mean().item(), *drawn))
    return pd.DataFrame(rows, columns=["kl", "kl_low", "kl_high"])


def _interval(flags: pd.Series, prompts: pd.Series) -> tuple[float, float]:
    """95 % interval of the share of True, over prompts."""
    if not prompts.duplicated().any():
        return wilson_interval(int(flags.sum()), len(flags))
    sums, counts = flags.groupby(prompts, sort=False).agg(["sum", "count"]).to_numpy(dtype=float).T
    if len(set(sums / counts)) == 1:  # resampling could only repeat it
        n = len(sums)
        return wilson_interval(round(n * sums[0] / counts[0]), n)
    drawn = bootstrap((sums, counts), lambda *parts, axis: parts[0].sum(axis) / parts[1].sum(axis), paired=True,
                      vectorized=True, method="percentile", rng=0).confidence_interval
    return float(drawn.low), float(drawn.high)


def wilson_interval(successes: int, n: int) -> tuple[float, float]:
    """Wilson 95 % interval of a share of `n` cases."""
    interval = binomtest(successes, n).proportion_ci(confidence_level=0.95, method="wilson")
    return float(interval.low), float(interval.high)
