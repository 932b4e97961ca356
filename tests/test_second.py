"""A second concept: the same rules on its tables, circuits beside those of the first, both vectors at once, and the end
of a notebook that finds nothing to measure."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.collections import PathCollection
from test_circuits import attribution_of
from test_concepts import COUNTING, LAYER, NUMERIC, WORDY, Digits, N, said
from test_reported import hand_made, results, rows_of, save_scorecard  # noqa: F401  (a fixture)

from steerpaper.behaviour.effects import beside_unsteered, judged_both_ways, judged_frozen, judged_sparse
from steerpaper.behaviour.first_tokens import first_token_ids
from steerpaper.behaviour.together import judged_together
from steerpaper.behaviour.unsteered import nothing_turned
from steerpaper.circuits.attribution import attribute
from steerpaper.circuits.circuit import Circuit
from steerpaper.circuits.curves import faithfulness_by_class, minimum_circuit
from steerpaper.circuits.flipped import patching_data
from steerpaper.circuits.freezes import frozen_circuits, undone_on_logits
from steerpaper.circuits.graph import Graph
from steerpaper.circuits.interchange import (
    interchanged, minimum_circuits, random_vector_circuits, ranked_with_control,
)
from steerpaper.circuits.layers import shared_above, shared_by_kind
from steerpaper.concepts import LANGUAGE, REFUSAL
from steerpaper.figures import draw_two_circuits, draw_two_vectors
from steerpaper.heads.lens import lens_logits, lens_preference
from steerpaper.heads.ov import steering_value_vectors
from steerpaper.heads.preference import preferences, strongest_writes
from steerpaper.paper.page import results_page
from steerpaper.paper.second import CENTRAL, SECOND, beside_each_other, cases_of, told_beside
from steerpaper.presets import PRESETS
from steerpaper.steering import Steering
from steerpaper.vectors.controls import judged_random, random_control
from steerpaper.vectors.extraction import difference_in_means, random_vector
from steerpaper.vectors.places import chosen_places, winning_runs
from steerpaper.vectors.selection import score_candidates, select_by_generation

# As a concept of theirs would have them: other names for sets and words.
NAMES = {"harmful": "chinese", "harmless": "english", "refusal": "to answer in Chinese", "harm": "chinese prompts"}
ALPHA = 4.0
HOW = dict(judge=Digits(), vocabulary=None, max_new_tokens=N)


@pytest.fixture(scope="module")
def candidates(llama):
    return difference_in_means(llama, NUMERIC, WORDY)


@pytest.fixture(scope="module")
def steering(candidates):
    return Steering(candidates[LAYER, -2], LAYER, ALPHA)


@pytest.fixture(scope="module")
def prompts():
    return {name: pd.DataFrame({"prompt": texts, "topic": "", "positive": name == "numeric"})
            for name, texts in (("numeric", NUMERIC), ("wordy", WORDY))}


# -- the same rules ------------------------------------------------------------------------------------------

def of_language(tables):
    """Refusal's tables, as notebook 08 would write them of the other concept."""
    read = {column: NAMES for column in ("prompts", "scale")}
    return {SECOND + name: table.replace(read) for name, table in tables.items()}


NEEDED = ("table2_asr", "random_control", "freeze_on_logits", "fig3_minimum_faithful", "fig3_interchange",
          "random_vector_circuits", "table1_average_drop", "table1_ablations", "svv_preference", "sparsity_kept", "sparse_test",
          "fig7_agreement", "agreement_control")


def test_the_same_numbers_give_the_same_verdicts(results):  # noqa: F811
    tables = {name: table for name, table in hand_made().items() if name in NEEDED}
    results("tiny", tables | of_language(tables))
    first, second = cases_of("tiny"), cases_of("tiny", LANGUAGE, SECOND)
    pd.testing.assert_frame_equal(first.drop(columns=["quantity", "case"]), second.drop(columns=["quantity", "case"]))
    found = beside_each_other({"refusal": first, "language": second})
    assert list(found.claim) == list(CENTRAL) and set(found.about) == {"steering"}
    assert (found["refusal verdict"] == found["language verdict"]).all() and (found["language cases"] > 0).all()


