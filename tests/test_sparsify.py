"""Masks against a hand-computed vector and plain Python sorting; both ends of the density against generation."""

import math
import random

import pytest
import torch

from steerpaper.circuits.attribution import attribute
from steerpaper.models.responses import Response
from steerpaper.steering import Steering, generate
from steerpaper.vectors.sparsify import (
    RULES, SPARSIFIERS, apply_mask, effect_ratio, sparse_vectors, sparsify, with_values,
)

S = torch.tensor([4.0, -1.0, 0.5, 2.0, -3.0, 0.0])
G = torch.tensor([0.1, -2.0, 0.6, -0.5, 1.0, 3.0])
# IE = 0.4, 2, 0.3, -1, -3, 0; norms: IE 3.775, s 5.5
PROMPTS = ["Why is a cat?", "How to sing", "Tell me of rain, please"]


def kept(*args, **kwargs):
    return sparsify(*args, **kwargs).nonzero().flatten().tolist()


# -- the four sparsifiers ------------------------------------------------------------------------------------

@pytest.mark.parametrize("rule, threshold, expected", [
    ("absolute", 0.0, [0, 1, 2, 3, 4, 5]), ("text", 0.0, [0, 2, 4, 5]), ("normalised", 0.0, [0, 1, 2, 3, 4, 5]),
    ("absolute", 0.7, [1, 4, 5]), ("text", 0.7, [4, 5]), ("normalised", 0.7, [1, 2, 3, 4, 5]),
    ("absolute", 1.0, [1, 4, 5]), ("text", 1.0, [4, 5]), ("normalised", 1.0, [1, 4, 5]),  # not below 1: kept
    ("absolute", 10.0, []), ("text", 10.0, []), ("normalised", 10.0, []),
])
def test_gradient_rules_by_hand(rule, threshold, expected):
    assert kept(S, gradient=G, threshold=threshold, rule=rule) == expected


def test_others_drop_as_many_as_the_gradient():
    # |r| < 0.7 at dimensions 0, 2 and 3: so the three lowest of each order go.
    how = dict(gradient=G, threshold=0.7)
    assert kept(S, "indirect_effect", **how) == [1, 3, 4]  # |IE|: 0.4 2 0.3 1 3 0
    assert kept(S, "bottom_k", **how) == [0, 3, 4]  # |s|: 4 1 0.5 2 3 0
    assert len(kept(S, "dropout", **how)) == 3


def test_sparsity_by_hand():
    assert kept(S, gradient=G, sparsity=1 / 3) == [1, 2, 4, 5]
    assert kept(S, gradient=G, sparsity=1 / 3, rule="text") == [0, 2, 4, 5]
    assert kept(S, "indirect_effect", gradient=G, sparsity=0.5) == [1, 3, 4]
    assert kept(S, "bottom_k", sparsity=0.5) == [0, 3, 4]
    assert kept(torch.ones(4), "bottom_k", sparsity=0.5) == [2, 3]  # ties: the first go first


def test_ratios_by_hand():
    # IE has the norm sqrt(14.25), s 5.5.
    assert effect_ratio(S, G, "text").tolist() == G.double().tolist()
    assert effect_ratio(S, G, "absolute").tolist() == G.double().abs().tolist()
    by_hand = [abs(g) * 5.5 / math.sqrt(14.25) for g in G.tolist()]
    assert effect_ratio(S, G, "normalised").tolist() == pytest.approx(by_hand, rel=1e-7)
    with pytest.raises(ValueError, match="unknown rule 'normalized'.*did you mean 'normalised'"):
        effect_ratio(S, G, "normalized")


