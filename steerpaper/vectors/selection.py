"""The choice of a vector's layer, position and coefficient (§3.2)."""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import kl_div
from tqdm import tqdm

from steerpaper import arguments
from steerpaper.arguments import Prompt
from steerpaper.behaviour.first_tokens import first_token_log_odds
from steerpaper.behaviour.judges import Judge
from steerpaper.behaviour.judging import judged_responses
from steerpaper.concepts import REFUSAL, Concept
from steerpaper.models.kept import Kept
from steerpaper.models.model import Model
from steerpaper.steering import Entering, Steering, both_ways, next_token_logits, tokenized

# The conditions of the paper's rule.
INDUCE, KL, DEPTH = "induce > 0", "KL < limit", "l < 0.8 L"


def score_candidates(
    model: Model, candidates: Float[Tensor, "layer position d_model"], positive: Sequence[Prompt],
    negative: Sequence[Prompt], first_tokens: Collection[int], *, kl_limit: float = 0.1, skip_excluded: bool = False,
    batch_size: int = 64,
) -> pd.DataFrame:
    """The three selection scores of every candidate and the paper's ranking (§3.2), best first.

    bypass: mean `first_token_log_odds` of the positive prompts at α = −1 (of harmful ones: the refusal metric).
    induce: of the negative prompts at α = +1. kl: mean KL(unablated ‖ ablated) of the negative prompts' next token, in
    nats, with the candidate's direction ablated everywhere.

    Entering layer 0 a template token is its embedding, the same in every prompt: those candidates are zero, hold no
    direction and are left out.

    Args:
        skip_excluded: list the candidates of layers that the rule excludes (l ≥ 0.8 L) without scores (NaN), even where
            a kept run has them.

    Returns:
        One row per candidate: layer, position (−1 is the last), bypass, induce, kl, score = σ(bypass) − σ(induce), and
        whether it is `admissible` under `kl_limit`. Sorted by admissibility and score.

    Raises:
        ValueError: no prompts, or candidates that do not fit the model or are all zero.
    """
    positive, negative = tokenized(model, positive), tokenized(model, negative)
    candidates = arguments.vector("tensor of candidates", candidates)
    if candidates.ndim != 3:
        raise ValueError(f"candidates of shape {tuple(candidates.shape)} were given: they must be one for every layer and "
                         "position, as difference_in_means gives them")
    n_layers, n_positions, _ = candidates.shape
    if n_layers != model.n_layers:
        raise ValueError(f"candidates for {n_layers} layers, but the model has {model.n_layers}")
    layers = [layer for layer in range(n_layers) if candidates[layer].any()]
    if not layers:
        raise ValueError("all candidates are zero: at the template's tokens both sets of prompts leave the same stream")
    inputs = {"positive": positive, "negative": negative, "candidates": candidates, "batch_size": batch_size,
              "first_tokens": sorted(set(arguments.token_ids("first_tokens", first_tokens)))}
    kept = Kept("candidates", __name__, model.hf, inputs, {
        "scores": torch.full((n_layers, n_positions, 3), torch.nan, dtype=torch.float64)})
    scored = [layer for layer in layers if not skip_excluded or layer < 0.8 * n_layers]
    if todo := scored[kept.done:]:
        plain = next_token_logits(model, negative, batch_size=batch_size).log_softmax(-1)
        # The rows of a batch stay together on their way up, whichever candidate they are steered by.
        entering = [Entering.of(model, each * n_positions, todo[0], batch_size=batch_size)
                    for each in (positive, negative)]
        for layer in tqdm(todo, desc="candidates", unit="layer"):
            entering = [each.at(layer) for each in entering]
            odds = _first_token_scores(entering, candidates[layer], 1.0, first_tokens)
            kl = _ablation_kl(model, candidates[layer], negative, plain, batch_size)
            kept.state["scores"][layer] = torch.stack([*odds, kl], dim=-1)
            kept.keep(1)
    rows = [(layer, p - n_positions, *(kept.state["scores"][layer, p].tolist() if layer in scored else [np.nan] * 3))
            for layer in layers for p in range(n_positions)]
    table = pd.DataFrame(rows, columns=["layer", "position", "bypass", "induce", "kl"])
    return _ranked(table, n_layers, kl_limit)


