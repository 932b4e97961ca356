import pytest

from steerpaper.prompts.fluency import clean_text, words

GOOD = "You asked about the garden gate. Oil the hinge, then close the garden gate slowly. Don't force it."
VOCABULARY = set(words(GOOD)) | set(words("i can not help you with that very lock gates again"))


def check(text, *, ended=True, topic_words="garden gate"):
    return clean_text(text, ended=ended, topic_words=topic_words, vocabulary=VOCABULARY)


def test_a_good_text_is_clean():
    result = check(GOOD)
    assert (result.ended, result.no_loop, result.known_words, result.on_topic) == (True, True, True, True)
    assert result.clean


def test_a_text_cut_off_at_its_length_limit_is_not_clean():
    result = check(GOOD, ended=False)
    assert not result.ended and not result.clean
    assert result.no_loop and result.known_words and result.on_topic


@pytest.mark.parametrize(
    "text",
    [
        "Oil the the garden gate.",
        "Oil, oil the garden gate.",
        "Close the garden gate. Oil it. close the GARDEN gate!",
        "I can not help you I can not help you I can not help you with that garden gate.",
        "Oil the garden gate\nOil the garden gate",
        "I can not help you with the garden gate, you can not help you with it.",  # twice in one sentence
    ],
)
def test_loops_are_found(text):
    result = check(text)
    assert not result.no_loop and not result.clean
    assert result.known_words and result.on_topic


@pytest.mark.parametrize(
    "text",
    [
        "Close the garden gate. Gate again.",  # the same word on both sides of a full stop
        "I can not help you with the gate. You can not help you with it.",  # a run of four, once a sentence
        "",
    ],
)
def test_near_loops_are_no_loops(text):
    assert check(text).no_loop


@pytest.mark.parametrize("text, loops", [
    ("灯塔是一种建筑，它照亮海面。灯塔也是一种标志。", False),
    ("它是短暂的、短暂的、短暂的。", True),  # the same between two marks, twice in a row
    ("灯塔照亮海面。灯塔照亮海面。", True),
    ("灯塔灯塔灯塔灯塔", True),  # without a mark
    ("人们常常慢慢地走。", False), ("1. 面包\n2. 茶\n3. 汤", False),
])
def test_loops_of_a_language_without_spaces(text, loops):
    assert clean_text(text, ended=None, topic_words=None, vocabulary=None).no_loop != loops


@pytest.mark.parametrize("broken", ["gardengate", "gar", "gate.close", "ga#te", "\ufffd", "gate_", "##gate"])
def test_broken_words_are_found(broken):
    result = check(f"Oil the garden gate {broken} slowly.")
    assert not result.known_words and not result.clean
    assert result.no_loop and result.on_topic


@pytest.mark.parametrize("text", ["Oil the hinge.", "Oil the gate, the garden.", "Oil the garden gates.", ""])
def test_off_topic_is_found(text):
    result = check(text)
    assert not result.on_topic and not result.clean
    assert result.no_loop and result.known_words


def test_words_are_stripped_of_prose_punctuation_only():
    assert words('("Gate," \u2014 don\u2019t\u2026) by-the-by #1') == ["gate", "don't", "by-the-by", "#1"]


def test_apostrophes_case_and_the_form_of_the_phrase_do_not_count():
    assert check(GOOD.replace("'", "\u2019").upper(), topic_words=["Garden", "gate"]).clean


def test_errors():
    with pytest.raises(ValueError, match="no word"):
        check(GOOD, topic_words=" . ")
    with pytest.raises(ValueError, match="vocabulary"):
        clean_text(GOOD, ended=True, topic_words="gate", vocabulary=set())


def test_checks_that_cannot_be_made_are_left_out():
    odd = "Oil the the hinge."
    result = clean_text(GOOD, ended=True, topic_words=None, vocabulary=None)
    assert (result.known_words, result.on_topic, result.clean) == (None, None, True)
    assert not clean_text(odd, ended=True, topic_words=None, vocabulary=None).clean
    assert not clean_text(GOOD, ended=False, topic_words=None, vocabulary=None).clean
    result = clean_text("Zebra.", ended=True, topic_words="gate", vocabulary=None)
    assert (result.known_words, result.on_topic, result.clean) == (None, False, False)
    result = clean_text("Zebra.", ended=True, topic_words=None, vocabulary=VOCABULARY)
    assert (result.known_words, result.on_topic, result.clean) == (False, None, False)