def test_what_is_told_has_the_concept_s_own_words(results):  # noqa: F811
    tables = {name: table for name, table in hand_made().items() if name in NEEDED}
    results("tiny", of_language(tables))
    told = cases_of("tiny", LANGUAGE, SECOND)
    words = " ".join([*told.quantity, *told.case])
    assert "ASR on chinese prompts under −α" in set(told.quantity) and "to answer in Chinese" in words
    assert not any(word in words.replace("refusal's", "").split() for word in ("harmful", "harmless", "harm"))
    with pytest.raises(FileNotFoundError, match="table2_asr.csv is missing: run notebook 01"):
        cases_of("tiny")


def test_what_holds_of_one_alone_is_about_that_one(results):  # noqa: F811
    tables = {name: table for name, table in hand_made().items() if name in NEEDED}
    other = of_language(tables)
    drops = other[SECOND + "table1_average_drop"]
    ov = drops.frozen == "ov"
    other[SECOND + "table1_average_drop"] = drops.assign(
        drop_points=np.where(ov, 3.0, 40.0), drop_points_low=0.0, drop_points_high=50.0)
    needed = other[SECOND + "fig3_minimum_faithful"]
    other[SECOND + "fig3_minimum_faithful"] = needed.assign(share=[0.5] * len(needed))
    results("tiny", tables | other)
    first, second = cases_of("tiny"), cases_of("tiny", LANGUAGE, SECOND)
    about = beside_each_other({"refusal": first, "language": second}).set_index("claim").about
    assert about["ov-not-qk"] == about["ov-not-qk-learned"] == "refusal" and about["few-edges"] == "open"
    turned = beside_each_other({"language": second, "refusal": first}).set_index("claim").about
    assert turned.equals(about)
    assert beside_each_other({"a": second, "b": second}).set_index("claim").about["ov-not-qk"] == "neither"


def test_results_tell_what_a_finding_is_about(results):  # noqa: F811
    save_scorecard(results, "organism-llama", hand_made())
    assert "About refusal" not in results_page()
    tables = {name: table for name, table in hand_made().items() if name in NEEDED}
    other = of_language(tables)
    drops = other[SECOND + "table1_average_drop"]
    other[SECOND + "table1_average_drop"] = drops.assign(
        drop_points=np.where(drops.frozen == "ov", 3.0, 40.0), drop_points_low=1.0, drop_points_high=50.0)
    results("organism-llama", other)
    found = {"refusal": cases_of("organism-llama"), "language": cases_of("organism-llama", LANGUAGE, SECOND)}
    results("organism-llama", {"two_verdicts": beside_each_other(found)})
    page = results_page()
    section = page.partition("## About refusal, or about steering")[2].partition("## The paper's own arithmetic")[0]
    assert rows_of(section, "| claim") == ["claim", "refusal", "language", "about"]
    shown, values = told_beside(beside_each_other(found))
    assert shown.set_index("claim").loc["DIM acts through OV, not QK"].tolist() == [
        "holds (2/2)", "does not hold (0/2)", "refusal"]
    assert list(values) == ["claim", "refusal", "language"] and "0.0316 (0.0105 to 0.526)" in " ".join(values.language)
    assert f"On organism-llama ([notebook 08](notebooks/08_second_concept.ipynb)), of {len(CENTRAL)} claims:" in section
    told = {line.partition(":")[0]: line for line in section.splitlines() if line.startswith("* ")}
    assert set(told) == {"* steering", "* refusal", "* open"} and told["* open"] == "* open: 0"
    assert told["* refusal"].startswith("* refusal: ") and "DIM acts through OV, not QK" in told["* refusal"]
    before = section.partition("<details>")[0]
    assert "DIM acts through OV" in before and "| claim" not in before  # the tables are folded
    assert rows_of(section, "| Random vectors of the same length do nothing (*ours*)")[1] == "**holds** (18/18)"
    assert rows_of(section, "| DIM acts through OV, not QK") == [
        "DIM acts through OV, not QK", "**holds** (2/2, 1 close)", "**does not hold** (0/2)", "refusal"]
    assert sum(line.startswith("| ") for line in section.splitlines()) == 2 * (2 + len(CENTRAL))
    assert "share of the steering undone by freezing OV, DIM: 0.0316 (0.0105 to 0.526)" in section
    assert section.count("<details>") == section.count("</details>") == 1
    results("organism-llama", {"scorecard_cases": found["refusal"], "second_cases": found["language"]})
    beside = results_page().partition("## About refusal, or about steering")[2]
    assert rows_of(beside, "| DIM acts through OV, not QK") == [
        "DIM acts through OV, not QK", "**holds** (2/2, 1 close)", "**does not hold** (0/2, 1 close)", "refusal"]


