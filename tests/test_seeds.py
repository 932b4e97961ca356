"""Organisms of other training seeds: their presets, the workflow's jobs for them, and the verdicts counted over them."""

import hashlib
from dataclasses import asdict

import pandas as pd
import pytest
from test_reported import hand_made

from steerpaper import paths
from steerpaper.artifacts import load_table, save_table
from steerpaper.organisms import seeds
from steerpaper.organisms.seeds import all_verdicts, cases_met, frequencies, put_on_record, seeds_page
from steerpaper.organisms.training import FAMILIES
from steerpaper.paper.claims import claims
from steerpaper.presets import PRESETS, get_preset


def verdicts(**by_claim):
    """One organism, seeds in order."""
    return pd.DataFrame([("organism-llama", seed, f"digest {seed}", claim.replace("_", "-"), verdict, 1, 2)
                         for claim, own in by_claim.items() for seed, verdict in enumerate(own)],
                        columns=["organism", "seed", "weights", "claim", "verdict", "met", "cases"])


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_a_seed_changes_nothing_but_the_weights(family):
    own, shipped = asdict(get_preset(f"organism-{family}-seed12")), asdict(PRESETS[f"organism-{family}"])
    assert {name for name in own if own[name] != shipped[name]} == {"name", "model", "goal"}
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


def test_what_is_on_record_is_what_its_tables_say():
    """By the claims of now, so that other rules are seen to be put to every seed."""
    on_record = pd.read_csv(seeds.RECORD)
    pd.testing.assert_frame_equal(all_verdicts(), on_record)
    assert seeds.PAGE.read_text("utf-8") == seeds_page(on_record), "run make seeds SEEDS=0"
    for family in FAMILIES:
        own = on_record[(on_record.organism == f"organism-{family}") & (on_record.seed == 0)]
        assert own.verdict.tolist() == load_table(f"organism-{family}", "scorecard_claims", recorded=True).verdict.tolist()
        weights = (paths.ORGANISMS / family / "model.safetensors").read_bytes()
        assert set(own.weights) == {hashlib.sha256(weights).hexdigest()}


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """A training computed here, of which nothing is on record; call it with how many harmful prompts it refuses."""
    monkeypatch.setattr(paths, "BUILD", tmp_path / "build")
    monkeypatch.setattr(seeds, "TABLES", tmp_path / "seeds")
    folder = paths.BUILD / "organisms" / "llama-3"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"weights")

    def run(refused):
        unsteered = pd.DataFrame([("harmful", 16, refused, refused / 16, 0.0, 1.0), ("harmless", 16, 0, 0.0, 0.0, 0.2)],
                                 columns=["prompts", "n", "expressed", "share", "share_low", "share_high"])
        for name, table in ((hand_made() if refused else {}) | {"unsteered": unsteered}).items():
            save_table("organism-llama-seed3", name, table)

    return run


def of_seed_3():
    found = all_verdicts()
    return found[(found.organism == "organism-llama") & (found.seed == 3)]


def test_a_training_is_judged_by_what_was_put_on_record_of_it(trained):
    trained(refused=16)
    assert of_seed_3().empty
    put_on_record("organism-llama", 3)
    (own := paths.results("organism-llama-seed3") / "table2_asr.csv").unlink()  # no more needed
    found = of_seed_3()
    assert set(found.verdict) == {"holds"} and found.claim.tolist() == [claim.id for claim in claims()]
    assert set(found.weights) == {hashlib.sha256(b"weights").hexdigest()} and (found.met == found.cases).all()
    kept = seeds.TABLES / "organism-llama-seed3" / "table2_asr.csv"
    kept.write_text(kept.read_text().replace("0.9", "0.5"))
    with pytest.raises(ValueError, match="organism-llama-seed3/table2_asr.csv in data/seeds is not what was put on record"):
        all_verdicts()
    with pytest.raises(FileNotFoundError, match="table2_asr.csv is missing"):
        put_on_record("organism-llama", 3)
    assert kept.exists() and not own.exists()  # what was on record stays


def test_a_table_that_no_seed_has_is_not_measured(trained):
    trained(refused=16)
    put_on_record("organism-llama", 3)
    known = seeds.manifests.read(seeds.TABLES / "organism-llama-seed3")
    del known["tables"]["cosines"]
    seeds.manifests.write(seeds.TABLES / "organism-llama-seed3", known)
    found = of_seed_3().set_index("claim").verdict
    assert found.pop("cosines") == "not measured" and set(found) == {"holds"}


def test_a_training_with_nothing_to_steer_has_no_scorecard(trained):
    trained(refused=0)
    put_on_record("organism-llama", 3)
    assert set(of_seed_3().verdict) == {"no scorecard"} and len(of_seed_3()) == len(claims())


def test_another_recipe_or_corpus_makes_other_organisms(trained, monkeypatch):
    trained(refused=16)
    put_on_record("organism-llama", 3)
    monkeypatch.setattr(seeds, "digest_of", lambda family, seed: "another recipe")
    assert set(all_verdicts().seed) == {0}


def test_seeds_come_one_by_one(tmp_path, monkeypatch):
    put = []
    monkeypatch.setattr(seeds, "put_on_record", lambda organism, seed: put.append((organism, seed)))
    other = verdicts(effective=["holds", "holds in part"], few_edges=["holds"] * 2).assign(organism="organism-gemma2")
    table = pd.concat([other, verdicts(effective=["holds", "holds", "no case"], few_edges=["holds"] * 3)], ignore_index=True)
    monkeypatch.setattr(seeds, "all_verdicts", lambda: table)
    monkeypatch.setattr(seeds, "RECORD", tmp_path / "seeds.csv")
    monkeypatch.setattr(seeds, "PAGE", tmp_path / "seeds.md")
    seeds.main("2 0 1")  # 0 ships
    assert put == [(f"organism-{family}", seed) for seed in (1, 2) for family in FAMILIES]
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "seeds.csv"), table)
    page = (tmp_path / "seeds.md").read_text("utf-8")
    assert page == seeds_page(table) and "| holds 2, no case 1 |" in page
    assert "every seed:\n1 of 2 on organism-gemma2 (2 seeds) and 1 of 2 on organism-llama (3 seeds)." in page
    met = cases_met(table.assign(met=table.seed).query("claim == 'effective'"))
    assert met.columns.tolist() == ["claim", "organism-gemma2, 0", "organism-gemma2, 1", "organism-llama, 0",
                                    "organism-llama, 1", "organism-llama, 2"]
    assert met.values.tolist() == [[claims()[0].title, "0/2", "1/2", "0/2", "1/2", "2/2"]]