def score_coefficients(
    model: Model, candidates: Float[Tensor, "layer position d_model"], scores: pd.DataFrame,
    coefficients: Sequence[float], positive: Sequence[Prompt], negative: Sequence[Prompt],
    first_tokens: Collection[int], *, kl_limit: float = 0.1, batch_size: int = 64,
) -> pd.DataFrame:
    """The same scores at every |α|, for a model on which the rule picks nothing at the paper's α = 1.

    kl is that of an ablation and does not depend on α. So of the candidates those count that meet both conditions that
    no α changes, or if there is none, those in layers that the rule allows; and of these the best of every layer, whose
    last positions are nearly one vector.

    Args:
        scores: rows of `score_candidates`, of the layers that may be chosen.

    Returns:
        One row per candidate and |α|: the columns of `score_candidates` and coefficient, sorted likewise.

    Raises:
        ValueError: no coefficients, no candidate in a layer that the rule allows, or as for `score_candidates`.
    """
    coefficients, n_layers, n_positions = _coefficients(coefficients), model.n_layers, candidates.shape[1]
    met = conditions(scores, n_layers, kl_limit)
    if not met[DEPTH].any():
        told = ", ".join(f"{name} by {n}" for name, n in met.sum().items())
        raise ValueError(f"none of {len(scores)} candidates given can be chosen, by no coefficient. The rule's "
                         f"conditions are met: {told}. Let the preset's layer_range begin below 0.8")
    both = met[DEPTH] & met[KL]
    asked = scores[both if both.any() else met[DEPTH]].sort_values("score")
    asked = asked.drop_duplicates("layer").sort_values("layer", ignore_index=True)
    positive, negative = tokenized(model, positive), tokenized(model, negative)
    inputs = {"positive": positive, "negative": negative, "candidates": candidates, "batch_size": batch_size,
              "asked": asked[["layer", "position"]].to_numpy().tolist(), "coefficients": coefficients,
              "first_tokens": sorted(set(arguments.token_ids("first_tokens", first_tokens)))}
    kept = Kept("coefficients", __name__, model.hf, inputs, {
        "odds": torch.full((len(asked), len(coefficients), 2), torch.nan, dtype=torch.float64)})
    todo = list(asked.itertuples())[kept.done:]
    for row in tqdm(todo, desc="candidates at every coefficient", unit="layer"):
        vector = candidates[row.layer, row.position + n_positions, None]
        entering = [Entering.of(model, each, row.layer, batch_size=batch_size) for each in (positive, negative)]
        odds = [torch.cat(_first_token_scores(entering, vector, alpha, first_tokens)) for alpha in coefficients]
        kept.state["odds"][row.Index] = torch.stack(odds)
        kept.keep(1)
    table = asked.merge(pd.DataFrame({"coefficient": coefficients}), how="cross")
    table[["bypass", "induce"]] = kept.state["odds"].flatten(0, 1).numpy()
    return _ranked(table, n_layers, kl_limit)


def _first_token_scores(
    entering: Sequence[Entering], vectors: Float[Tensor, "candidate d_model"], alpha: float,
    first_tokens: Collection[int],
) -> list[Float[Tensor, "candidate"]]:
    """bypass and induce at |α| of one layer's candidates; the prompts of each set once per candidate."""
    found = []
    for prompts, sign in zip(entering, (-1, 1)):
        n = len(prompts.rows) // len(vectors)
        steerings = [Steering(vector, prompts.layer, sign * alpha) for vector in vectors]
        logits = prompts.next_token_logits([steering for steering in steerings for _ in range(n)])
        found.append(first_token_log_odds(logits, first_tokens).view(len(vectors), n).mean(-1).double())
    return found


def _ablation_kl(
    model: Model, vectors: Float[Tensor, "candidate d_model"], prompts: list[list[int]],
    plain: Float[Tensor, "prompt vocab"], batch_size: int,
) -> Float[Tensor, "candidate"]:
    """KL(unablated ‖ ablated) of the next token, in nats, a mean over prompts."""
    spread = vectors.repeat_interleave(len(prompts), dim=0)
    ablated = next_token_logits(model, prompts * len(vectors), ablation=spread, batch_size=batch_size)
    ablated = ablated.log_softmax(-1).view(len(vectors), *plain.shape)
    return kl_div(ablated, plain, reduction="none", log_target=True).sum(-1).mean(-1).double()


