"""Agreement against counting by hand, exact fractions over all draws, Fisher's test and a simulation."""

from fractions import Fraction
from itertools import combinations
from math import comb

import numpy as np
import pytest
import torch
from scipy.stats import fisher_exact

from steerpaper.circuits.chance import agreement, agreements
from steerpaper.circuits.circuit import Circuit
from steerpaper.circuits.graph import Graph


def members(total, *chosen):
    mask = np.zeros(total, dtype=bool)
    mask[list(chosen)] = True
    return mask


def test_by_hand():
    result = agreement(members(10, 0, 1, 2), members(10, 1, 2, 3, 4))
    assert (result.size_a, result.size_b, result.shared, result.total) == (3, 4, 2, 10)
    assert result.iou == 2 / 5
    # 120 ways to place 3 of 10; with 2 in the other set 6 * 6, with 3 of them 4.
    assert result.p == pytest.approx(40 / 120)


def test_table_by_hand():
    sets = {("x", 0.5): members(10, 0, 1, 2), ("y", 0.5): members(10, 1, 2, 3, 4), ("x", 1): members(10, 0),
            ("y", 1): members(10)}
    table = agreements(sets, [("x", "y")])
    assert list(table)[:6] == ["method_a", "method_b", "threshold", "sparsity_a", "sparsity_b", "shared"]
    assert table.iloc[:, :6].to_numpy().tolist() == [["x", "y", 0.5, 0.7, 0.6, 2]]  # at 1 nothing is left of y
    assert table.p.item() == pytest.approx(40 / 120)
    nothing = agreements({name: members(10) for name in sets}, [("x", "y")])
    assert list(nothing) == list(table) and nothing.empty


@pytest.mark.parametrize("total, a, b", [(7, 3, 4), (8, 5, 6), (9, 1, 4), (6, 6, 2), (7, 0, 3)])
def test_against_every_draw(total, a, b):
    """The distribution of the IoU over all sets of size b, counted one by one in fractions."""
    one = set(range(a))
    draws = [set(draw) for draw in combinations(range(total), b)]
    ious = sorted(Fraction(len(one & draw), len(one | draw)) for draw in draws)
    for draw in draws[:: max(1, len(draws) // 5)]:
        result = agreement(members(total, *one), members(total, *draw))
        observed = Fraction(len(one & draw), len(one | draw))
        assert result.iou == pytest.approx(float(observed))
        assert result.chance == pytest.approx(float(sum(ious) / len(ious)))
        assert result.p == pytest.approx(sum(iou >= observed for iou in ious) / len(ious))
        # Quantiles: the least value that at least 2.5 % (97.5 %) of the draws do not exceed.
        for end, share in ((result.chance_low, Fraction(25, 1000)), (result.chance_high, Fraction(975, 1000))):
            n_below = -(-share.numerator * len(ious) // share.denominator)
            assert end == pytest.approx(float(ious[n_below - 1]))


@pytest.mark.parametrize("seed", range(4))
def test_against_fisher(seed):
    rng = np.random.default_rng(seed)
    one = rng.random(300) < 0.3
    other = np.where(rng.random(300) < 0.2 * seed, one, rng.random(300) < 0.2)
    table = [[(one & other).sum(), (one & ~other).sum()], [(~one & other).sum(), (~one & ~other).sum()]]
    assert agreement(one, other).p == pytest.approx(fisher_exact(table, alternative="greater").pvalue, rel=1e-9)


def test_small_tails_keep_their_digits():
    # 40 of 40 shared among 2000: the tail is one term, 1 / comb(2000, 40), about 1e-84.
    result = agreement(members(2000, *range(40)), members(2000, *range(40)))
    assert result.p == pytest.approx(1 / comb(2000, 40), rel=1e-6, abs=0)


def test_band_holds_what_is_drawn():
    rng = np.random.default_rng(0)
    one = rng.random(128) < 0.4
    drawn = [agreement(one, rng.permutation(members(128, *range(30)))) for _ in range(600)]
    inside = np.mean([r.chance_low <= r.iou <= r.chance_high for r in drawn])
    assert 0.93 <= inside <= 0.995  # at least 95 % but for the draw; not more than discreteness forces
    assert np.mean([r.iou for r in drawn]) == pytest.approx(drawn[0].chance, abs=0.01)


def test_symmetric_and_any_shape():
    rng = np.random.default_rng(1)
    one, other = rng.random((2, 4, 6)) < 0.5
    result = agreement(one, other)
    assert result == agreement(one.ravel(), other.ravel()) == agreement(torch.from_numpy(one), torch.from_numpy(other))
    swapped = agreement(other, one)
    assert (result.size_a, result.size_b) == (swapped.size_b, swapped.size_a)
    same = ("shared", "iou", "chance", "chance_low", "chance_high", "p")
    assert [getattr(result, k) for k in same] == pytest.approx([getattr(swapped, k) for k in same])


def test_circuits_are_drawn_from_their_graph():
    graph = Graph(6, 4, 2, 2)
    one, other = (Circuit.random(graph, 60, seed) for seed in (0, 1))
    result = agreement(one.mask, other.mask, among=graph.mask)
    assert (result.total, result.size_a) == (graph.n_edges, one.n_edges)
    # The same edges as flat lists, without the places of the matrix that are no edges.
    assert result == agreement(one.mask[graph.mask], other.mask[graph.mask])
    assert agreement(one.mask, other.mask).chance < result.chance


def test_ends():
    full, some, none = members(10, *range(10)), members(10, 1, 2), members(10)
    assert agreement(some, some).iou == 1 and agreement(some, some).p == pytest.approx(1 / comb(10, 2))
    assert agreement(full, some).p == 1 and agreement(full, some).chance == pytest.approx(0.2)
    assert agreement(some, none).iou == 0 and agreement(some, none).p == 1


@pytest.mark.parametrize("arrays, message", [
    ((members(5), members(5)), "two empty sets"),
    ((members(5, 1), members(6, 1)), r"one shape, these are bool \(5,\), bool \(6,\)"),
    ((members(5, 1), members(5, 1).astype(int)), "int64"),
    ((members(5, 1), members(5, 2), members(5, 1, 3)), "outside `among`"),
    ((members(5, 1), members(5, 2), members(4, 1)), "one shape"),
])
def test_refuses(arrays, message):
    with pytest.raises(ValueError, match=message):
        agreement(*arrays)
