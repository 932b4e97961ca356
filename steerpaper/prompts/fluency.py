"""Is a text well-formed? Steering too hard gives loops, glued words and answers about something else.

Not from the paper, which reports attack success alone: a broken text does not refuse either.
"""

import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from steerpaper.concepts import HAN

# Punctuation of prose, with curly quotes, ellipsis and dashes; "gate_" or "##ing" stay as they are.
_EDGES = ".,;:!?()[]-'\"\u2018\u2019\u201c\u201d\u2026\u2013\u2014"
# Chinese writes no spaces: there what stands between two marks counts as a word, and a part of it that is said four
# times or more in a row as a loop.
_MARKS = dict(zip("\uff0c\u3001\uff1b\uff1a\u3002\uff01\uff1f", ",,;:.!?"))
_FULL_WIDTH = str.maketrans({own: f"{mark} " for own, mark in _MARKS.items()})
_CIRCLE = re.compile(rf"([{HAN}]{{1,12}}?)\1{{3,}}")
_SENTENCE_END = re.compile(r"[.!?]+[\"')\u201d]*(?:\s+|$)|\n+")


@dataclass(frozen=True)
class CleanText:
    """Four checks of one text; `clean` if all that were made hold.

    Attributes:
        ended: the text ended by itself, with the end token; None where a text that was cut may be a good one.
        no_loop: no word twice in a row, no sentence twice, no run of four words twice in one sentence or more than
            four times in all (an answer may well name "the first day at school" in each of four sentences). Of
            Chinese, in which words run on, what stands between two marks is a word.
        known_words: every word is in the vocabulary; None where there is none to check against.
        on_topic: the text names what it was asked about; None where no phrase is known.
    """

    ended: bool | None
    no_loop: bool
    known_words: bool | None
    on_topic: bool | None

    @property
    def clean(self) -> bool:
        return False not in (self.ended, self.no_loop, self.known_words, self.on_topic)


def words(text: str) -> list[str]:
    """The words of a text: split at white space, lower case, without prose punctuation at either end.

    Punctuation inside a word stays ("don't", "step-by-step"), so that "door.lock" is one unknown word.
    """
    text = text.replace("\u2019", "'").lower()
    return [word for word in (token.strip(_EDGES) for token in text.split()) if word]


def clean_text(
    text: str, *, ended: bool | None, topic_words: str | Sequence[str] | None, vocabulary: Collection[str] | None
) -> CleanText:
    """Check one completion for the four defects that steering produces, or for those of them that can be checked.

    Args:
        text: the completion.
        ended: whether the completion ended with the end token, before its length limit. None leaves this check out: of
            a model whose answers are longer than the limit.
        topic_words: the phrase asked about ("front door"), as a string or as its words in order; it must
            occur as it stands, inflected forms do not count. None leaves this check out: prompts from elsewhere
            come without such a phrase.
        vocabulary: the known words, made with `words`; a set, for speed. None leaves this check out: a model
            trained on all the web has no such list.

    Raises:
        ValueError: an empty phrase or vocabulary.
    """
    spoken = words(text)
    known_words = on_topic = None
    if topic_words is not None:
        topic = words(topic_words if isinstance(topic_words, str) else " ".join(topic_words))
        if not topic:
            raise ValueError(f"topic_words {topic_words!r} hold no word: give the phrase asked about, or None")
        on_topic = tuple(topic) in _runs(spoken, len(topic))
    if vocabulary is not None:
        if not vocabulary or isinstance(vocabulary, str):
            raise ValueError("vocabulary must be a non-empty set of words, set(words(corpus)), or None")
        known_words = all(word in vocabulary for word in spoken)
    return CleanText(ended=ended, no_loop=not _loops(text), known_words=known_words, on_topic=on_topic)


def _loops(text: str) -> bool:
    text = text.translate(_FULL_WIDTH)
    sentences = [tuple(spoken) for sentence in _SENTENCE_END.split(text) if (spoken := words(sentence))]
    # Within a sentence only: "Close the lock. Lock the door." repeats nothing.
    stutters = any(a == b for sentence in sentences for a, b in zip(sentence, sentence[1:]))
    repeats = len(set(sentences)) < len(sentences)
    circles = any(_most_common_run(sentence) > 1 for sentence in sentences)
    return stutters or repeats or circles or _most_common_run(words(text)) > 4 or bool(_CIRCLE.search(text))


def _most_common_run(spoken: Sequence[str]) -> int:
    """How often the most frequent run of four words occurs."""
    return max(Counter(_runs(spoken, 4)).values(), default=0)


def _runs(spoken: Sequence[str], length: int) -> list[tuple[str, ...]]:
    return [tuple(spoken[i : i + length]) for i in range(len(spoken) - length + 1)]
