"""Tables 1 and 2 of a measured model at the paper's length: 512 new tokens, and what the first 64 of them say.

    python benchmarks/long_answers.py qwen2.5-coder-0.5b-instruct

Takes the vectors that notebook 01 saved for the preset, so run that first; on one GPU it takes minutes, on two cores
hours. Every answer is judged twice, whole and cut to the preset's own length. Prints the table, and writes it between
the markers `<!-- long-answers -->` and `<!-- /long-answers -->` of docs/cost.md where it has them.
"""

import sys

import pandas as pd
import torch
from attribution import publish

import steerpaper as sp
from steerpaper.behaviour import judged_both_ways
from steerpaper.paper.markdown import markdown_table

TOKENS = 512  # B.1
KINDS = (None, "qk", "ov", "svv", "mlp")


def answers(name: str) -> pd.DataFrame:
    """Judged answers to the test prompts: as of `judged_both_ways`, with the columns frozen and expressed_at_start, the
    verdict on the answer cut to the preset's length."""
    settings, model = sp.get_preset(name), sp.load_model(name)
    concept, judge = sp.get_concept(settings.concept), sp.load_judge(settings)
    prompts = sp.concept_prompts(concept, "test", settings.n_test, settings.prompts)
    steerings = {method: sp.load_steering(settings.name, method)
                 for method, about in sp.METHODS.items() if not about.baseline}
    how = dict(concept=concept, judge=judge, vocabulary=sp.vocabulary(settings.prompts), max_new_tokens=TOKENS,
               batch_size=400 if model.device.type == "cuda" else settings.batch_size)
    tables = []
    for kind in KINDS:
        own = steerings if kind else steerings | {"none": None}
        whole = judged_both_ways(model, prompts, own, kind, **how).assign(frozen=kind or "none")
        starts = [model.tokenizer.decode(tokens[:settings.max_new_tokens], skip_special_tokens=True)
                  for tokens in whole.completion]
        print(kind or "none", len(whole), flush=True)
        whole["expressed_at_start"] = judge.expresses(starts)
        tables.append(whole)
    return pd.concat(tables, ignore_index=True)


def table(judged: pd.DataFrame, n: int) -> str:
    """Markdown: attack success by method, freeze and prompt set, whole answers and their first n tokens."""
    keys, sets = ["method", "frozen"], list(judged.prompts.unique())
    whole = sp.rates(judged, [*keys, "prompts"]).set_index(keys)
    start = sp.rates(judged.assign(expressed=judged.expressed_at_start), [*keys, "prompts"]).set_index(keys)
    same = (judged.expressed == judged.expressed_at_start).groupby([judged[key] for key in keys], sort=False).mean()
    heads = [f"{name}, {tokens} tokens" for name in sets for tokens in (TOKENS, n)]
    rows = []
    for key, share in same.items():
        cells = [_rate(rates.loc[[key]].set_index("prompts").loc[name]) for name in sets for rates in (whole, start)]
        rows.append([*key, *cells, f"{share:.2f}"])
    return markdown_table(pd.DataFrame(rows, columns=[*keys, *heads, "same verdict"]))


def _rate(row) -> str:
    return f"{row.asr:.2f} [{row.asr_low:.2f}, {row.asr_high:.2f}]"


def main() -> None:
    """Generate, print, and write to docs/cost.md."""
    name = sys.argv[1]
    where = torch.cuda.get_device_name() if torch.cuda.is_available() else "the processor"
    judged = answers(name)
    n = sp.get_preset(name).max_new_tokens
    publish(f"Attack success rate of {name} on {where}, {judged.prompt.nunique()} test prompts:\n\n{table(judged, n)}",
            "long-answers")


if __name__ == "__main__":
    main()