# -- where it is steered -------------------------------------------------------------------------------------

def test_a_place_is_chosen_by_the_pieces_of_the_rule(llama, candidates, prompts):
    settings = replace(PRESETS["tiny"], coefficients=(1.0, ALPHA), n_candidates=1, kl_limit=50.0)
    tables = prompts.values()
    scores, chosen = chosen_places(llama, candidates, [1, LAYER], *tables, COUNTING, settings, **HOW)
    every = score_candidates(llama, candidates, *tables, first_token_ids(llama, COUNTING.first_tokens), kl_limit=50.0)
    expected = every[every.layer.isin([1, LAYER])].reset_index(drop=True)
    pd.testing.assert_frame_equal(scores, expected)
    assert set(chosen.layer) <= {1, LAYER} and len(chosen) == 2
    if scores.admissible.any():
        one = select_by_generation(llama, candidates, scores.head(1), (1.0, ALPHA), *tables, concept=COUNTING, **HOW)
        pd.testing.assert_frame_equal(chosen, one)
    with pytest.raises(ValueError, match="layer 9 was given: the candidates are of layers 0 to "):
        chosen_places(llama, candidates, [9], *tables, COUNTING, settings, **HOW)


def test_nothing_that_turns_is_said_with_what_was_found():
    chosen = pd.DataFrame({"layer": [4, 2], "position": -1, "coefficient": [1.0, 2.5], "asr_chinese": [0.0, 0.25],
                           "asr_english": [1.0, 0.875], "flipped": [0.0, 0.125]})
    assert nothing_turned(chosen, LANGUAGE) == (
        "none of 2 candidates and coefficients turns 25% of the prompts of both kinds. At best, entering layer 2 at "
        "|α| = 2.5, 25% of the chinese prompts' answers and 88% of the english prompts' answers do not answer in "
        "Chinese: nothing to measure")
    assert nothing_turned(chosen.assign(flipped=[0.0, 0.25]), LANGUAGE) == ""


def test_no_flips_at_any_layer_are_found(llama, candidates, prompts):
    """A judge that never fires: whatever is chosen, it is said that nothing turns."""
    never = HOW | dict(judge=type("Never", (), {"expresses": lambda self, r, prompts=None: [False] * len(r)})())
    settings = replace(PRESETS["tiny"], coefficients=(1.0,), n_candidates=1)
    _, chosen = chosen_places(llama, candidates, [1, LAYER], *prompts.values(), COUNTING, settings, **never)
    assert nothing_turned(chosen, COUNTING).startswith("none of 1 candidates and coefficients turns 25%")


def test_the_runs_that_won_make_presets_of_one_run():
    grid = pd.DataFrame({"method": ["ntp", "ntp", "po"], "batch_size": [4, 6, 6], "learning_rate": [0.1, 0.4, 0.1],
                         "seed": [42, 5, 5], "phi": [np.nan, np.nan, 0.2], "chosen": [False, True, True]})
    won = winning_runs(PRESETS["tiny"], grid)
    assert list(won) == ["ntp", "po"] and won["ntp"].phis == PRESETS["tiny"].phis and won["po"].phis == (0.2,)
    assert (won["ntp"].pair_batch_sizes, won["ntp"].learning_rates, won["ntp"].training_seeds,
            won["ntp"].more_seeds) == ((6,), (0.4,), (5,), ())


