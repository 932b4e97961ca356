"""Organisms of other training seeds: their presets, the workflow's jobs for them, and the verdicts counted over them."""

import hashlib
from dataclasses import asdict

import pandas as pd
import pytest

from steerpaper import paths
from steerpaper.organisms import seeds
from steerpaper.organisms.seeds import frequencies, of_seed, seeds_page
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
    monkeypatch.setattr(seeds, "load_table", lambda *asked: {("organism-llama-seed3", "scorecard_claims"): card}[asked])
    (tmp_path / "organisms" / "llama-3").mkdir(parents=True)
    (tmp_path / "organisms" / "llama-3" / "model.safetensors").write_bytes(b"weights")
    found = of_seed("organism-llama", 3)
    assert set(found.weights) == {hashlib.sha256(b"weights").hexdigest()} and set(found.seed) == {3}
    if why:
        assert len(found) == len(claims()) and set(found.verdict) == {"no scorecard"}
    else:
        assert found[["claim", "verdict", "met", "cases"]].values.tolist() == [["effective", "holds", 3, 3]]