def test_sparse_vectors_by_hand():
    """r is 0.15, 2.91, 0.87, 0.73, 1.46, 4.37: a third is dropped by the middle of 0.73 and 0.87."""
    runs = sparse_vectors({"a": S, "other": S}, {"a": G}, [1.0, 9.0], [1 / 3], draws=2)
    none, rest = runs[runs.sparsifier == "none"], runs[runs.sparsifier != "none"]
    assert none[["draw", "method"]].to_numpy().tolist() == [[0, "none"], [1, "none"], [0, "a"], [1, "a"]]
    assert not none.vector[0].any() and torch.equal(none.vector[2], S)
    assert len(rest) == 2 * 4 * 2 * 2  # points with something left, sparsifiers, draws, rescaled or not
    assert sorted(set(rest.threshold)) == pytest.approx([0.8013, 1.0], abs=1e-4)
    assert rest.groupby("threshold").sparsity.unique().explode().tolist() == pytest.approx([2 / 6, 3 / 6])
    gradient = rest[(rest.sparsifier == "gradient") & (rest.draw == 0)].sort_values("threshold")
    assert torch.equal(gradient[~gradient.rescaled].vector.iloc[0], torch.tensor([0, -1, 0.5, 0, -3, 0]))
    assert torch.equal(gradient[~gradient.rescaled].vector.iloc[1], torch.tensor([0, -1, 0, 0, -3.0, 0]))
    assert [vector.norm().item() for vector in gradient[gradient.rescaled].vector] == pytest.approx([5.5, 5.5])
    dropout = [vector.tolist() for vector in rest[(rest.sparsifier == "dropout") & ~rest.rescaled].vector]
    assert dropout[0] != dropout[1]  # another draw


def test_sparse_vectors_at_the_ends():
    """Nothing is dropped at a sparsity of 0, all and therefore no row at one of 1."""
    runs = sparse_vectors({"a": S}, {"a": G}, [], [0.0, 1.0])
    rest = runs[runs.sparsifier != "none"]
    assert set(rest.sparsity) == {0.0} and len(rest) == 4 * 2
    assert all(torch.equal(vector, S) for vector in rest.vector)
    with pytest.raises(ValueError, match="1 methods, no thresholds and no sparsities were given"):
        sparse_vectors({"a": S}, {"a": G}, [])


def test_other_values_on_the_support_by_hand():
    """S has the norm 5.5; what stands outside the mask does not count."""
    mask = torch.tensor([True, True, False, False, True, False])
    signs = with_values(S, mask, S.sign())
    assert signs.tolist() == pytest.approx([5.5 / math.sqrt(3) * sign for sign in (1, -1, 0, 0, -1, 0)])
    of_gradient = with_values(S, mask, G.double())
    assert of_gradient.dtype == S.dtype and of_gradient.norm().item() == pytest.approx(5.5)
    scale = 5.5 / math.sqrt(0.1**2 + 2**2 + 1)
    assert of_gradient.tolist() == pytest.approx([0.1 * scale, -2 * scale, 0, 0, scale, 0])
    assert torch.allclose(with_values(S, mask, 7 * S), apply_mask(S, mask, rescale=True))
    with pytest.raises(ValueError, match="values of shape .5,. were given for a vector of .6,."):
        with_values(S, mask, G[:5])
    with pytest.raises(ValueError, match="leaves nothing"):
        with_values(S, mask, torch.tensor([0, 0, 1.0, 1, 0, 1]))


def normalised_by_the_letter(s, g, tau):
    """The authors' inequality as printed, on the dimensions where s is not zero."""
    effects = [a * b for a, b in zip(s, g)]
    of_effects, of_s = math.hypot(*effects), math.hypot(*s)
    return [i for i in range(len(s)) if not abs(effects[i]) / of_effects < tau * abs(s[i]) / of_s]