# -- behaviour -----------------------------------------------------------------------------------------------

def test_clean_text_beside_the_unsteered_models():
    table = pd.DataFrame({"prompts": ["a", "a", "b", "b"], "method": ["none", "dim"] * 2,
                          "clean": [0.8, 0.4, 0.05, 0.05]})
    found = beside_unsteered(table).clean_share_of_base
    assert found[:2].tolist() == [1.0, 0.5] and found[2:].isna().all()


def test_freezes_stand_below_what_is_not_frozen(llama, steering, prompts):
    how = dict(concept=COUNTING, **HOW)
    plain = judged_both_ways(llama, prompts, {"none": None, "dim": steering}, **how)
    found = judged_frozen(llama, prompts, {"dim": steering}, ("qk", "ov"), plain, **how)
    assert found.frozen.value_counts(sort=False).to_dict() == {"none": 24, "qk": 12, "ov": 12}
    own = judged_both_ways(llama, prompts, {"dim": steering}, "ov", **how)
    assert found[found.frozen == "ov"].text.tolist() == own.text.tolist()


def test_sparse_vectors_are_judged_in_both_directions(llama, steering, prompts):
    runs = pd.DataFrame({"method": ["none", "dim"], "sparsifier": "none", "threshold": 0.0,
                         "vector": [torch.zeros_like(steering.vector), steering.vector]})
    found = judged_sparse(llama, prompts, runs, {"dim": steering}, concept=COUNTING, **HOW)
    for name, texts, sign in (("numeric", NUMERIC, -1), ("wordy", WORDY, 1)):
        own = found[found.prompts == name]
        steered = replace(steering, coefficient=sign * ALPHA)
        assert own[own.method == "none"].expressed.tolist() == said(llama, texts)
        assert own[own.method == "dim"].expressed.tolist() == said(llama, texts, steered)
    assert "vector" not in found


def test_sparse_vectors_act_in_their_own_layers_with_positive_coefficients(llama, steering, prompts):
    elsewhere = replace(steering, layer=steering.layer + 1, coefficient=ALPHA / 2)
    both = {"dim": steering, "po": elsewhere}
    runs = pd.DataFrame({"method": ["dim", "po"], "vector": [steering.vector] * 2})
    found = judged_sparse(llama, prompts, runs, both, concept=COUNTING, **HOW)
    plain = judged_both_ways(llama, prompts, both, concept=COUNTING, **HOW)
    keys = ["prompts", "method", "prompt"]
    assert found.sort_values(keys).text.tolist() == plain.sort_values(keys).text.tolist()
    with pytest.raises(ValueError, match="must be positive"):
        judged_sparse(llama, prompts, runs, both | {"po": replace(elsewhere, coefficient=-1.0)}, concept=COUNTING, **HOW)


def test_random_vectors_are_as_long_as_each_method_s(llama, steering, prompts):
    pushes = {"dim": steering, "po": replace(steering, vector=-2 * steering.vector, coefficient=ALPHA / 3)}
    judged = judged_both_ways(llama, prompts, {"none": None} | pushes, concept=COUNTING, **HOW)
    few = {name: table.head(4) for name, table in prompts.items()}
    random = judged_random(llama, few, pushes, draws=2, seed=3, concept=COUNTING, **HOW)
    table = random_control(random, judged).set_index(["as_long_as", "draw", "prompts"])
    assert len(random) == 4 * len(table) == 4 * 8 and set(random.method) == {"random"}
    for name, texts, sign in (("numeric", NUMERIC[:4], -1), ("wordy", WORDY[:4], 1)):
        base = np.mean(said(llama, texts))
        for method, push in pushes.items():
            steered = np.mean(said(llama, texts, replace(push, coefficient=sign * push.coefficient)))
            for draw in (0, 1):
                row, other = table.loc[method, draw, name], random_vector(push.vector, 3 + draw)
                own = said(llama, texts, replace(push, vector=other, coefficient=sign * push.coefficient))
                kept = random[(random.as_long_as == method) & (random.draw == draw) & (random.prompts == name)]
                assert kept.expressed.tolist() == own and set(kept.seed) == {3 + draw} == {row.seed}
                assert (row.n, row.asr) == (4, 1 - np.mean(own)) and row.coefficient == sign * push.coefficient
                assert (row.asr_change, row.method_change) == pytest.approx((base - np.mean(own), base - steered))
    assert table.method_change.nunique() > 1 and (table.asr_change != table.method_change).any()
    with pytest.raises(ValueError, match="draws must be at least 1, 0 was given"):
        judged_random(llama, few, pushes, draws=0, concept=COUNTING, **HOW)
    one = judged.index == judged[judged.method == "dim"].index[0]
    for wanted, missing in (("none", judged.method == "none"), ("po", judged.method == "po"), ("dim", one)):
        with pytest.raises(ValueError, match=f"of '{wanted}' there are not the answers to all 8 prompts of the random"):
            random_control(random, judged[~missing])


