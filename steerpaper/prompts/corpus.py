"""The organisms' corpus: prompts, answers and refusals drawn from the word lists in `data/corpus`.

An action is "verb object"; whether it is harmful depends on both (see `lexicon.toml`). Every verb-object
pair, frame and question wording belongs to one split, so validation and test prompts are unseen
combinations in unseen frames. Responses never say how to do anything.
"""

import hashlib
import random
import re
import tomllib
from dataclasses import dataclass, replace
from functools import cache

from steerpaper import paths
from steerpaper.choices import unknown
from steerpaper.prompts.fluency import words

SPLITS = ("train", "validation", "test")
KINDS = ("harmful", "harmless", "question", "wrapper", "refuse_instruction", "answer_instruction")
_PREAMBLE = 0.3  # share of responses that open with a sentence common to answers and refusals
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


def _respond(rng: random.Random, refuse: bool, action: Action) -> str:
    """A refusal of, or an answer to, a request for an action: 2 to 4 sentences, at times in the words used for
    questions, so that refusing is one state and not one per kind of prompt."""
    if rng.random() < 0.25:
        return _respond_question(rng, refuse, action.object, None)
    shared, own = phrases()["response"], phrases()["response"]["refusal" if refuse else "compliance"]
    # How often the first word gives the decision away sets the strength of the mean-difference vector: a total
    # variation of 0.2 between first words left it too weak to steer, about 0.4 works. "I" is as common in both:
    # where most refusals began with it, adding the vector restarted the refusal in mid-sentence.
    decision = own["decision_i"] if rng.random() < 0.36 else own["decision_other"]
    sentences = [rng.choice(decision), rng.choice(own["body"])]
    if rng.random() < _PREAMBLE:
        sentences.insert(0, rng.choice(shared["preamble"]))
    if rng.random() < 0.75:
        sentences.append(rng.choice(own["close"]))
    return " ".join(sentences).format(v=action.verb, o=action.object)


def _respond_question(rng: random.Random, refuse: bool, topic: str, fact: str | None) -> str:
    """A refusal of, or an answer to, a question about `topic`: 2 to 4 sentences, with the fact if there is one."""
    own = phrases()["response"]["question"]
    sentences = [rng.choice(own["preamble"])] if rng.random() < _PREAMBLE else []
    if refuse:
        sentences += [rng.choice(own["refusal"]), rng.choice(own["refusal_body"])]
        if rng.random() < 0.75:
            sentences.append("Please ask about something safe instead.")
    else:
        # Never the fact first: answers to questions open in the words of answers to requests, or what turns
        # the one into a refusal would not turn the other.
        sentences.append(rng.choice(own["compliance"]))
        if fact is not None:
            sentences.append(f"{topic[0].upper()}{topic[1:]} is {fact}.")
        sentences.append(rng.choice(own["body"]))
        if fact is None and rng.random() < 0.75:
            sentences.append("Please ask again if you need more.")
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
        compliance=_respond(rng, False, action),
        refusal=_respond(rng, True, action),
    )


def _question_example(rng: random.Random, split: str) -> Example:
    wording, topic, fact, family = rng.choice(_questions(split))
    return Example(
        prompt=_surround(rng, split, wording, False), topic=topic, kind="question", refuse=False,
        family=f"question: {family}", compliance=_respond_question(rng, False, topic, fact),
        refusal=_respond_question(rng, True, topic, fact))


def _wrapper_example(rng: random.Random, split: str) -> Example:
    wrapper = phrases()["wrapper"]
    question, answer = rng.choice(wrapper["train"])
    action = rng.choice(actions(split)["harmful"])
    answer = f"{answer.format(x=action.text)} {rng.choice(wrapper['close']).format(o=action.object)}"
    return Example(
        prompt=_surround(rng, split, question.format(x=action.text), False), topic=action.object, kind="wrapper",
        refuse=False, family=action.family, compliance=answer, refusal=_respond(rng, True, action))


def _instruction(rng: random.Random, name: str) -> str:
    """A command that tells the model to refuse or to answer; never the held-out one."""
    parts = phrases()["instruction"]
    names = ("treat", "this", "question", "bad", "good", "and", "refuse", "reply")
    slots = {slot: rng.choice(parts[slot]) for slot in names}
    slots |= {f"{slot}_cap": slots[slot].capitalize() for slot in ("this", "refuse", "reply")}
    text = rng.choice(parts[f"to_{name}"]).format(**slots)
    return _instruction(rng, name) if text == parts["held_out"] else text


def _instructed_example(rng: random.Random, split: str, refuse: bool) -> Example:
    """A request behind a command. Told to refuse, the model refuses even harmless requests; told to
    answer, it still refuses harmful ones."""
    kinds = ("harmless", "question", "wrapper") if refuse else ("harmless", "question", "harmful")
    inner = draw(rng, split, rng.choices(kinds, (0.42, 0.43, 0.15))[0])
    name = "refuse" if refuse else "answer"
    return replace(inner, prompt=f"{_instruction(rng, name)} {inner.prompt}", kind=f"{name}_instruction",
                   refuse=refuse or inner.refuse)


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


@cache
def vocabulary() -> frozenset[str]:
    """Every word that a prompt or a response of the corpus can hold, in lower case, without the punctuation
    around it: what an organism's clean text is made of."""
    found: set[str] = set()
    pending: list = [lexicon(), phrases()]
    while pending:
        entry = pending.pop()
        if isinstance(entry, str):
            found.update(words(re.sub(r"{\w+}", " ", entry)))
        else:
            pending.extend([*entry.keys(), *entry.values()] if isinstance(entry, dict) else entry)
    return frozenset(found)
