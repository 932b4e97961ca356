"""What steering does to the answers to both kinds of prompts, and what a freeze or a sparse vector leaves of it."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from steerpaper.behaviour.judging import judged_responses, rates, wilson_interval
from steerpaper.choices import unknown
from steerpaper.concepts import REFUSAL, Concept
from steerpaper.models.model import Model
from steerpaper.steering import Steering, both_ways


def judged_both_ways(
    model: Model, prompts: Mapping[str, pd.DataFrame], steerings: Mapping[str, Steering | None],
    frozen: str | None = None, frozen_layers: Collection[int] | None = None, *, concept: Concept = REFUSAL, **how,
) -> pd.DataFrame:
    """Judged responses to positive prompts under every steering at -alpha, and to negative ones at +alpha.

    Args:
        prompts: by the names of the concept's sets, as `concept_prompts` gives them; or of one of them.
        steerings: by the name of their method, each at its |alpha|; None for the unsteered model.
        frozen, frozen_layers, how: as for `judged_responses`.

    Returns:
        The rows of `judged_responses` with the columns prompts, method and coefficient (signed, 0 unsteered).

    Raises:
        ValueError: no prompts, a name that is none of the concept's sets, or as for `judged_responses`.
    """
    methods, tables = list(steerings), []
    for name in prompts or [None]:
        if name not in concept.sets:
            raise unknown("set of prompts", name, concept.sets, f" (concept {concept.name!r})")
    ways = [given and both_ways(given, concept) for given in steerings.values()]
    for name in [name for name in concept.sets if name in prompts]:
        signed = [way and way[name] for way in ways]
        judged = judged_responses(model, prompts[name], signed, frozen, frozen_layers, **how)
        alphas = [given.coefficient if given else 0.0 for given in signed]
        tables.append(judged.assign(prompts=name, method=[methods[run] for run in judged.run],
                                    coefficient=[alphas[run] for run in judged.run]))
    return pd.concat(tables, ignore_index=True)


def judged_frozen(
    model: Model, prompts: Mapping[str, pd.DataFrame], steerings: Mapping[str, Steering], kinds: Sequence[str],
    plain: pd.DataFrame, **how,
) -> pd.DataFrame:
    """Judged responses under several freezes, below those without any: the column frozen, "none" or one of `kinds`.

    Args:
        kinds: what stays unsteered, as for `generate`.
        plain: the same prompts' answers with nothing frozen, as of `judged_both_ways`.
        how: as for `judged_both_ways`.
    """
    frozen = [judged_both_ways(model, prompts, steerings, kind, **how).assign(frozen=kind) for kind in kinds]
    return pd.concat([plain.assign(frozen="none"), *frozen], ignore_index=True)


def share_undone(ablations: pd.DataFrame, least: float = 0.0) -> pd.DataFrame:
    """Share of the steering that a freeze undoes (§6.3): 0 where ASR stays as steered, 1 where it is as unsteered.

    That is (frozen - steered) / (unsteered - steered), in ASR. Its interval is that of the frozen ASR on this scale.

    Args:
        ablations: columns model, method, frozen, prompts, asr, and asr_low and asr_high where there are intervals.
            Steered ASR has frozen "none", and unsteered ASR method "none", too.
        least: change of ASR by steering below which there is too little to undo.

    Returns:
        Columns model, method, frozen, prompts, undone, low, high; NaN where steering changes nothing, or too little.
    """
    where, keys = ["model", "prompts"], ["model", "prompts", "method"]
    whole = ablations[ablations.frozen == "none"]
    ends = whole.merge(whole[whole.method == "none"], on=where, suffixes=("_steered", "_unsteered"))
    ends = ends.rename(columns={"method_steered": "method"})[[*keys, "asr_steered", "asr_unsteered"]]
    rows = ablations[ablations.frozen != "none"].merge(ends, on=keys)
    effect = rows.asr_unsteered - rows.asr_steered
    effect = effect.where((effect != 0) & (effect.abs() >= least - 1e-9))  # of rates such as 22/24 - 10/24
    share, *limits = ((rows[name] - rows.asr_steered) / effect for name in ("asr", "asr_low", "asr_high"))
    rows = rows.assign(undone=share, low=np.minimum(*limits), high=np.maximum(*limits))
    return rows[["model", "method", "frozen", "prompts", "undone", "low", "high"]]


def at_every_layer(undone: pd.DataFrame) -> pd.DataFrame:
    """What compares across layers: of each preset the methods and kinds of prompts that have a share undone at all of
    its layers. Means over whatever steers at a layer would be of other methods at another.

    Args:
        undone: as of `share_undone`, with columns preset and layer.
    """
    undone = undone.dropna(subset="undone")
    layers = undone.groupby("preset").layer.transform("nunique")
    return undone[undone.groupby(["preset", "method", "prompts"]).layer.transform("nunique") == layers]


def sparsity_curves(rates: pd.DataFrame) -> pd.DataFrame:
    """Rates of sparse vectors as curves over sparsity: each begins with the dense vector, at threshold 0, and has the
    unsteered ASR beside every point.

    Args:
        rates: columns method, sparsifier, rescaled, threshold, sparsity, prompts and asr, as of `rates`, or of
            `resampled_rates`, whose resamples stay apart. The sparsifier of the dense vectors is "none"; unsteered, so
            is the method.

    Returns:
        The rows of sparse vectors, and those of the dense ones once for each sparsifier, rescaled and not, with the
        column unsteered; sorted.
    """
    own, curve = ["prompts", *(["resample"] if "resample" in rates else [])], ["sparsifier", "rescaled"]
    whole = rates.sparsifier == "none"
    unsteered = rates[rates.method == "none"][[*own, "asr"]].rename(columns={"asr": "unsteered"})
    dense = rates[whole & (rates.method != "none")].drop(columns=curve)
    dense = dense.merge(rates[~whole][curve].drop_duplicates(), how="cross")
    curves = pd.concat([dense, rates[~whole]])[rates.columns].merge(unsteered, on=own, validate="many_to_one")
    return curves.sort_values(["method", *curve, *own, "threshold"], ignore_index=True)


def by_sparsifier(judged: pd.DataFrame) -> list[pd.DataFrame]:
    """Judged responses in parts, one per sparsifier, each with those of the unsteered model and of the dense vectors to
    the same prompts.

    Sparsifiers may have been asked different prompts. Rates, resamples and curves of one part are of the same ones, so
    that a sparse vector's change of ASR is taken from the unsteered rate, and beside the dense vector's, on the prompts
    that it was asked itself.

    Args:
        judged: columns sparsifier ("none" for the unsteered model and the dense vectors), method, prompts and prompt.

    Raises:
        ValueError: a sparsifier was asked a prompt that the unsteered model or a dense vector was not.
    """
    asked = ["prompts", "prompt"]
    whole, parts = judged[judged.sparsifier == "none"], []
    for name, sparse in judged[judged.sparsifier != "none"].groupby("sparsifier"):
        own = sparse[asked].drop_duplicates()
        beside = whole.merge(own, on=asked)
        for method in {"none", *sparse.method}:
            if lacking := len(own) - len(beside[beside.method == method][asked].drop_duplicates()):
                raise ValueError(f"{name} was asked {lacking} prompts that the dense vector of {method!r} (\"none\": the "
                                 "unsteered model) was not: ask it these, too")
        parts.append(pd.concat([beside, sparse], ignore_index=True))
    return parts


def shared_start(answers: pd.DataFrame, reference: str) -> pd.DataFrame:
    """How far answers go along with those of another run to the same prompts, token by token.

    Args:
        answers: columns prompts, prompt, run and completion (token ids); every run answers every prompt once.
        reference: the run that the others are compared with.

    Returns:
        Columns prompts, run, shared (mean share of the reference's tokens before the first difference) and identical
        (share of answers that are the same to the end); runs in the order in which they come.
    """
    tokens, rows = answers.pivot(index=["prompts", "prompt"], columns="run", values="completion"), []
    for run in answers.run[answers.run != reference].unique():
        for (prompts, _), one, other in zip(tokens.index, tokens[reference], tokens[run]):
            until = next((i for i, (a, b) in enumerate(zip(one, other)) if a != b), min(len(one), len(other)))
            rows.append((prompts, run, until / len(one), one == other))
    table = pd.DataFrame(rows, columns=["prompts", "run", "shared", "identical"])
    return table.groupby(["prompts", "run"], sort=False, as_index=False).mean()


def turned(judged: pd.DataFrame, by: Sequence[str], concept: Concept = REFUSAL) -> pd.DataFrame:
    """ASR of every group beside the unsteered one, and the share of prompts that steering turns: of those which the
    unsteered model treats as their set says (it refuses a harmful prompt, it answers a harmless one).

    Args:
        judged: as of `judged_both_ways`, with the unsteered model as method "none", every prompt once per group.
        by: what tells groups apart, beside prompts and method.

    Returns:
        In the order of `judged` the columns of `rates`, with prompts and method; unsteered (the unsteered ASR) and
        right (the number of prompts that the unsteered model treats so); turned, turned_low and turned_high (Wilson
        95 %), missing in the rows of the unsteered model and where `right` is 0: there is nothing to turn.

    Raises:
        ValueError: no rows with the method "none".
    """
    where, keys = [*by, "prompts"], [*by, "prompts", "method"]
    judged = judged.assign(right=judged.expressed == (judged.prompts == concept.positive))
    plain = judged[judged.method == "none"]
    if plain.empty:
        raise ValueError(f"there are no answers of the unsteered model: add the method \"none\" to "
                         f"{', '.join(judged.method.unique())}")
    ends = plain.groupby(where).agg(unsteered=("expressed", lambda flags: 1 - flags.mean()), right=("right", "sum"))
    steered = judged[judged.method != "none"].merge(plain[plain.right][[*where, "prompt"]], on=[*where, "prompt"])
    shares = [(*key, (~flags).mean(), *wilson_interval(int((~flags).sum()), len(flags)))
              for key, flags in steered.groupby(keys).right]
    shares = pd.DataFrame(shares, columns=[*keys, "turned", "turned_low", "turned_high"])
    table = rates(judged, keys).merge(ends.reset_index(), on=where).merge(shares, "left", on=keys)
    return judged[keys].drop_duplicates().merge(table, on=keys)


def beside_unsteered(table: pd.DataFrame) -> pd.DataFrame:
    """Rates with the column clean_share_of_base: clean text as a share of the unsteered model's to that set of prompts,
    of which a row may stand for a part (random vectors).

    Missing where the unsteered has less than a tenth: a share of hardly anything would say nothing.

    Args:
        table: columns prompts, method ("none" among them, once per set of prompts) and clean.
    """
    base = table[table.method == "none"].set_index("prompts").clean
    return table.assign(clean_share_of_base=table.clean / table.prompts.map(base.where(base >= 0.1)))


def judged_sparse(
    model: Model, prompts: Mapping[str, pd.DataFrame], runs: pd.DataFrame, steerings: Mapping[str, Steering], *,
    concept: Concept = REFUSAL, **how,
) -> pd.DataFrame:
    """Judged responses under sparse vectors, positive prompts at -alpha and negative ones at +alpha.

    Args:
        prompts: by the names of the concept's sets.
        runs: rows of `sparse_vectors`: method, sparsifier, rescaled, threshold, sparsity and vector.
        steerings: of the dense vectors, by method, each with its layer and its positive coefficient.
        how: as for `judged_responses`.

    Returns:
        The rows of `judged_responses` with the column prompts and those of `runs`, without the vector.

    Raises:
        ValueError: a coefficient that is not positive, or as for `judged_responses`.
    """
    tables, first = [], next(iter(steerings.values()))  # no vector at all acts anywhere
    dense = [steerings.get(name, replace(first, coefficient=1.0)) for name in runs.method]
    labels = runs.drop(columns="vector").reset_index(drop=True)
    signed = [both_ways(replace(own, vector=vector), concept) for own, vector in zip(dense, runs.vector)]
    for name in concept.signs:
        pushes = [both[name] for both in signed]
        judged = judged_responses(model, prompts[name], pushes, **how)
        tables.append(judged.assign(prompts=name).join(labels, on="run"))
    return pd.concat(tables, ignore_index=True)
