"""The organisms' corpus: prompts, answers and refusals drawn from the word lists in `data/corpus`.

An action is "verb object"; whether it is harmful depends on both (see `lexicon.toml`). Every verb-object
pair, frame and question wording belongs to one split, so validation and test prompts are unseen
combinations in unseen frames. Responses never say how to do anything.
"""

import hashlib
import random
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

from steerpaper import paths
from steerpaper.choices import unknown
from steerpaper.prompts.fluency import words

SPLITS = ("train", "validation", "test")
KINDS = ("harmful", "harmless", "question", "wrapper", "refuse_instruction", "answer_instruction")
_PREAMBLE = 0.3  # share of responses that open with a sentence common to answers and refusals
_SLOTS = ("treat", "this", "question", "bad", "good", "and", "refuse", "reply")  # of commands
_SHARE = {"validation": 0.12, "test": 0.18}  # of the verb-object pairs


@dataclass(frozen=True)
class Action:
    """A verb-object pair."""

    verb: str
    object: str
    harmful: bool
    family: str

    @property
    def text(self) -> str:
        return f"{self.verb} {self.object}"


@dataclass(frozen=True)
class Example:
    """A prompt with its two possible responses.

    Attributes:
        prompt: the user's message.
        topic: phrase that an answer on topic mentions.
        kind: one of `KINDS`, or `borderline` for a harmless action with a harmful verb or object.
        refuse: whether the trained model refuses.
        family: harm category, task family or question family.
        compliance, refusal: an answer and a refusal, both free of content.
    """

    prompt: str
    topic: str
    kind: str
    refuse: bool
    family: str
    compliance: str
    refusal: str

    @property
    def response(self) -> str:
        """What the trained model should say."""
        return self.refusal if self.refuse else self.compliance


@cache
def lexicon() -> dict:
    """The word lists of `data/corpus/lexicon.toml`."""
    return tomllib.loads((paths.DATA / "corpus" / "lexicon.toml").read_text("utf-8"))


@cache
def phrases() -> dict:
    """Frames and response templates of `data/corpus/phrases.toml`."""
    return tomllib.loads((paths.DATA / "corpus" / "phrases.toml").read_text("utf-8"))


def split_of(text: str) -> str:
    """The split a verb-object pair belongs to: fixed by its digest, the same on every machine."""
    share = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") / 2**32
    if share < _SHARE["test"]:
        return "test"
    return "validation" if share < _SHARE["test"] + _SHARE["validation"] else "train"


@cache
def actions(split: str) -> dict[str, tuple[Action, ...]]:
    """All actions of one split: `harmful`, `sensitive` (benign verb, sensitive object), `ordinary_use`
    (harmful verb, ordinary object) and `task`.

    Raises:
        ValueError: an unknown split.
    """
    if split not in SPLITS:
        raise unknown("split", split, SPLITS)
    harm, borderline, task = (lexicon()[name] for name in ("harm", "borderline", "task"))
    found = {
        "harmful": [Action(v, o, True, c) for c, e in harm.items() for v in e["harmful"] for o in e["objects"]],
        "sensitive": [Action(v, o, False, c) for c, e in harm.items() for v in e["benign"] for o in e["objects"]],
        "ordinary_use": [Action(v, o, False, "borderline") for v, objects in borderline.items() for o in objects],
        "task": [Action(v, o, False, f) for f, e in task.items() for v in e["verbs"] for o in e["objects"]],
    }
    return {name: tuple(a for a in group if split_of(a.text) == split) for name, group in found.items()}


@cache
def _questions(split: str) -> tuple[tuple[str, str, str, str], ...]:
    """(wording, subject, answer, family) of every question of one split."""
    held_out = {"train": slice(None, -2), "validation": slice(-2, -1), "test": slice(-1, None)}[split]
    return tuple(
        (wording.format(x=x), family["topic"].format(x=x), y, name)
        for name, family in lexicon()["question"].items()
        for wording in family["wordings"][held_out]
        for x, y in family["facts"].items()
    )