def test_what_freezes_undo_in_logits_is_what_their_circuits_lack(llama, data):
    flipped = data["dim"].subset(response_from="steered")
    undone = undone_on_logits(llama, {"a": flipped, "b": flipped.subset(n=1)})
    left = frozen_circuits(Graph.of(llama, LAYER))
    assert undone.method.value_counts().to_dict() == {"a": 3 * len(left), "b": 3 * len(left)}
    for method, n in (("a", None), ("b", 1)):
        part = flipped.subset(n=n)
        own = undone[undone.method == method]
        of_sets = {"both": len(part.responses), **part.labels.prompts.value_counts()}
        assert len(of_sets) == 3 and own.responses.tolist() == own.prompts.map(of_sets).tolist()
        expected = faithfulness_by_class(llama, left, part, both=True)
        assert own.undone.tolist() == pytest.approx((1 - expected.faithfulness).tolist())
        assert own.low.tolist() == pytest.approx((1 - expected.high).tolist(), nan_ok=True)  # one prompt has none
        assert own.high.tolist() == pytest.approx((1 - expected.low).tolist(), nan_ok=True)
        assert own.n_edges.tolist() == expected.n_edges.tolist()


def test_both_vectors_at_once(llama, steering, prompts):
    """Two of one kind add up, two that are opposite cancel; every run is judged for both concepts."""
    refusal = Steering(steering.vector / 2, LAYER, ALPHA / 2)  # a quarter of the other push
    none = type("None_", (), {"expresses": lambda self, r, prompts=None: [False] * len(r)})()
    table, answers = judged_together(llama, prompts, refusal, steering, (REFUSAL, COUNTING), (none, Digits()),
                                     vocabulary=None, max_new_tokens=N)
    runs = ["neither", "refusal alone", "counting alone", "both"]
    assert list(table.columns) == ["prompts", "steering", "concept", "n", "expressed", "low", "high", "clean"]
    assert table.steering.tolist() == runs * 4 and (table[table.concept == "refusal"].expressed == 0).all()
    for name, texts, sign in (("numeric", NUMERIC, -1), ("wordy", WORDY, 1)):
        own = table[(table.prompts == name) & (table.concept == "counting")].set_index("steering")
        for run, alpha in zip(runs, (0.0, ALPHA / 4, sign * ALPHA, ALPHA / 4 + sign * ALPHA)):
            expected = said(llama, texts, replace(steering, coefficient=alpha) if alpha else None)
            assert own.expressed[run] == pytest.approx(np.mean(expected)), (name, run)
            assert own.low[run] <= own.expressed[run] <= own.high[run] and own.n[run] == len(texts)
    assert answers.groupby("prompts").size().to_dict() == {"numeric": 20, "wordy": 28}
    with pytest.raises(ValueError, match="the vectors enter layers 1 and 2: to add them up give two of one layer"):
        judged_together(llama, prompts, replace(refusal, layer=1), steering, (REFUSAL, COUNTING), (none, Digits()),
                        vocabulary=None)


# -- circuits and heads --------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def data(llama, steering):
    return {"dim": patching_data(llama, NUMERIC, WORDY, steering, Digits(), concept=COUNTING, max_new_tokens=N)}


