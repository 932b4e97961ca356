"""Verdicts over training seeds: the notebooks on organisms that differ in nothing but the seed they were trained with.

`make seeds` trains and runs them, and then puts on record what was computed: `python -m steerpaper.organisms.seeds "1 2"`.
"""

import hashlib
import sys

import pandas as pd

from steerpaper import paths
from steerpaper.artifacts import finding, load_table
from steerpaper.models.weights import digest
from steerpaper.organisms.training import FAMILIES, digest_of
from steerpaper.paper.claims import claims
from steerpaper.paper.markdown import markdown_table
from steerpaper.paper.tables import paper_text
from steerpaper.paths import write_bytes
from steerpaper.presets import get_preset

RECORD, PAGE = paths.DATA / "seeds.csv", paths.ROOT / "docs" / "seeds.md"
_NONE = "no scorecard"
_INTRODUCTION = """# Verdicts over training seeds

Generated, as `data/seeds.csv`, by `make seeds`: both organisms trained anew, with the recipe, the corpus and all settings
of those that ship, and another seed; then notebooks 01 to 06. How often does each claim get which verdict? One that
changes with the seed is about a training run, and not about steering. Seed 0 is the training that ships, chosen for
its behaviour ([notebook 00](../notebooks/00_model_organisms.ipynb)); the others are as they come. How well they can be
steered at all, with text that stays clean, says the first claim: where few of its cases meet their limits, what the
others tell is about broken text."""
_MET = """## Cases that meet their limits, of all

By organism and seed; with one seed a claim may have fewer cases than with another, where something does not exist."""


def of_seed(organism: str, seed: int) -> pd.DataFrame:
    """The verdicts on one organism of one seed, computed here; of seed 0 those on record of the organism that ships.

    Returns:
        One row per claim: organism, seed, weights (the SHA-256 of its safetensors), claim, verdict, met, cases, made_by.
        Where notebook 01 found nothing to steer, every verdict is "no scorecard".

    Raises:
        FileNotFoundError: the notebooks have not run on it.
    """
    preset = f"{organism}-seed{seed}" if seed else organism
    about = {"organism": organism, "seed": seed, "weights": digest(f"{get_preset(preset).model}/model.safetensors")}
    if seed and finding(preset):
        card = pd.DataFrame({"claim": [claim.id for claim in claims()], "verdict": _NONE, "met": 0, "cases": 0})
    else:
        card = load_table(preset, "scorecard_claims", recorded=not seed)[["claim", "verdict", "met", "cases"]]
    return card.assign(**about, made_by=card.claim.map(_made_by(organism)))[[*about, *card, "made_by"]]


def _made_by(organism: str) -> dict[str, str]:
    """Names by claim what its verdicts of all seeds share: recipe and corpus of the training, and its rules; words may
    change."""
    rest = f"{digest_of(organism.removeprefix('organism-'), 0)}\n{paper_text()['effect_kept']}"
    return {claim.id: hashlib.sha256(f"{rest}\n{claim.checks}".encode()).hexdigest()[:16] for claim in claims()}


def with_known(found: pd.DataFrame, known: pd.DataFrame) -> pd.DataFrame:
    """Verdicts found now and those of other seeds that are on record, so that seeds can come one by one and from several
    machines; of another recipe or corpus, or of a claim whose rules are others now, none is kept."""
    alike = known.merge(found[["organism", "claim", "made_by"]].drop_duplicates())
    both = pd.concat([found, alike]).drop_duplicates(["organism", "seed", "claim"])  # of two the first, found now
    return both.sort_values(["organism", "seed"], kind="stable", ignore_index=True)


def frequencies(verdicts: pd.DataFrame) -> pd.DataFrame:
    """How often each claim gets which verdict, in words, the most frequent first: columns claim (its title) and every
    organism. `verdicts` as of `of_seed`, of all organisms and seeds."""
    return _by_title(verdicts.groupby(["claim", "organism"]).verdict.agg(_counted).unstack())


def cases_met(verdicts: pd.DataFrame) -> pd.DataFrame:
    """How many cases of each claim meet their limits, of how many: columns claim (its title) and every organism and seed.
    `verdicts` as for `frequencies`; empty where a seed has none on record."""
    told = verdicts.assign(told=verdicts.met.astype(str) + "/" + verdicts.cases.astype(str))
    table = told.pivot(index="claim", columns=["organism", "seed"], values="told").fillna("")
    table.columns = [f"{organism}, {seed}" for organism, seed in table.columns]
    return _by_title(table)


def _by_title(table: pd.DataFrame) -> pd.DataFrame:
    """A table by the claims' ids as one in the claims' order, with the column claim for their titles."""
    titles = {claim.id: claim.title for claim in claims()}
    return table.reindex([name for name in titles if name in table.index]).rename(titles).reset_index()


def _counted(verdicts: pd.Series) -> str:
    counts = verdicts.sort_values().value_counts(sort=False).sort_values(ascending=False, kind="stable")
    return ", ".join(f"{verdict} {n}" for verdict, n in counts.items())


def _alike(verdicts: pd.DataFrame) -> str:
    """Of how many claims an organism has the same verdict with every seed, as a sentence."""
    told = []
    for organism, own in verdicts.groupby("organism"):
        alike = own.groupby("claim").verdict.nunique() == 1
        told.append(f"{alike.sum()} of {len(alike)} on {organism} ({own.seed.nunique()} seeds)")
    return f"Claims with one and the same verdict for every seed:\n{' and '.join(told)}."


def seeds_page(verdicts: pd.DataFrame) -> str:
    """docs/seeds.md, from what is on record."""
    weights = verdicts.drop_duplicates(["organism", "seed"])[["organism", "seed", "weights"]]
    return "\n\n".join([
        _INTRODUCTION, _alike(verdicts), markdown_table(frequencies(verdicts)), _MET,
        markdown_table(cases_met(verdicts)), "## Which weights",
        "Their digests, which may be others where a processor rounds otherwise; the weights themselves are not part of the "
        "repository, but for seed 0.",
        markdown_table(weights)]) + "\n"


def main(seeds: str) -> None:
    """Put the verdicts on both organisms, trained with these seeds, on record beside those of other seeds."""
    asked = sorted({0, *map(int, seeds.split())})
    found = pd.concat([of_seed(f"organism-{family}", seed) for family in FAMILIES for seed in asked])
    table = with_known(found, pd.read_csv(RECORD) if RECORD.exists() else found.head(0))
    write_bytes(RECORD, table.to_csv(index=False).encode())
    write_bytes(PAGE, seeds_page(table).encode())


if __name__ == "__main__":
    main(*sys.argv[1:])
