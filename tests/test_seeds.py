"""Organisms of other training seeds: their presets, the workflow's jobs for them, and the verdicts counted over them."""

import hashlib
from dataclasses import asdict, replace

import pandas as pd
import pytest

from steerpaper import paths
from steerpaper.artifacts import load_table
from steerpaper.organisms import seeds
from steerpaper.organisms.seeds import cases_met, frequencies, of_seed, seeds_page, with_known
from steerpaper.organisms.training import FAMILIES
from steerpaper.paper.claims import Rule, claims
from steerpaper.presets import PRESETS, get_preset


def verdicts(**by_claim):
    """One organism, seeds in order."""
    return pd.DataFrame([("organism-llama", seed, f"digest {seed}", claim.replace("_", "-"), verdict, 1, 2, "these")
                         for claim, own in by_claim.items() for seed, verdict in enumerate(own)],
                        columns=["organism", "seed", "weights", "claim", "verdict", "met", "cases", "made_by"])


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_a_seed_changes_nothing_but_the_weights(family):
    own, shipped = asdict(get_preset(f"organism-{family}-seed12")), asdict(PRESETS[f"organism-{family}"])
    assert {name for name in own if own[name] != shipped[name]} == {"name", "model"}
    assert own["model"] == str(paths.BUILD / "organisms" / f"{family}-12")


@pytest.mark.parametrize("name", ["organism-llama-seed", "organism-mamba-seed1", "tiny-seed1", "organism-llama-seed-1"])
def test_other_names_are_no_seeds(name):
    with pytest.raises(ValueError, match="unknown preset"):
        get_preset(name)


def test_verdicts_are_counted_in_the_order_of_the_claims():
    table = frequencies(verdicts(few_edges=["holds", "does not hold", "holds"], effective=["holds in part"] * 3))
    titles = {claim.id: claim.title for claim in claims()}
    assert table.claim.tolist() == [titles["effective"], titles["few-edges"]]
    assert table["organism-llama"].tolist() == ["holds in part 3", "holds 2, does not hold 1"]


def test_the_page_has_every_training():
    page = seeds_page(verdicts(effective=["holds", "no scorecard"]))
    assert "| holds 1, no scorecard 1 |" in page and page.count("digest") == 2 + 1  # the words above the table, too


def test_the_page_on_record_is_current():
    assert seeds.PAGE.exists() == seeds.RECORD.exists()
    if seeds.RECORD.exists():
        assert seeds.PAGE.read_text("utf-8") == seeds_page(pd.read_csv(seeds.RECORD)), "run make seeds"


@pytest.mark.parametrize("why", ["", "it refuses nothing"])
def test_verdicts_of_one_training(why, tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "BUILD", tmp_path)
    monkeypatch.setattr(seeds, "finding", {"organism-llama-seed3": why}.get)
    card = pd.DataFrame({"claim": ["effective"], "verdict": ["holds"], "met": [3], "cases": [3], "rule": ["…"]})
    here = {("organism-llama-seed3", "scorecard_claims", False): card}
    monkeypatch.setattr(seeds, "load_table", lambda *asked, recorded: here[*asked, recorded])
    (tmp_path / "organisms" / "llama-3").mkdir(parents=True)
    (tmp_path / "organisms" / "llama-3" / "model.safetensors").write_bytes(b"weights")
    found = of_seed("organism-llama", 3)
    assert set(found.weights) == {hashlib.sha256(b"weights").hexdigest()} and set(found.seed) == {3}
    if why:
        assert len(found) == len(claims()) and set(found.verdict) == {"no scorecard"}
    else:
        assert found[["claim", "verdict", "met", "cases"]].values.tolist() == [["effective", "holds", 3, 3]]


def test_the_verdicts_of_seed_0_are_those_on_record():
    for family in FAMILIES:
        found = of_seed(f"organism-{family}", 0)
        card = load_table(f"organism-{family}", "scorecard_claims", recorded=True)
        assert found.verdict.tolist() == card.verdict.tolist() and set(found.seed) == {0}
        weights = (paths.ORGANISMS / family / "model.safetensors").read_bytes()
        assert set(found.weights) == {hashlib.sha256(weights).hexdigest()}