@pytest.mark.parametrize("seed", range(3))
def test_against_plain_sorting(seed):
    generator = torch.Generator().manual_seed(seed)
    vector, gradient = (torch.randn(97, generator=generator) for _ in range(2))
    s, g = vector.tolist(), gradient.tolist()
    keys = {"gradient": [abs(x) for x in g], "bottom_k": [abs(x) for x in s],
            "indirect_effect": [abs(a * b) for a, b in zip(s, g)]}
    for tau in (0.1, 0.5, 1.0, 2.0):
        k = sum(abs(x) < tau for x in g)
        for method, key in keys.items():
            dropped = sorted(range(97), key=lambda i: key[i])[:k]
            expected = [i for i in range(97) if i not in dropped]
            assert kept(vector, method, gradient=gradient, threshold=tau) == expected
            assert kept(vector, method, gradient=gradient, sparsity=k / 97) == expected
        assert kept(vector, gradient=gradient, threshold=tau, rule="text") == [i for i in range(97) if g[i] >= tau]
        assert kept(vector, gradient=gradient, threshold=tau, rule="normalised") == normalised_by_the_letter(s, g, tau)


def test_normalised_thresholds_do_not_depend_on_units():
    for scale_s, scale_g in ((7.0, 1.0), (1.0, 0.01), (-1.0, -3.0)):
        for tau in (0.3, 0.7, 1.5):
            how = dict(threshold=tau, rule="normalised")
            assert kept(scale_s * S, gradient=scale_g * G, **how) == kept(S, gradient=G, **how)


def test_dropout_is_nested_repeatable_and_uniform():
    vector = torch.ones(40)
    fewer, more = (sparsify(vector, "dropout", sparsity=share, seed=3) for share in (0.8, 0.3))
    assert (fewer <= more).all() and fewer.sum() == 8 and more.sum() == 28
    assert (fewer == sparsify(vector, "dropout", sparsity=0.8, seed=3)).all()
    state = torch.get_rng_state()
    counts = sum(sparsify(vector, "dropout", sparsity=0.75, seed=seed).int() for seed in range(400))
    assert (torch.get_rng_state() == state).all()  # no global state
    # Binomial(400, 0.25) per dimension: mean 100, standard deviation 8.7.
    assert counts.sum() == 400 * 10 and 60 < counts.min() and counts.max() < 140


def test_ends_of_the_sparsity():
    for method in SPARSIFIERS:
        for rule in RULES:
            how = dict(gradient=G, rule=rule)
            assert sparsify(S, method, sparsity=0.0, **how).all() and not sparsify(S, method, sparsity=1, **how).any()
            if rule != "text":
                assert sparsify(S, method, threshold=0, **how).all()


# -- the sparse vector ---------------------------------------------------------------------------------------

def test_apply_mask_by_hand():
    mask = torch.tensor([True, False, False, False, True, False])
    assert apply_mask(S, mask).tolist() == [4, 0, 0, 0, -3, 0]
    whole = math.sqrt(16 + 1 + 0.25 + 4 + 9)
    torch.testing.assert_close(apply_mask(S, mask, rescale=True), torch.tensor([4.0, 0, 0, 0, -3, 0]) * whole / 5)
    assert torch.equal(apply_mask(S, torch.ones(6, dtype=torch.bool), rescale=True), S)
    assert apply_mask(S.bfloat16(), mask, rescale=True).dtype == torch.bfloat16


def test_nothing_kept():
    none = torch.zeros(6, dtype=torch.bool)
    assert torch.equal(apply_mask(S, none), torch.zeros(6))
    for mask in (none, S == 0):  # the second keeps a dimension in which the vector is zero
        with pytest.raises(ValueError, match="lower threshold or sparsity"):
            apply_mask(S, mask, rescale=True)


def test_ends_of_the_density_in_generation(model):
    generator = torch.Generator().manual_seed(1)
    vector, gradient = (torch.randn(model.d_model, generator=generator) for _ in range(2))
    dense = generate(model, PROMPTS, Steering(vector, 1, 2.0), max_new_tokens=12)
    unsteered = generate(model, PROMPTS, max_new_tokens=12)
    assert [r.completion for r in dense] != [r.completion for r in unsteered]  # else nothing is tested
    for method in SPARSIFIERS:
        for sparsity, rescale, expected in ((0.0, False, dense), (0.0, True, dense), (1.0, False, unsteered)):
            sparse = apply_mask(vector, sparsify(vector, method, gradient=gradient, sparsity=sparsity), rescale=rescale)
            got = generate(model, PROMPTS, Steering(sparse, 1, 2.0), max_new_tokens=12)
            assert [r.completion for r in got] == [r.completion for r in expected]