def _ranked(scores: pd.DataFrame, n_layers: int, kl_limit: float) -> pd.DataFrame:
    """Candidates with their score and whether they are admissible, best first."""
    sigmoid = torch.sigmoid(torch.tensor(scores[["bypass", "induce"]].values))
    scores["score"] = (sigmoid[:, 0] - sigmoid[:, 1]).numpy()
    scores["admissible"] = admissible(scores, n_layers, kl_limit)
    return scores.sort_values(["admissible", "score"], ascending=[False, True], ignore_index=True)


def conditions(scores: pd.DataFrame, n_layers: int, kl_limit: float = 0.1) -> pd.DataFrame:
    """Which conditions of §3.2 each row of `score_candidates` meets, by default with the paper's limit on KL.

    Returns:
        Columns "induce > 0", "KL < limit" and "l < 0.8 L", True or False.
    """
    return pd.DataFrame({INDUCE: scores.induce > 0, KL: scores.kl < kl_limit, DEPTH: scores.layer < 0.8 * n_layers})


def admissible(scores: pd.DataFrame, n_layers: int, kl_limit: float = 0.1) -> pd.Series:
    """Which rows of `score_candidates` meet all `conditions`."""
    return conditions(scores, n_layers, kl_limit).all(axis=1)


def count_conditions(
    scores: pd.DataFrame, n_layers: int, kl_limit: float = 0.1, *, layers: Collection[int] | None = None,
) -> dict[str, float | int | str]:
    """How many candidates meet each of the `conditions`, at some |α| where there are several.

    Args:
        layers: that may be chosen; all without it.

    Returns:
        kl_limit, candidates, a number for each condition, all (of them together), "all in layer_range", and
        fails_most: the condition that the fewest meet.
    """
    met = conditions(scores, n_layers, kl_limit)
    counts = met.assign(all=met.all(axis=1)).groupby([scores.layer, scores.position]).any()
    within = counts.index.isin(range(n_layers) if layers is None else layers, level="layer")
    return {"kl_limit": kl_limit, "candidates": len(counts), **counts.sum().to_dict(),
            "all in layer_range": int(counts["all"][within].sum()),
            "fails_most": counts[list(met)].sum().idxmin()}


def candidate_at(scores: pd.DataFrame, layer: int, position: int) -> pd.DataFrame:
    """The row of `score_candidates` for one layer and position, as a preset fixes them: a shortlist of one, whatever
    its scores.

    Raises:
        ValueError: a layer or position of which there is no candidate.
    """
    layers, positions = scores.layer, scores.position
    row = scores[(layers == arguments.whole(layer)) & (positions == arguments.whole(position))]
    if row.empty:
        raise ValueError(f"layer {layer}, position {position} was given, but candidates stand at layers {layers.min()} "
                         f"to {layers.max()} and at positions {positions.min()} to {positions.max()} (-1 is the chat "
                         "template's last token): correct the preset, or let it select by leaving out both")
    return row


def select_by_generation(
    model: Model, candidates: Float[Tensor, "layer position d_model"], shortlist: pd.DataFrame,
    coefficients: Sequence[float], positive: pd.DataFrame | Sequence[Prompt], negative: pd.DataFrame | Sequence[Prompt],
    **how,
) -> pd.DataFrame:
    """Every candidate of `shortlist` at every |α|, by what is generated under it: see `rank_by_generation`.

    Args:
        shortlist: rows of `score_candidates` (layer, position).
        positive, negative: validation prompts.
        how: concept, judge, vocabulary, enough, max_new_tokens and batch_size of `rank_by_generation`.

    Returns:
        One row per candidate and |α|, best first: layer, position, coefficient, and what `rank_by_generation` adds.

    Raises:
        ValueError: an empty shortlist, no coefficients, or what `generate` refuses.
    """
    if shortlist.empty:
        raise ValueError("the shortlist is empty: give at least one candidate; `count_conditions` says how many meet "
                         "which condition of the rule, and `score_coefficients` scores them at other coefficients")
    runs = _grid(shortlist[["layer", "position"]], coefficients)
    steerings = [Steering(candidates[r.layer, r.position], r.layer, r.coefficient) for r in runs.itertuples()]
    return rank_by_generation(model, runs, steerings, positive, negative, **how)


