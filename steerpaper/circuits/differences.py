"""How much more of the steering one circuit carries than another (§6), prompt by prompt the same: differences of
faithfulness, whose intervals are narrower than those of the two values, which go up and down together."""

import numpy as np
import pandas as pd
from scipy.stats import bootstrap

from steerpaper.choices import unknown
from steerpaper.circuits.runs import M_OF_RUNS

_LEAST = 0.1  # a share of less than this says nothing
_SAME = ["response", "position", "m_base", "m_steered"]


def differences(
    found: pd.Series, against: str, labels: pd.DataFrame, together: str | None = None, *, seed: int = 0,
) -> pd.DataFrame:
    """Faithfulness of every circuit minus that of one that it is compared with, both on the same responses.

    95 % intervals are percentiles over prompts drawn again with replacement (bootstrap), each with all its responses and
    for both circuits at once. A difference is beyond chance, as far as these prompts tell, if its interval excludes 0.

    Args:
        found: `Faithfulness` of every circuit, all measured on the same responses; the index says which is which.
        against: what to compare with: the circuit called so in the first level of the index and like the other one in
            all further levels.
        labels: as of `FlippedResponses`: indexed by response, the columns prompts, of which each set gets rows of its
            own, and prompt. Responses to one prompt of a set are drawn together.
        together: what to call all sets at once, which then come first.

    Returns:
        One row per circuit and set of prompts: the levels of the index, prompts, difference, difference_low and
        difference_high; other_share, what the other circuit carries as a share of what this one does, other_share_low
        and other_share_high: missing where this one carries less than a tenth. Of a single prompt there is no interval.

    Raises:
        ValueError: no circuit to compare with, results on different responses, or a response without a label.
    """
    if against not in found.index.unique(0):
        raise unknown("circuit to compare with", against, found.index.unique(0))
    sums, rows = _by_prompt(found, labels), []
    for key, one in sums.items():
        like = (against, *key[1:]) if isinstance(key, tuple) else against
        if like not in sums:
            raise ValueError(f"there is no {like} to compare {key} with")
        both = one.assign(m_other=sums[like].m_circuit)
        sets = {together: both} if together is not None else {}
        for name, part in (sets | dict(list(both.groupby(level=0)))).items():
            rows.append((*(key if isinstance(key, tuple) else [key]), name, *_compared(part, seed)))
    ends = [f"{name}{end}" for name in ("difference", "other_share") for end in ("", "_low", "_high")]
    return pd.DataFrame(rows, columns=[*found.index.names, "prompts", *ends])


def _by_prompt(found: pd.Series, labels: pd.DataFrame) -> dict[object, pd.DataFrame]:
    """The sums of m over all unmasked positions of every prompt's responses, by circuit; indexed by set and prompt."""
    first, sums = found.iloc[0].table, {}
    own = labels.reindex(first.response)[["prompts", "prompt"]]
    if own.isna().any(axis=None):
        raise ValueError("there are responses without a label: the labels need a row for every response, indexed by its "
                         "number")
    for key, result in found.items():
        if not result.table[_SAME].equals(first[_SAME]):
            raise ValueError(f"{key} was not measured on the responses of the first circuit, under the same steering: "
                             "pass results of one `faithfulness_of`")
        sums[key] = result.table.groupby([own[name].to_numpy() for name in own])[M_OF_RUNS].sum()
    return sums


def _compared(sums: pd.DataFrame, seed: int) -> list[float]:
    """Difference and share of the other one, each with its interval, from the sums of m of every prompt."""
    m = sums[[*M_OF_RUNS, "m_other"]].to_numpy().T

    def statistics(*m, axis):
        base, one, steered, other = (part.sum(axis) for part in m)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.stack(((one - other) / (steered - base), (other - base) / (one - base)))

    value, ends = statistics(*m, axis=-1), np.full((2, 2), np.nan)
    if m.shape[1] > 1:
        ends[:] = bootstrap(m, statistics, paired=True, vectorized=True, method="percentile", n_resamples=2000,
                            rng=np.random.default_rng(seed)).confidence_interval
    base, one, steered, _ = m.sum(-1)
    if not (one - base) / (steered - base) >= _LEAST:
        value[1], ends[:, 1] = np.nan, np.nan
    return [value[0], *ends[:, 0], value[1], *ends[:, 1]]