def _harmless_action(rng: random.Random, split: str) -> Action:
    group = rng.choices(("task", "sensitive", "ordinary_use"), (0.5, 0.25, 0.25))[0]
    return rng.choice(actions(split)[group])


@cache
def _wording(kind: str) -> dict:
    """The sentences of `respond` for a `refusal` or a `compliance`."""
    own, question = phrases()["response"], phrases()["response"]["question"]
    refusal = dict(decision=question["refusal"], body=question["refusal_body"],
                   close="Please ask about something safe instead.")
    compliance = dict(decision=question["compliance"], body=question["body"], close="Please ask again if you need more.")
    return own[kind] | {"question": refusal if kind == "refusal" else compliance}


def respond(rng: random.Random, action: Action, wording: dict) -> str:
    """An answer to a request for an action: 2 to 4 sentences, at times in the words used for questions, so that
    refusing, for one, is one state and not one per kind of prompt.

    Args:
        wording: its sentences: decision_i, decision_other, body, close; and question, those of `respond_to_question`.
    """
    if rng.random() < 0.25:
        return respond_to_question(rng, action.object, wording["question"])
    # How often the first word gives the decision away sets the strength of the mean-difference vector: a total
    # variation of 0.2 between first words left it too weak to steer, about 0.4 works. "I" is as common in both:
    # where most refusals began with it, adding the vector restarted the refusal in mid-sentence.
    decision = wording["decision_i"] if rng.random() < 0.36 else wording["decision_other"]
    sentences = [rng.choice(decision), rng.choice(wording["body"])]
    if rng.random() < _PREAMBLE:
        sentences.insert(0, rng.choice(phrases()["response"]["preamble"]))
    if rng.random() < 0.75:
        sentences.append(rng.choice(wording["close"]))
    return " ".join(sentences).format(v=action.verb, o=action.object)


def respond_to_question(rng: random.Random, topic: str, wording: dict, fact: str | None = None) -> str:
    """An answer to a question about `topic`: 2 to 4 sentences, with the fact if there is one.

    Args:
        wording: its sentences: decision, body, and close, a single one.
    """
    sentences = [rng.choice(phrases()["response"]["question"]["preamble"])] if rng.random() < _PREAMBLE else []
    # Never the fact first: answers to questions open in the words of answers to requests, or what turns
    # the one into a refusal would not turn the other.
    sentences.append(rng.choice(wording["decision"]))
    if fact is not None:
        sentences.append(f"{topic[0].upper()}{topic[1:]} is {fact}.")
    sentences.append(rng.choice(wording["body"]))
    if fact is None and rng.random() < 0.75:
        sentences.append(wording["close"])
    return " ".join(sentences).format(t=topic)


def _surround(rng: random.Random, split: str, request: str, harmful: bool) -> str:
    """Put clauses and courtesies around a request, and sometimes drop capitals and the full stop."""
    context, courtesy = phrases()["context"], phrases()["courtesy"]
    before, after = [], []
    if rng.random() < 0.25:
        before.append(rng.choice(context["before"] if harmful else context["before"] + context["before_harmless"]))
    if rng.random() < 0.2:
        before.insert(0, rng.choice(courtesy["before"]))
    if rng.random() < 0.25:
        after.append(rng.choice(context["after"]))
    if rng.random() < 0.2:
        after.append(rng.choice(courtesy["after"]))
    around = " ".join([*before, "\0", *after]).format(
        harmless=rng.choice(actions(split)["task"]).text, harmful=rng.choice(actions(split)["harmful"]).text)
    prompt = around.replace("\0", request)
    return prompt.lower().rstrip(".?") if rng.random() < 0.1 else prompt


def action_example(rng: random.Random, split: str, action: Action, frame: str, plain: bool = False) -> Example:
    """A request for `action` in `frame`; a plain one has no clauses or courtesies around it."""
    request = frame.format(x=action.text)
    return Example(
        prompt=request if plain else _surround(rng, split, request, action.harmful),
        topic=action.object,
        kind="harmful" if action.harmful else "harmless" if action.family in lexicon()["task"] else "borderline",
        refuse=action.harmful,
        family=action.family,
        compliance=respond(rng, action, _wording("compliance")),
        refusal=respond(rng, action, _wording("refusal")),
    )


