"""Intervals over prompts drawn again: against every resample there is, written out, and against plain loops."""

from itertools import product

import numpy as np
import pandas as pd
import pytest

from steerpaper.behaviour.effects import by_sparsifier, sparsity_curves
from steerpaper.behaviour.judging import rates, wilson_interval
from steerpaper.behaviour.statistics import resampled_rates, with_intervals
from steerpaper.paper.tables import average_drop, sparsity_kept

N = 4000


def judged(**runs):
    """Answers in one set, 1 where the answer does not express the concept, by run."""
    rows = [(name, "harmful", f"prompt {i}", not flag, True)
            for name, flags in runs.items() for i, flag in enumerate(flags)]
    return pd.DataFrame(rows, columns=["method", "prompts", "prompt", "expressed", "clean"])


def wide(table):
    """One column per run, one row per resample."""
    return table.pivot(index="resample", columns="method", values="asr")


def test_resamples_are_those_that_there_are():
    """Of three prompts: 27 equally likely draws, written out."""
    one, other = [1, 0, 0], [1, 1, 0]
    drawn = wide(resampled_rates(judged(one=one, other=other), ["method", "prompts"], n_resamples=N))
    draws = product(range(3), repeat=3)
    every = [(np.mean([one[i] for i in draw]), np.mean([other[i] for i in draw])) for draw in draws]
    share = pd.Series(every).map(lambda pair: tuple(np.round(pair, 6))).value_counts() / 27
    found = pd.Series(list(zip(drawn.one.round(6), drawn.other.round(6)))).value_counts() / N
    assert set(found.index) == set(share.index)
    assert all(abs(found[pair] - p) < 4 * (p * (1 - p) / N) ** 0.5 for pair, p in share.items())


def test_runs_are_paired_and_sets_are_not():
    flags = np.arange(20) % 3 == 0
    table = judged(one=flags, same=flags)
    table = pd.concat([table, table.assign(prompts="harmless")])
    drawn = resampled_rates(table, ["method", "prompts"], n_resamples=500)
    assert len(drawn) == 2 * 2 * 500 and list(drawn) == ["method", "prompts", "resample", "asr"]
    by_set = {name: wide(part) for name, part in drawn.groupby("prompts")}
    assert all((part.one == part.same).all() and part.one.nunique() > 5 for part in by_set.values())
    assert abs(by_set["harmful"].one.corr(by_set["harmless"].one)) < 0.15
    assert resampled_rates(table, ["method", "prompts"], n_resamples=500).equals(drawn)
    assert not resampled_rates(table, ["method", "prompts"], n_resamples=500, seed=1).equals(drawn)


def test_answers_to_one_prompt_are_drawn_together():
    flags = np.arange(30) % 2 == 0
    once, thrice = (resampled_rates(pd.concat([judged(run=flags)] * n), ["method", "prompts"], n_resamples=300)
                    for n in (1, 3))
    assert once.equals(thrice)  # 90 answers, no more certain than 30
    assert once.asr.std() == pytest.approx((0.25 / 30) ** 0.5, rel=0.15)


def test_a_run_on_some_prompts_only_counts_those():
    table = judged(all=[1, 0, 1, 0], some=[1, 1, 0, 0])
    table = table[(table.method == "all") | table.prompt.isin(["prompt 0", "prompt 3"])]
    drawn = wide(resampled_rates(table, ["method", "prompts"], n_resamples=N))
    assert drawn.some.isna().mean() == pytest.approx((2 / 4) ** 4, abs=0.015)  # neither was drawn
    assert set(drawn.some.dropna().round(6)) <= {0.0, 1.0, 0.5, round(1 / 3, 6), round(2 / 3, 6), 0.25, 0.75}


def test_a_rate_s_interval_is_that_of_a_plain_loop():
    flags = (np.arange(40) * 7) % 11 < 4
    drawn = resampled_rates(judged(run=flags), ["method", "prompts"], n_resamples=N)
    table = with_intervals(rates(judged(run=flags), ["method", "prompts"])[["method", "prompts", "asr"]], drawn,
                           ["method", "prompts"])
    rng = np.random.default_rng(9)
    loop = np.quantile([flags[rng.integers(40, size=40)].mean() for _ in range(N)], [0.025, 0.975])
    assert table[["asr_low", "asr_high"]].iloc[0].tolist() == pytest.approx(loop, abs=0.0251)  # one prompt