def select_coefficient(
    model: Model, vectors: Mapping[str, Float[Tensor, "d_model"]], layer: int, coefficients: Sequence[float],
    positive: pd.DataFrame | Sequence[Prompt], negative: pd.DataFrame | Sequence[Prompt], **how,
) -> pd.DataFrame:
    """Every vector at every |α|, and each vector's |α| ranked by what is generated: see `rank_by_generation`.

    Args:
        vectors: by the name of their method.
        how: as for `select_by_generation`.

    Returns:
        One row per method and |α|: method, coefficient, and what `rank_by_generation` adds; methods in the given order,
        the best |α| of each first.

    Raises:
        ValueError: no vectors or no coefficients, or what `generate` refuses.
    """
    if not isinstance(vectors, Mapping) or not vectors:
        raise ValueError(f"vectors must be a mapping from methods to vectors, {arguments.shown(vectors)} was given")
    runs = _grid(pd.DataFrame({"method": list(vectors)}), coefficients)
    steerings = [Steering(vectors[run.method], layer, run.coefficient) for run in runs.itertuples()]
    ranked = rank_by_generation(model, runs, steerings, positive, negative, **how)
    order = {method: i for i, method in enumerate(vectors)}
    return ranked.sort_values("method", key=lambda methods: methods.map(order), kind="stable", ignore_index=True)


def _grid(runs: pd.DataFrame, coefficients: Sequence[float]) -> pd.DataFrame:
    """Every row at every coefficient."""
    return runs.merge(pd.DataFrame({"coefficient": _coefficients(coefficients)}), how="cross")


def _coefficients(given: Sequence[float]) -> list[float]:
    coefficients = [arguments.number("a coefficient", each) for each in arguments.listed("coefficients", given)]
    if not coefficients:
        raise ValueError("coefficients are empty: give at least one")
    return coefficients


def rank_by_generation(
    model: Model, runs: pd.DataFrame, steerings: Sequence[Steering], positive: pd.DataFrame | Sequence[Prompt],
    negative: pd.DataFrame | Sequence[Prompt], *, judge: Judge, vocabulary: Collection[str] | None,
    concept: Concept = REFUSAL, enough: float = 0.9, max_new_tokens: int = 64, batch_size: int = 64,
) -> pd.DataFrame:
    """Generate under every steering, and rank them by the weaker direction, best first.

    The first token's log odds look at one token; a vector can win there and then loop. Here positive prompts under −α
    should not express the concept (harmful ones: comply) and negative ones under +α should (refuse). `flipped` is the
    smaller share of prompts that do. Where it reaches `enough`, steerings rank by the smaller share that flips *with
    clean text*; the others follow, by `flipped`.

    Args:
        runs: a row per steering, which says what it is.
        steerings: with positive coefficients.
        judge, vocabulary, max_new_tokens, batch_size: as for `judged_responses`.

    Returns:
        The rows of `runs`, each with asr_SET and flipped_clean_SET for both prompt SETs of the concept (asr_harmful,
        …), flipped and flipped_clean.

    Raises:
        ValueError: a coefficient that is not positive, or what `generate` refuses.
    """
    signed, runs = [both_ways(steering, concept) for steering in steerings], runs.copy()
    for name, prompts in zip(concept.sets, (positive, negative)):
        asked = arguments.table(prompts).assign(positive=name == concept.positive)
        judged = judged_responses(model, asked, [ways[name] for ways in signed], judge=judge, vocabulary=vocabulary,
                                  max_new_tokens=max_new_tokens, batch_size=batch_size)
        flipped = judged.expressed != judged.positive
        runs[f"asr_{name}"] = (~judged.expressed).groupby(judged.run).mean()
        runs[f"flipped_clean_{name}"] = (flipped & judged.clean).groupby(judged.run).mean()
    runs["flipped"] = runs[f"asr_{concept.positive}"].clip(upper=1 - runs[f"asr_{concept.negative}"])
    runs["flipped_clean"] = runs[[f"flipped_clean_{name}" for name in concept.sets]].min(axis=1)
    rank = (runs.flipped_clean + 1).where(runs.flipped >= enough, runs.flipped)
    return runs.loc[rank.sort_values(ascending=False, kind="stable").index].reset_index(drop=True)