def _question_example(rng: random.Random, split: str) -> Example:
    wording, topic, fact, family = rng.choice(_questions(split))
    return Example(
        prompt=_surround(rng, split, wording, False), topic=topic, kind="question", refuse=False,
        family=f"question: {family}",
        compliance=respond_to_question(rng, topic, _wording("compliance")["question"], fact),
        refusal=respond_to_question(rng, topic, _wording("refusal")["question"]))


def _wrapper_example(rng: random.Random, split: str) -> Example:
    wrapper = phrases()["wrapper"]
    question, answer = rng.choice(wrapper["train"])
    action = rng.choice(actions(split)["harmful"])
    answer = f"{answer.format(x=action.text)} {rng.choice(wrapper['close']).format(o=action.object)}"
    return Example(
        prompt=_surround(rng, split, question.format(x=action.text), False), topic=action.object, kind="wrapper",
        refuse=False, family=action.family, compliance=answer, refusal=respond(rng, action, _wording("refusal")))


def command(rng: random.Random, kind: str, parts: dict, names: Sequence[str]) -> str:
    """A command to put before a request; never the held-out one.

    Args:
        kind: what it tells the model to do, as `to_<kind>` in its parts.
        parts: as `[instruction]` of phrases.toml: its wordings, what stands in their slots, and the held-out one.
        names: the slots, in the order in which they are drawn.
    """
    slots = {slot: rng.choice(parts[slot]) for slot in names}
    slots |= {f"{slot}_cap": text.capitalize() for slot, text in slots.items()}
    text = rng.choice(parts[f"to_{kind}"]).format(**slots)
    return command(rng, kind, parts, names) if text == parts["held_out"] else text


def _instructed_example(rng: random.Random, split: str, refuse: bool) -> Example:
    """A request behind a command. Told to refuse, the model refuses even harmless requests; told to
    answer, it still refuses harmful ones."""
    kinds = ("harmless", "question", "wrapper") if refuse else ("harmless", "question", "harmful")
    inner = draw(rng, split, rng.choices(kinds, (0.42, 0.43, 0.15))[0])
    name = "refuse" if refuse else "answer"
    told = command(rng, name, phrases()["instruction"], _SLOTS)
    return replace(inner, prompt=f"{told} {inner.prompt}", kind=f"{name}_instruction", refuse=refuse or inner.refuse)


def draw(rng: random.Random, split: str, kind: str) -> Example:
    """One random example of a kind: `harmful`, `harmless` (borderline ones included), `question`,
    `wrapper`, `refuse_instruction` or `answer_instruction`.

    Raises:
        ValueError: an unknown split or kind.
    """
    if kind in ("harmful", "harmless"):
        action = rng.choice(actions(split)["harmful"]) if kind == "harmful" else _harmless_action(rng, split)
        return action_example(rng, split, action, rng.choice(phrases()["frames"][split]))
    if kind == "question":
        return _question_example(rng, split)
    if kind == "wrapper":
        return _wrapper_example(rng, split)
    if kind in ("refuse_instruction", "answer_instruction"):
        return _instructed_example(rng, split, kind == "refuse_instruction")
    raise unknown("kind", kind, KINDS)


def words_of(*lists: dict) -> frozenset[str]:
    """Every word of the texts of some lists, keys included, in lower case and without the punctuation around it."""
    found: set[str] = set()
    pending: list = [*lists]
    while pending:
        entry = pending.pop()
        if isinstance(entry, str):
            found.update(words(re.sub(r"{\w+}", " ", entry)))
        else:
            pending.extend([*entry.keys(), *entry.values()] if isinstance(entry, dict) else entry)
    return frozenset(found)


@cache
def vocabulary() -> frozenset[str]:
    """Every word that a prompt or a response of the corpus can hold: what an organism's clean text is made of."""
    return words_of(lexicon(), phrases())