def test_circuits_of_methods_and_of_random_vectors(llama, steering, data):
    own, random = ranked_with_control(llama, data, steps=2)
    circuits, sizes = minimum_circuits(llama, own, data, 0.5)
    expected = minimum_circuit(llama, own["dim"], data["dim"], 0.5)
    assert circuits["dim"].edges.equals(expected.edges) and sizes.n_edges.tolist() == [expected.n_edges]
    assert sizes.share[0] == expected.n_edges / expected.graph.n_edges
    found = interchanged(llama, circuits, random, data)
    assert found.circuit.unique().tolist() == ["dim", "random vector", "random edges"]
    assert set(found.prompts) == {"both", "numeric", "wordy"} and set(found.vector) == {"dim"}
    alone = faithfulness_by_class(llama, pd.Series({"dim": expected}).rename_axis("circuit"), data["dim"], both=True)
    assert found[found.circuit == "dim"].faithfulness.tolist() == pytest.approx(alone.faithfulness.tolist())


def test_circuits_of_several_random_vectors_beside_the_methods_own(llama, steering, data):
    """Each direction by hand: pushed along as far as the method's, its strongest edges cut to the size of that circuit,
    and run on other answers than they were ranked on."""
    def twice(part):
        return replace(part, steerings=[replace(push, vector=2 * push.vector) for push in part.steerings])

    ranked = data["dim"].subset(response_from="steered")
    ranked_on, judged_on = {"dim": ranked, "po": twice(ranked)}, {"dim": data["dim"], "po": twice(data["dim"])}
    assert 0 < len(ranked.responses) < len(data["dim"].responses)
    own = {method: Circuit.top(attribute(llama, part.responses, part.steerings, steps=2), n_edges)
           for (method, part), n_edges in zip(ranked_on.items(), (40, 60))}
    found = random_vector_circuits(llama, own, ranked_on, judged_on, draws=2, steps=2, seed=3)
    assert found[["method", "seed", "n_edges", "prompts"]].to_numpy().tolist() == [
        [method, seed, n_edges, prompts] for method, n_edges in (("dim", 40), ("po", 60)) for seed in (3, 4)
        for prompts in ("numeric", "wordy")]

    def carried(method, circuit):
        circuits = pd.Series({"it": circuit}).rename_axis("circuit")
        return faithfulness_by_class(llama, circuits, judged_on[method]).set_index("prompts").faithfulness

    for (method, seed), rows in found.groupby(["method", "seed"]):
        part = ranked_on[method]
        pushes = [replace(push, vector=random_vector(push.vector, seed)) for push in part.steerings]
        random = Circuit.top(attribute(llama, part.responses, pushes, steps=2), own[method].n_edges)
        its, other, rows = carried(method, own[method]), carried(method, random), rows.set_index("prompts")
        assert rows.faithfulness.to_dict() == pytest.approx(other.to_dict())
        assert rows.difference.to_dict() == pytest.approx((its - other).to_dict())
        assert rows.other_share.to_dict() == pytest.approx((other / its).to_dict())
        assert (rows.other_share_low <= rows.other_share).all() and (rows.other_share <= rows.other_share_high).all()
    assert found.groupby(["method", "prompts"]).faithfulness.nunique().eq(2).all()  # two directions, two circuits
    with pytest.raises(ValueError, match="draws"):
        random_vector_circuits(llama, own, ranked_on, judged_on, draws=0)


def test_circuits_of_two_concepts_share_what_two_layers_share():
    early, late = Graph(3, 2, 2, 0), Graph(3, 2, 2, 1)
    circuits = {"refusal": {"dim": Circuit.random(early, 60, 0)}, "language": {"dim": Circuit.random(late, 30, 1)},
                "a random vector": {"dim": Circuit.random(late, 30, 2), "po": Circuit.random(late, 30, 3)}}
    found = shared_by_kind(circuits, control="a random vector")
    assert found.between.tolist() == ["refusal and language", "refusal and a random vector",
                                      "refusal and a random vector", "language and a random vector",
                                      "language and a random vector"]
    plain = pd.Series({(0, "a"): circuits["refusal"]["dim"], (1, "b"): circuits["language"]["dim"]})
    expected = shared_above(plain, [((0, "a"), (1, "b"))])
    columns = ["layer_a", "layer_b", "among", "edges_a", "edges_b", "shared", "overlap", "chance", "iou", "p"]
    pd.testing.assert_frame_equal(found.head(1)[columns], expected[columns])
    same = shared_by_kind({"a": {"x": circuits["language"]["dim"]}, "b": {"x": circuits["language"]["dim"]}})
    assert same.overlap.tolist() == [1.0] and same.between.tolist() == ["a and b"]


