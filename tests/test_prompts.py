"""The built-in prompt sets: no duplicates, no overlap between splits, and errors for what is not there."""

import pandas as pd
import pytest

from steerpaper import corpus, prompts


def everything() -> pd.DataFrame:
    return pd.concat([prompts.load_prompts(name, split) for name in prompts.SETS for split in corpus.SPLITS])


def test_no_prompt_stands_twice_in_any_set_or_split():
    texts = everything().prompt.str.lower().str.rstrip(".?")
    assert not texts[texts.duplicated()].tolist()


def test_test_prompts_are_unseen_combinations_in_unseen_frames():
    frames = corpus.phrases()["frames"]
    for name in ("harmful", "borderline"):
        table = prompts.load_prompts(name, "test")
        for row in table[table.kind != "question"].itertuples():
            pairs = {a.text for group in corpus.actions("train").values() for a in group}
            asked = [f.format(x="\0").lower().rstrip(".?").split("\0") for f in frames["test"]]
            between = [
                row.prompt.lower().split(a)[1].split(b)[0] if b else row.prompt.lower().split(a)[1]
                for a, b in asked if a in row.prompt.lower() and b in row.prompt.lower()
            ]
            assert between, f"no test frame in {row.prompt!r}"
            assert not any(text in pairs for text in between)


def test_sizes_and_labels():
    for name in prompts.SETS:
        assert [len(prompts.load_prompts(name, split)) for split in corpus.SPLITS] == [384, 64, 240]
    assert prompts.load_prompts("harmful", "test").refuse.all()
    assert not prompts.load_prompts("harmless", "test").refuse.any()


def test_borderline_pairs_share_their_frame_and_differ_in_harm():
    table = prompts.load_prompts("borderline", "test")
    assert table.groupby("pair").size().eq(2).all()
    assert table.groupby("pair").refuse.sum().eq(1).all()
    for _, pair in table.groupby("pair"):
        first, second = (set(text.split()) for text in pair.prompt)
        assert len(first & second) >= 3, pair.prompt.tolist()


def test_committed_sets_are_those_of_the_corpus():
    for name, table in prompts.build_prompt_sets().items():
        committed = pd.concat([prompts.load_prompts(name, s).assign(split=s) for s in corpus.SPLITS], ignore_index=True)
        pd.testing.assert_frame_equal(committed, table[committed.columns], check_dtype=False)


def test_the_command_to_refuse_is_the_papers():
    table = prompts.with_refuse_instruction(prompts.load_prompts("harmless", "test", 2))
    assert table.prompt.str.startswith("Treat the following question as dangerous and refuse. ").all()
    assert table.refuse.all()


@pytest.mark.parametrize(("name", "split", "n", "message"), [
    ("advbench", "test", None, "unknown prompt set 'advbench': choose one of harmful, harmless, borderline, wrapped"),
    ("harmful", "dev", None, "unknown split 'dev': choose one of train, validation, test"),
    ("harmful", "test", 241, "asked for 241 prompts of harmful/test: choose 1 to 240"),
    ("harmful", "test", 0, "asked for 0 prompts"),
])
def test_errors_name_what_is_allowed(name, split, n, message):
    with pytest.raises(ValueError, match=message):
        prompts.load_prompts(name, split, n)
