"""The prompts of the concept "language": the same harmless requests in English and in Chinese, so that the two sets
differ in their language and in nothing else."""

import random
import tomllib
from itertools import product

import pandas as pd

from steerpaper import paths
from steerpaper.prompts.corpus import SPLITS

LANGUAGES = ("english", "chinese")  # in the order of the pairs in `data/corpus/languages.toml`


def language_sets(seed: int = 0) -> dict[str, pd.DataFrame]:
    """Both sets, every topic in every frame, shuffled within splits; rows of one number say the same.

    Returns:
        By language a table of prompt, topic ("": an answer in the other language names it in other words) and split.
    """
    words = tomllib.loads((paths.DATA / "corpus" / "languages.toml").read_text("utf-8"))
    rows = []
    for split in SPLITS:
        pairs = [*product(words["frames"][split], words["topics"])]
        random.Random(f"{seed} languages {split}").shuffle(pairs)
        rows += [(*(frame.format(x=topic) for frame, topic in zip(*pair)), split) for pair in pairs]
    both = pd.DataFrame(rows, columns=[*LANGUAGES, "split"])
    return {name: both[[name, "split"]].rename(columns={name: "prompt"}).assign(topic="")[["prompt", "topic", "split"]]
            for name in LANGUAGES}
