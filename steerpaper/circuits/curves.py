"""Tidy tables of what several circuits carry and share, and of where along the answers steering acts (§5)."""

from collections.abc import Mapping, Sequence

import pandas as pd

from steerpaper.circuits.attribution import Attribution
from steerpaper.circuits.chance import agreement
from steerpaper.circuits.circuit import Circuit, overlap
from steerpaper.circuits.differences import differences
from steerpaper.circuits.flipped import FlippedResponses
from steerpaper.circuits.recovery import Faithfulness, faithfulness_of
from steerpaper.circuits.search import minimum_faithful
from steerpaper.models.model import Model


def top_circuits(rankings: Mapping[str, Attribution], shares: Sequence[float], by: str = "method") -> pd.Series:
    """Circuits of the strongest edges, indexed by the ranking's name (level `by`) and size, a share of all edges."""
    found = {(name, share): Circuit.top(ranking, max(1, round(share * ranking.graph.n_edges)))
             for name, ranking in rankings.items() for share in shares}
    return pd.Series(found).rename_axis([by, "share"])


def minimum_circuit(model: Model, ranking: Attribution, data: FlippedResponses, threshold: float = 0.85) -> Circuit:
    """The minimum-faithful circuit (§6) that is one on the harmful and on the harmless prompts: of the two the larger,
    so that no class hides behind the other.

    Raises:
        ValueError: as for `minimum_faithful`.
    """
    parts = [data.subset(prompts) for prompts in data.labels.prompts.unique()]
    found = [minimum_faithful(model, ranking, part.responses, part.steerings, threshold).circuit for part in parts]
    return max(found, key=lambda circuit: circuit.n_edges)


def faithfulness_by_class(model: Model, circuits: pd.Series, data: FlippedResponses, *, both: bool = False,
                          against: str | None = None, seed: int = 0) -> pd.DataFrame:
    """Faithfulness (§6) of every circuit on the harmful and on the harmless prompts.

    Args:
        circuits: Circuits; their index says which is which.
        both: whether all prompts together come first, as class "both".
        against: a circuit, by the first level of that index, that each is compared with, see `differences`.

    Returns:
        The levels of that index, n_edges, prompts, faithfulness, low and high, see `Faithfulness.by`; with `against`
        the columns of `differences` as well.

    Raises:
        ValueError: as for `faithfulness_of`, `Faithfulness.by` and `differences`.
    """
    results, together = faithfulness_of(model, list(circuits), data.responses, data.steerings), "both" if both else None
    parts = [result.by(data.labels.prompts, together, seed=seed) for result in results]
    table = circuits.map(lambda circuit: circuit.n_edges).rename("n_edges").reset_index()
    table = table.join(pd.concat(parts, keys=table.index).droplevel(1).drop(columns="responses")).reset_index(drop=True)
    if against is None:
        return table
    compared = differences(pd.Series(results, circuits.index), against, data.labels, together, seed=seed)
    return table.merge(compared, on=[*circuits.index.names, "prompts"], validate="one_to_one")


def circuit_overlaps(circuits: pd.Series, pairs: Sequence[tuple[str, str]]) -> pd.DataFrame:
    """Edges that equally large circuits of two rankings share, beside chance (figure 4).

    `circuits` as `top_circuits` gives them, `pairs` names of rankings. The overlap's `chance` is the share itself; for
    iou, its counterparts by chance and p see `agreement`.
    """
    rows = []
    for share in circuits.index.unique("share"):
        for a, b in pairs:
            one, other = circuits[a, share], circuits[b, share]
            found = agreement(one.mask, other.mask, among=one.graph.mask)
            rows.append((a, b, share, overlap(one, other), share, found.iou, found.chance, found.chance_low,
                         found.chance_high, found.p))
    return pd.DataFrame(rows, columns=["method_a", "method_b", "share", "overlap", "chance", "iou", "iou_chance",
                                       "iou_chance_low", "iou_chance_high", "p"])


def position_effects(faithfulness: Faithfulness, data: FlippedResponses) -> pd.DataFrame:
    """The effect of steering, m(steered) - m(base) in logits, at every unmasked position of the answers.

    Args:
        faithfulness: of any circuit, on the responses of `data`.

    Returns:
        Columns response, prompts, response_from, token (position in the response, from 0), effect, and first: whether
        this is the response's first unmasked position.
    """
    table = faithfulness.table.join(data.labels[["prompts", "response_from"]], on="response")
    starts = pd.Series([len(response.prompt) - 1 for response in data.responses])
    table = table.assign(token=table.position - table.response.map(starts), effect=table.m_steered - table.m_base,
                         first=~table.response.duplicated())
    return table[["response", "prompts", "response_from", "token", "effect", "first"]]