def test_drops_have_the_interval_of_what_is_paired():
    """The freeze turns exactly four of twenty steered answers back, other four are turned by nothing."""
    steered, frozen = np.arange(20) >= 4, (np.arange(20) >= 8)
    table = judged(none=steered, qk=frozen, ov=np.zeros(20)).rename(columns={"method": "frozen"}).assign(method="dim")
    by = ["method", "frozen"]
    drawn = average_drop(resampled_rates(table, [*by, "prompts"], n_resamples=N))
    drops = with_intervals(average_drop(rates(table, [*by, "prompts"])), drawn, by).set_index("frozen")
    rng = np.random.default_rng(3)
    rows = [rng.integers(20, size=20) for _ in range(N)]
    qk, ov = ([100 * abs(part[row].mean() - steered[row].mean()) for row in rows] for part in (frozen, np.zeros(20)))
    loops = {("qk", "drop_points"): qk, ("ov", "drop_points"): ov, ("qk", "of_ov"): np.divide(qk, ov)}
    for (frozen, name), loop in loops.items():
        ends = drops.loc[frozen, [f"{name}_low", f"{name}_high"]].tolist()
        assert ends == pytest.approx(np.quantile(loop, [0.025, 0.975]), abs=5.1 if name == "drop_points" else 0.03)
    assert drops.drop_points.to_dict() == pytest.approx({"qk": 20, "ov": 80})
    assert drops.of_ov["ov"] == drops.of_ov_low["ov"] == drops.of_ov_high["ov"] == 1


def sparse(rows):
    """Answers of the unsteered model, the dense vector and sparse ones."""
    columns = ["method", "sparsifier", "rescaled", "threshold", "sparsity", "prompts", "prompt", "expressed", "clean"]
    return pd.DataFrame([(*about, "harmful", f"prompt {i}", not flag, True) for about, flags in rows
                         for i, flag in enumerate(flags)], columns=columns)


def test_curves_begin_with_the_dense_vector_and_know_the_unsteered_rate():
    n = np.arange(10)
    table = sparse([(("none", "none", False, 0.0, 0.0), n < 1), (("dim", "none", False, 0.0, 0.0), n < 10),
                    (("dim", "gradient", True, 1.0, 0.5), n < 9), (("dim", "gradient", False, 1.0, 0.5), n < 4),
                    (("dim", "dropout", True, 1.0, 0.5), n < 2)])
    by = ["method", "sparsifier", "rescaled", "threshold", "sparsity", "prompts"]
    curves = sparsity_curves(rates(table, by))
    assert set(curves.unsteered) == {0.1} and len(curves) == 2 * 3
    found = curves.set_index(["sparsifier", "rescaled", "sparsity"]).asr
    assert found.to_dict() == {
        ("dropout", True, 0.0): 1.0, ("dropout", True, 0.5): 0.2, ("gradient", False, 0.0): 1.0,
        ("gradient", False, 0.5): 0.4, ("gradient", True, 0.0): 1.0, ("gradient", True, 0.5): 0.9}


def test_where_a_curve_ends_has_the_interval_of_a_plain_loop():
    n = np.arange(25)
    flags = {0.0: n < 25, 0.5: n % 6 > 0, 0.8: n % 5 > 0, 0.9: n % 2 > 0}  # 1, 0.8, 0.8 and 0.48 of the effect
    rows = [(("none", "none", False, 0.0, 0.0), n < 0), (("dim", "none", False, 0.0, 0.0), flags[0.0])]
    rows += [(("dim", "gradient", True, s, s), flags[s]) for s in (0.5, 0.8, 0.9)]
    by = ["method", "sparsifier", "rescaled", "threshold", "sparsity", "prompts"]
    drawn = sparsity_curves(resampled_rates(sparse(rows), by, n_resamples=N))
    found = sparsity_kept(drawn, "both").query("prompts == 'both'").sparsity.value_counts(normalize=True)
    rng = np.random.default_rng(5)

    def end(row):
        kept = [s for s in flags if flags[s][row].mean() >= 0.8]
        return max(s for s in kept if all(t in kept for t in flags if t <= s))

    loop = pd.Series([end(rng.integers(25, size=25)) for _ in range(N)]).value_counts(normalize=True)
    assert loop.min() < 0.05 < loop[[0.0, 0.5, 0.8]].min()
    assert all(abs(found.get(s, 0) - loop.get(s, 0)) < 0.04 for s in flags)


SIZES, STEPS = {"harmful": 48, "harmless": 40}, (0.0, 0.5, 0.8, 0.9)


def asked_differently():
    """The gradient's choice on all prompts, smallest first on every fourth, where the unsteered model does otherwise:
    flags (True: the concept is not expressed) by set, sparsifier and sparsity, "none" unsteered; and the judged table.
    """
    flags = {}
    for name, size in SIZES.items():
        n, up = np.arange(size), name == "harmful"
        fourth = n % 4 == 0
        flags[name, "none", None] = (n % 3 == 0) & ~fourth if up else (n % 5 > 0) | fourth
        flags[name, "none", 0.0] = n % 8 > 0 if up else n % 8 == 0  # of every fourth, as many as of the others twice
        for sparsifier, step in product(("gradient", "bottom_k"), STEPS[1:]):
            lost = (n * 7) % 10 < 10 * step ** 4 * (0.8 if sparsifier == "gradient" else 0.7)
            flags[name, sparsifier, step] = flags[name, "none", 0.0] ^ (lost & (n % 3 > 0))
    rows = []
    for (name, sparsifier, step), found in flags.items():
        method = "none" if step is None else "dim"
        rows += [(method, sparsifier, step != 0.0 and step is not None, step or 0.0, step or 0.0, name, f"prompt {i:02}",
                  not flag, True) for i, flag in enumerate(found) if sparsifier != "bottom_k" or i % 4 == 0]
    columns = ["method", "sparsifier", "rescaled", "threshold", "sparsity", "prompts", "prompt", "expressed", "clean"]
    return flags, pd.DataFrame(rows, columns=columns)


