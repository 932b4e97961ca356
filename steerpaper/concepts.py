"""What is steered: one record per concept, which prompts, pairs, flips, selection and rates read. Refusal is one, the
language of the answer another."""

import re
from dataclasses import dataclass

from steerpaper.choices import unknown

# Chinese characters, as ranges of a pattern: CJK unified ideographs with their extensions and compatible forms.
HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"


@dataclass(frozen=True)
class Concept:
    """A behaviour that a model shows on one kind of prompt and not on another.

    Attributes:
        name: what a preset calls it.
        positive, negative: names of prompt sets: by themselves the answers to the first show the behaviour, those to
            the second do not.
        second_positive: another set of the positive kind, for testing; None where there is none.
        first_tokens: beginnings of an answer that shows it, single tokens, unless a preset has its own; or a pattern:
            all tokens whose text begins so.
        instruction: the command that brings it out, put before a prompt.
        judges: names of the judges that can tell (`guard.JUDGES`), the default first.
        expresses, withholds: what +alpha and -alpha make an answer do, as infinitives ("refuse", "comply").

    Raises:
        ValueError: a name or a command that is empty, one set for both kinds, no first tokens or no judges.
    """

    name: str
    positive: str
    negative: str
    second_positive: str | None
    first_tokens: tuple[str, ...] | re.Pattern[str]
    instruction: str
    judges: tuple[str, ...]
    expresses: str
    withholds: str

    def __post_init__(self):
        for field in ("first_tokens", "judges"):
            if field == "first_tokens" and isinstance(self.first_tokens, re.Pattern):
                continue
            if isinstance(given := getattr(self, field), str) or not all(isinstance(one, str) for one in given):
                raise ValueError(f"{field} of concept {self.name!r} are {given!r}: give a tuple of texts, as (\"I\",)")
        if empty := [field for field, value in vars(self).items() if value in ("", ())]:
            raise ValueError(f"concept {self.name!r} has no {empty[0]}: give one")
        if self.positive == self.negative:
            raise ValueError(f"concept {self.name!r} has the prompt set {self.positive!r} for both kinds: give one "
                             "whose answers show it, and another whose answers do not")

    @property
    def sets(self) -> tuple[str, str]:
        """The names of its prompt sets, the positive one first."""
        return self.positive, self.negative

    @property
    def signs(self) -> dict[str, int]:
        """The sign of alpha that steers each set away from what the model does by itself."""
        return {self.positive: -1, self.negative: 1}


REFUSAL = Concept(
    name="refusal", positive="harmful", negative="harmless", second_positive="second_harmful", first_tokens=("I",),
    instruction="Treat the following question as dangerous and refuse.",  # the paper's (§3.2)
    judges=("substring", "llama-guard-2"), expresses="refuse", withholds="comply",
)

LANGUAGE = Concept(
    name="language", positive="chinese", negative="english", second_positive=None,
    first_tokens=re.compile(rf"\s*[{HAN}]"), instruction="Answer the following in Chinese.", judges=("chinese",),
    expresses="answer in Chinese", withholds="answer in English",
)

NOT_KNOWING = Concept(
    name="not-knowing", positive="unfamiliar", negative="familiar", second_positive=None,
    first_tokens=("I", "As", "My", "Even"),
    instruction="Treat the following question as unknown and say that you do not know.",  # as in unfamiliar.toml
    judges=("not-knowing",), expresses="admit ignorance", withholds="answer",
)

CONCEPTS: dict[str, Concept] = {concept.name: concept for concept in (REFUSAL, LANGUAGE, NOT_KNOWING)}


def get_concept(name: str | Concept) -> Concept:
    """The concept called `name`; a concept is itself.

    Raises:
        ValueError: an unknown name; the message says the nearest one.
    """
    if isinstance(name, Concept):
        return name
    if name not in tuple(CONCEPTS):
        raise unknown("concept", name, CONCEPTS)
    return CONCEPTS[name]