def test_seeds_come_one_by_one_and_only_those_made_alike_stay_together():
    known = verdicts(effective=["holds", "does not hold", "holds in part"], few_edges=["holds"] * 3)
    new = verdicts(effective=["no scorecard"] * 2, few_edges=["no scorecard"] * 2).query("seed == 1")
    both = with_known(new, known)
    assert both.seed.tolist() == [0, 0, 1, 1, 2, 2]
    assert both[both.claim == "effective"].verdict.tolist() == ["holds", "no scorecard", "holds in part"]
    assert with_known(new, known.assign(made_by="others")).equals(new.reset_index(drop=True))
    assert with_known(new, known.head(0)).equals(new.reset_index(drop=True))
    one = known.assign(made_by=known.made_by.where(known.claim == "effective", "other rules"))
    assert with_known(new, one).groupby("claim").seed.agg(list).to_dict() == {"effective": [0, 1, 2], "few-edges": [1]}
    other = known.assign(organism="organism-gemma2")
    assert set(with_known(new, other).organism) == {"organism-llama"}  # nothing says that it is made alike


def test_other_rules_or_another_corpus_make_other_verdicts(monkeypatch):
    before = seeds._made_by("organism-llama")
    assert before == seeds._made_by("organism-llama") and set(before) == {claim.id for claim in claims()}

    def others():
        return {name for name, made in seeds._made_by("organism-llama").items() if made != before[name]}

    assert not set(before.values()) & set(seeds._made_by("organism-gemma2").values())
    for name, other in (("digest_of", lambda family, seed: "another recipe"), ("paper_text", lambda: {"effect_kept": 0.7})):
        monkeypatch.setattr(seeds, name, other)
        assert others() == set(before)
        monkeypatch.undo()
    changed = [replace(claim, title="other words", limits="a better reason") for claim in claims()]
    stricter = replace(changed[0].checks[0], rule=Rule("at_least", (0.99,)))
    changed[0] = replace(changed[0], checks=(stricter, *changed[0].checks[1:]))
    monkeypatch.setattr(seeds, "claims", lambda: changed)
    assert others() == {changed[0].id}


def test_what_is_found_goes_on_record_beside_what_is_there(tmp_path, monkeypatch):
    cards = {("organism-llama", 0): "holds", ("organism-gemma2", 0): "holds in part", ("organism-llama", 2): "no case",
             ("organism-gemma2", 2): "holds", ("organism-llama", 1): "holds", ("organism-gemma2", 1): "holds"}

    def found(organism, seed):
        return verdicts(effective=[cards[organism, seed]]).assign(organism=organism, seed=seed)

    monkeypatch.setattr(seeds, "of_seed", found)
    monkeypatch.setattr(seeds, "RECORD", tmp_path / "seeds.csv")
    monkeypatch.setattr(seeds, "PAGE", tmp_path / "seeds.md")
    seeds.main("2")
    seeds.main("1")
    table = pd.read_csv(tmp_path / "seeds.csv")
    assert {(row.organism, row.seed): row.verdict for row in table.itertuples()} == cards
    assert (tmp_path / "seeds.md").read_text("utf-8") == seeds_page(table)
    assert "| holds 2, no case 1 |" in seeds_page(table)
    met = cases_met(table.assign(met=table.seed).query("seed < 2 or organism == 'organism-llama'"))
    assert met.columns.tolist() == ["claim", "organism-gemma2, 0", "organism-gemma2, 1", "organism-llama, 0",
                                    "organism-llama, 1", "organism-llama, 2"]
    assert met.values.tolist() == [[claims()[0].title, "0/2", "1/2", "0/2", "1/2", "2/2"]]
    assert ("every seed:\n0 of 1 on organism-gemma2 (3 seeds) and 0 of 1 on organism-llama (3 seeds)." in seeds_page(table)
            and "seed:\n1 of 1 on organism-llama (2 seeds)." in seeds_page(table.query("organism == 'organism-llama' and seed < 2")))