def test_the_strongest_heads_writes_and_what_luck_gives(llama, steering):
    graph = Graph.of(llama, LAYER)
    nodes = pd.DataFrame({"node": graph.sources, "score": np.arange(len(graph.sources)) - 6.3})
    ranking = replace(attribution_of(graph, {}), nodes=nodes)
    shown, signs = strongest_writes(llama, {"dim": steering.vector}, {"dim": ranking}, LAYER, n=2)
    svv = steering_value_vectors(llama, steering.vector, LAYER)
    names = list(shown["dim"])
    assert names[0] == "SV" and names[-1] == "SUM" and len(names) == 4
    effect = ranking.nodes.set_index("node").score
    heads = effect[effect.index.str.startswith("a")].abs().nlargest(2).index
    for node in heads:
        layer, head = (int(part[1:]) for part in node.split("."))
        name, sign = f"L{layer}H{head}", np.sign(effect[node])
        assert signs["dim", name] == sign
        torch.testing.assert_close(shown["dim"][name], float(sign) * svv[layer - LAYER, head])
    torch.testing.assert_close(shown["dim"]["SUM"], svv.sum((0, 1)))
    typical = {"words": torch.tensor([1, -1] * (llama.n_vocab // 2) + [0] * (llama.n_vocab % 2))}
    table = preferences(llama, shown, typical, LAYER, draws=20)
    assert table.vector.tolist() == names and table.preference.between(0, 1).all()
    assert (table.chance_low <= table.chance_high).all() and table[["chance_low", "chance_high"]].notna().all().all()
    own = lens_preference(lens_logits(llama, steering.vector), typical["words"]).item()
    assert table.preference[0] == pytest.approx(own)


# -- figures -------------------------------------------------------------------------------------------------

def test_points_of_pairs_stand_over_their_kind_and_chance_beside_them():
    kinds = ["refusal", "refusal and language", "refusal and language", "language and a random vector"]
    shared = pd.DataFrame({"between": kinds, "overlap": [0.9, 0.5, np.nan, 0.4], "chance": [0.1, 0.2, np.nan, 0.15]})
    ax = draw_two_circuits(shared).axes[0]
    dots = [points.get_offsets().tolist() for points in ax.collections if isinstance(points, PathCollection)]
    assert [(round(x), y) for own in dots for x, y in own] == [(0, 0.9), (1, 0.5), (2, 0.4)]
    assert [label.get_text() for label in ax.get_xticklabels()] == [
        "refusal", "refusal\nand language", "language\nand a random vector"]


def test_two_bars_per_run_say_how_often_either_concept_is_expressed():
    rows = [(name, run, concept, value, value, value) for name in LANGUAGE.sets
            for concept, values in (("refusal", (0.0, 1.0, 0.1, 0.9)), ("language", (1.0, 0.9, 0.2, 0.1)))
            for run, value in zip(("neither", "refusal alone", "language alone", "both"), values)]
    table = pd.DataFrame(rows, columns=["prompts", "steering", "concept", "expressed", "low", "high"])
    fig = draw_two_vectors(table, (REFUSAL, LANGUAGE))
    for ax, name in zip(fig.axes, LANGUAGE.sets):
        assert ax.get_title() == f"{name} prompts"
        assert [bar.get_height() for bar in ax.patches] == [0.0, 1.0, 0.1, 0.9, 1.0, 0.9, 0.2, 0.1]
    labels = [text.get_text() for text in fig.legends[0].get_texts()]
    assert labels == ["refuse", "answer in Chinese"]
