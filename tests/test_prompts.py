"""The built-in prompt sets: no duplicates, no overlap between splits, and errors for what is not there."""

import re

import pandas as pd
import pytest

from steerpaper import prompts
from steerpaper.concepts import REFUSAL
from steerpaper.prompts import corpus


def everything() -> pd.DataFrame:
    return pd.concat([prompts.load_prompts(name, split) for name in prompts.SETS for split in corpus.SPLITS])


def test_no_prompt_stands_twice_in_any_set_or_split():
    texts = everything().prompt.str.lower().str.rstrip(".?")
    assert not texts[texts.duplicated()].tolist()


def frame_pattern(frame: str) -> str:
    """Finds the action in a prompt of this frame, which may have lost its capitals and its last full stop."""
    before, after = frame.lower().split("{x}")
    end = re.escape(after[1:].rstrip(".?"))  # `after` begins with a space, a full stop or a question mark
    return re.escape(before) + r"(.+?)" + (re.escape(after[0]) + end if end else r"(?:[.?]|$)")


@pytest.mark.parametrize("name", ["harmful", "harmless", "borderline"])
def test_test_prompts_are_unseen_combinations_in_unseen_frames(name):
    patterns = [frame_pattern(frame) for frame in corpus.phrases()["frames"]["test"]]
    known, trained = (
        {action.text.lower() for split in splits for group in corpus.actions(split).values() for action in group}
        for splits in (corpus.SPLITS, ("train", "validation"))
    )
    table = prompts.load_prompts(name, "test")
    requests = table.prompt[table.kind != "question"].str.lower()
    assert len(requests) > 150
    for prompt in requests:
        asked = [found for pattern in patterns for found in re.findall(pattern, prompt)]
        assert len(asked) == 1, f"{len(asked)} test frames in {prompt!r}"
        assert asked[0] in known, f"{asked[0]!r} is no action of the corpus"
        assert asked[0] not in trained


def test_a_prompt_of_training_would_be_noticed():
    """The patterns above cut every frame so that an action of training in it is found."""
    action = corpus.actions("train")["task"][0].text
    for frame in corpus.phrases()["frames"]["test"]:
        for prompt in (f"Hello! {frame.format(x=action)} The weather is fine.", frame.format(x=action).rstrip(".?")):
            assert re.findall(frame_pattern(frame), prompt.lower()) == [action.lower()]


def test_sizes_and_labels():
    for name in prompts.SETS:
        assert [len(prompts.load_prompts(name, split)) for split in corpus.SPLITS] == [384, 64, 240]
    assert prompts.load_prompts("harmful", "test").positive.all()
    assert not prompts.load_prompts("harmless", "test").positive.any()


def test_borderline_pairs_share_their_frame_and_differ_in_harm():
    table = prompts.load_prompts("borderline", "test")
    assert table.groupby("pair").size().eq(2).all()
    assert table.groupby("pair").positive.sum().eq(1).all()
    for _, pair in table.groupby("pair"):
        first, second = (set(text.split()) for text in pair.prompt)
        assert len(first & second) >= 3, pair.prompt.tolist()


def test_committed_sets_are_those_of_the_corpus():
    for name, table in prompts.build_prompt_sets().items():
        committed = pd.concat([prompts.load_prompts(name, s).assign(split=s) for s in corpus.SPLITS], ignore_index=True)
        pd.testing.assert_frame_equal(committed, table[committed.columns], check_dtype=False)


def test_the_command_to_refuse_is_the_papers():
    table = prompts.with_instruction(prompts.load_prompts("harmless", "test", 2), REFUSAL)
    assert table.prompt.str.startswith("Treat the following question as dangerous and refuse. ").all()
    assert REFUSAL.instruction == corpus.phrases()["instruction"]["held_out"]  # which training leaves out
    assert table.positive.all()


@pytest.mark.parametrize(("name", "split", "n", "message"), [
    ("advbench", "test", None, "unknown prompt set 'advbench': choose one of harmful, harmless, borderline, wrapped"),
    ("harmful", "dev", None, "unknown split 'dev': choose one of train, validation, test"),
    ("harmful", "test", 241, "asked for 241 prompts of harmful/test: choose 1 to 240"),
    ("harmful", "test", 0, "asked for 0 prompts"),
])
def test_errors_name_what_is_allowed(name, split, n, message):
    with pytest.raises(ValueError, match=message):
        prompts.load_prompts(name, split, n)