def test_takes_what_attribute_gives(model):
    responses = [Response(model.tokenize(prompt), [40, 41, 42]) for prompt in PROMPTS]
    vector = torch.randn(model.d_model, generator=torch.Generator().manual_seed(2))
    att = attribute(model, responses, Steering(vector, 1, 1.5), steps=2)
    tau = float(att.gradient.abs().median())
    k = int((att.gradient.abs() < tau).sum())
    assert 0 < k < model.d_model
    for method in SPARSIFIERS:
        mask = sparsify(vector, method=method, gradient=att.gradient, threshold=tau)
        assert mask.dtype == torch.bool and mask.shape == (model.d_model,) and (~mask).sum() == k
    # What "indirect_effect" keeps holds more |IE| than any other choice of as many dimensions, here 200 random ones.
    effects = (vector * att.gradient).abs()
    best = effects[sparsify(vector, "indirect_effect", gradient=att.gradient, threshold=tau)].sum()
    rng = random.Random(0)
    assert all(effects[rng.sample(range(model.d_model), model.d_model - k)].sum() <= best for _ in range(200))


# -- what is refused -----------------------------------------------------------------------------------------

@pytest.mark.parametrize("changes, message", [
    (dict(threshold=-0.1), "not negative, -0.1"), (dict(threshold=math.nan), "nan"), (dict(threshold=math.inf), "inf"),
    (dict(threshold=None), "one of the two"), (dict(sparsity=0.5), "one of the two"),
    (dict(threshold=None, sparsity=-0.01), r"in \[0, 1\], -0.01"), (dict(threshold=None, sparsity=1.5), "1.5"),
    (dict(threshold=None, sparsity=math.nan), "nan"),
    (dict(gradient=None), "needs the gradient"), (dict(method="indirect_effect", gradient=None), "needs the gradient"),
    (dict(method="indirect_effect", gradient=None, threshold=None, sparsity=0.5), "needs the gradient"),
    (dict(method="dropout", gradient=None), "needs the gradient"),
    (dict(gradient=G[:5]), r"gradient has shape \(5,\)"), (dict(gradient=G[None]), r"shape \(1, 6\)"),
    (dict(gradient=G * math.nan), "gradient has values"), (dict(gradient=G.where(G != 3, math.inf)), "not finite"),
    (dict(vector=S * math.nan), "vector has values"), (dict(vector=S[None]), "vector has shape"),
    (dict(method="topk"), "gradient, indirect_effect, bottom_k, dropout"),
    (dict(rule="signed"), "absolute, text, normalised"),
    (dict(gradient=(S == 0).float(), rule="normalised"), "no dimension of the vector has an effect"),
])
def test_refuses(changes, message):
    arguments = dict(vector=S, method="gradient", gradient=G, threshold=1.0) | changes
    with pytest.raises(ValueError, match=message):
        sparsify(arguments.pop("vector"), **arguments)


@pytest.mark.parametrize("mask", [torch.ones(6), torch.ones(5, dtype=torch.bool), torch.ones(1, 6, dtype=torch.bool)])
def test_apply_mask_refuses(mask):
    with pytest.raises(ValueError, match="must be boolean and of the vector's shape"):
        apply_mask(S, mask)


@pytest.mark.parametrize("sparsity, left", [(0.9, 12), (0.8, 25), (0.75, 32), (0, 128), (1, 0)])
def test_a_sparsity_is_reached_and_not_only_nearly(sparsity, left):
    assert len(kept(torch.arange(1.0, 129), "bottom_k", sparsity=sparsity)) == left
    assert len(kept(torch.arange(1.0, 101), "bottom_k", sparsity=0.29)) == 71  # 0.29 * 100 is more than 29 in floats