def plain_end(flags, name, sparsifier, rows):
    """The largest sparsity that keeps 0.8 of the change of ASR, over these prompts alone."""
    asr = {step: flags[name, sparsifier if step else "none", step][rows].mean() for step in STEPS}
    unsteered, end = flags[name, "none", None][rows].mean(), 0.0
    for step in STEPS:
        if asr[0.0] == unsteered or (asr[step] - unsteered) / (asr[0.0] - unsteered) < 0.8 - 1e-9:
            break
        end = step
    return end


def test_where_curves_end_that_were_asked_different_prompts_is_that_of_a_plain_loop():
    flags, table = asked_differently()
    by = ["method", "sparsifier", "rescaled", "threshold", "sparsity", "prompts"]
    parts = by_sparsifier(table)
    kept = sparsity_kept(pd.concat(sparsity_curves(rates(part, by)) for part in parts), "both")
    found = kept.set_index(["sparsifier", "prompts"]).sparsity
    asked = {(sparsifier, name): np.arange(0, size, step) for name, size in SIZES.items()
             for sparsifier, step in (("gradient", 1), ("bottom_k", 4))}
    ends = {key: plain_end(flags, key[1], key[0], rows) for key, rows in asked.items()}
    ends |= {(name, "both"): min(ends[name, other] for other in SIZES) for name in ("gradient", "bottom_k")}
    assert found.to_dict() == ends and len(set(ends.values())) > 1
    naive = sparsity_kept(sparsity_curves(rates(table, by)), "both").set_index(["sparsifier", "prompts"]).sparsity
    assert naive["bottom_k", "harmful"] != found["bottom_k", "harmful"]  # against the unsteered rate of other prompts

    drawn = pd.concat(sparsity_curves(resampled_rates(part, by, n_resamples=N)) for part in parts)
    drawn = sparsity_kept(drawn).groupby(["sparsifier", "prompts"]).sparsity.value_counts(normalize=True)
    rng = np.random.default_rng(8)
    for key, rows in asked.items():
        loop = pd.Series([plain_end(flags, key[1], key[0], rng.choice(rows, len(rows))) for _ in range(N)])
        loop = loop.value_counts(normalize=True)
        assert len(loop) > 1 and all(abs(drawn[key].get(step, 0) - loop.get(step, 0)) < 0.04 for step in STEPS), key


def test_a_sparsifier_stands_beside_the_other_vectors_on_its_own_prompts():
    _, table = asked_differently()
    bottom_k, gradient = by_sparsifier(table)
    assert set(gradient.sparsifier) == {"none", "gradient"} and len(gradient) == (48 + 40) * (2 + 3)
    assert set(bottom_k.sparsifier) == {"none", "bottom_k"} and len(bottom_k) == (12 + 10) * (2 + 3)
    assert bottom_k.groupby(["method", "sparsity", "prompts"]).prompt.apply(list).map(tuple).nunique() == 2
    assert bottom_k[bottom_k.method == "none"].expressed.mean() == (12 + 0) / 22  # all refused, all answered
    lacking = table[~((table.method == "none") & (table.prompt == "prompt 04") & (table.prompts == "harmful"))]
    with pytest.raises(ValueError, match="bottom_k was asked 1 prompts that the dense vector of 'none'"):
        by_sparsifier(lacking)


def test_several_answers_to_a_prompt_do_not_narrow_a_rate_s_interval():
    flags = np.arange(60) % 3 == 0
    once, pooled = (rates(pd.concat([judged(run=flags)] * n), ["method"]).iloc[0] for n in (1, 3))
    assert once[["asr_low", "asr_high"]].tolist() == list(wilson_interval(20, 60)) and pooled.n == 180
    assert pooled.asr_high - pooled.asr_low == pytest.approx(once.asr_high - once.asr_low, rel=0.1)
    naive = np.diff(wilson_interval(60, 180)).item()
    assert pooled.asr_high - pooled.asr_low > 1.5 * naive
    assert pooled[["clean_low", "clean_high"]].tolist() == list(wilson_interval(60, 60))  # all alike
    apart = pd.concat([judged(run=np.roll(flags, shift)) for shift in range(3)])  # each prompt once in three
    assert rates(apart, ["method"]).iloc[0][["asr_low", "asr_high"]].tolist() == list(wilson_interval(20, 60))


@pytest.mark.parametrize(("by", "table", "message"), [
    (["method"], judged(run=[1, 0]), r"by is \['method'\]: give \"prompts\""),
    (["prompts"], judged(run=[1, 0]), "and at least one more"),
    (["method", "prompts"], judged(run=[1]), "one prompt in set 'harmful'"),
])
def test_what_cannot_be_drawn_is_said(by, table, message):
    with pytest.raises(ValueError, match=message):
        resampled_rates(table, by)
