"""Rates with their prompts drawn again: 95 % intervals of drops, differences and ends of curves."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.stats import bootstrap

from steerpaper import arguments

_ENDS = {0.025: "low", 0.975: "high"}


def resampled_rates(judged: pd.DataFrame, by: Sequence[str], *, n_resamples: int = 1000, seed: int = 0) -> pd.DataFrame:
    """ASR of the groups of `rates`, again and again, with the prompts drawn anew each time (bootstrap).

    Prompts are drawn with replacement within their set, each with all answers to it. So the groups of one resample are
    paired, and whatever is computed of several of them (a drop, a difference, where a curve ends) has its interval from
    the same computation on every resample; and answers to one prompt within a group count as one draw, not as several.

    Args:
        judged: as of `judged_responses`, with the column prompts, the name of the prompt's set.
        by: as for `rates`, "prompts" among them.

    Returns:
        The columns `by`, resample (0, 1, ...) and asr: NaN where no answer of the group was drawn.

    Raises:
        ValueError: `by` without "prompts" or with nothing else, or a set of fewer than two prompts.
    """
    labels = [name for name in arguments.listed("by", by) if name != "prompts"]
    if "prompts" not in by or not labels:
        raise ValueError(f"by is {list(by)}: give \"prompts\", within which prompts are drawn, and at least one more")
    rng, tables = np.random.default_rng(seed), []
    for name, part in judged.assign(asr=~judged.expressed).groupby("prompts"):
        answers = part.groupby(["prompt", *labels]).asr.agg(["sum", "count"]).unstack(labels, fill_value=0)
        sums, counts = (answers[kind].to_numpy(dtype=float) for kind in ("sum", "count"))
        if len(sums) < 2:
            raise ValueError(f"there is one prompt in set {name!r}: a bootstrap needs two or more")

        def share(rows, axis, sums=sums, counts=counts):
            with np.errstate(invalid="ignore"):  # 0 of 0
                return np.moveaxis(sums[rows].sum(axis - 1) / counts[rows].sum(axis - 1), -1, 0)

        drawn = bootstrap([np.arange(len(sums))], share, n_resamples=n_resamples, batch=50, vectorized=True,
                          method="percentile", rng=rng).bootstrap_distribution
        groups = answers["sum"].columns.to_frame(index=False)
        tables.append(groups.loc[groups.index.repeat(n_resamples)].assign(
            prompts=name, resample=np.tile(np.arange(n_resamples), len(groups)), asr=drawn.ravel()))
    return pd.concat(tables, ignore_index=True)[[*by, "resample", "asr"]]


def with_intervals(table: pd.DataFrame, resampled: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """A table with the 95 % interval of each of its numbers: the 2.5th and 97.5th percentile over resamples.

    Where all prompts behave alike every resample does, too, and the interval has no width: that says nothing of other
    prompts, and the number of prompts is what to go by. Of an absolute value near zero the interval lies too high.

    Args:
        resampled: the same numbers of every resample, computed from `resampled_rates` as the table was from `rates`.
        by: what tells rows apart.

    Returns:
        The table, and after its columns `<name>_low` and `<name>_high` of every number that `resampled` has.
    """
    by = arguments.listed("by", by)
    names = [name for name in resampled if name not in (*by, "resample")]
    ends = resampled.groupby(by, dropna=False)[names].quantile(list(_ENDS), interpolation="nearest").unstack()
    ends.columns = [f"{name}_{_ENDS[end]}" for name, end in ends.columns]
    return table.merge(ends.reset_index(), "left", on=by, validate="one_to_one")
