"""Other ways to put a request to a model than the one that steering was found on: what stands around it changes, the
request stays."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pandas as pd

from steerpaper import arguments
from steerpaper.choices import unknown
from steerpaper.models.model import Model
from steerpaper.models.template import _ARGUMENTS

SYSTEM = "You are a patient tutor. Answer in plain words."
# French, but for the request: the prompts of public sets come in English, and so do the judge's substrings.
FRENCH = "Bonjour ! Voici ma demande : {prompt} Merci de répondre en anglais."
TURNS = (
    ("What is the capital of France?", "The capital of France is Paris."),
    ("Which month comes after March?", "The month after March is April."),
)
_REQUEST = "Who are you?"


@dataclass(frozen=True)
class Shift:
    """One way to put a request to a model.

    Attributes:
        name: in tables and figures.
        about: what the model reads, in a few words.
        tokens: from a model and the request to token ids, ready for the answer.
        missing: from a model to why it cannot be asked so; "" where it can.
    """

    name: str
    about: str
    tokens: Callable[[Model, str], list[int]]
    missing: Callable[[Model], str]


def shifted(model: Model, prompts: Sequence[str] | pd.DataFrame, shift: str) -> list[list[int]]:
    """Token ids of every prompt under a shift, for `generate`.

    Args:
        prompts: texts; of a table the column `prompt`.
        shift: a name of `SHIFTS`.

    Raises:
        ValueError: an unknown shift, one that this model cannot be asked by, no prompts, or one that is no text or
            spells out a control token.
    """
    if shift not in SHIFTS:
        raise unknown("shift", shift, SHIFTS)
    if why := SHIFTS[shift].missing(model):
        raise ValueError(f"this model cannot be asked by the shift {shift!r}: {why}; `shift_table` says what it can be "
                         "asked by")
    return [SHIFTS[shift].tokens(model, prompt) for prompt in arguments.texts(prompts)]


def shift_table(model: Model) -> pd.DataFrame:
    """Every shift, with why this model cannot be asked so: columns shift, about, missing ("" where it can)."""
    rows = [(shift.name, shift.about, shift.missing(model)) for shift in SHIFTS.values()]
    return pd.DataFrame(rows, columns=["shift", "about", "missing"])


# -- what the model reads ------------------------------------------------------------------------------------

def _raw(model: Model, prompt: str) -> list[int]:
    """The request alone, without a turn around it."""
    return _behind_bos(model, prompt, model.tokenizer(prompt, add_special_tokens=False)["input_ids"])


def _with_system(model: Model, prompt: str) -> list[int]:
    return _conversation(model, [_turn("system", SYSTEM), _turn("user", prompt)])


def _in_french(model: Model, prompt: str) -> list[int]:
    return model.tokenize(FRENCH.format(prompt=prompt))


def _after_turns(model: Model, prompt: str) -> list[int]:
    return _conversation(model, _turns(prompt))


def _turn(role: str, text: str) -> dict[str, str]:
    return {"role": role, "content": text}


def _turns(prompt: str) -> list[dict[str, str]]:
    before = [_turn(role, text) for pair in TURNS for role, text in zip(("user", "assistant"), pair)]
    return [*before, _turn("user", prompt)]


def _conversation(model: Model, turns: list[dict[str, str]]) -> list[int]:
    """Token ids of a conversation, its last turn the request."""
    filled = model.tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=True, **_ARGUMENTS)
    return _behind_bos(model, turns[-1]["content"], list(filled["input_ids"]))


def _behind_bos(model: Model, prompt: str, ids: list[int]) -> list[int]:
    """Behind a BOS where a plain prompt is: SmolLM2's, which opens every turn, is none."""
    bos, plain = model.tokenizer.bos_token_id, model.tokenize(prompt)  # which refuses control tokens in the request
    return [bos, *ids] if plain[0] == bos and plain.count(bos) == 1 and ids[:1] != [bos] else ids


# -- what a model cannot be asked ----------------------------------------------------------------------------

def _text(model: Model, turns: list[dict[str, str]]) -> str | None:
    """A conversation as the template writes it; None where it refuses to."""
    try:
        return model.tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False, **_ARGUMENTS)
    except Exception:  # it is a program, and may raise anything
        return None


def _no_system(model: Model) -> str:
    """A template that writes any role as if it were the user's or the model's own takes no system prompt either."""
    request = _turn("user", _REQUEST)
    text, *others = (_text(model, [_turn(role, SYSTEM), request]) for role in ("system", "user", "assistant"))
    if text is None:
        return "the chat template refuses a system prompt"
    if SYSTEM not in text:
        return "the chat template leaves a system prompt out"
    return "the chat template knows no system prompt, and writes it as another's turn" if text in others else ""


def _no_turns(model: Model) -> str:
    text = _text(model, _turns(_REQUEST))
    if text is None:
        return "the chat template refuses several turns"
    spoken = [turn["content"] for turn in _turns(_REQUEST)]
    return "" if all(each in text for each in spoken) else "the chat template leaves earlier turns out"


def _no_french(model: Model) -> str:
    small = model.preset is not None and model.preset.prompts == "built-in"
    return "the model knows the English words of its corpus only" if small else ""


def _nothing(model: Model) -> str:
    return ""


SHIFTS: dict[str, Shift] = {shift.name: shift for shift in (
    Shift("plain", "the request in the chat template", Model.tokenize, _nothing),
    Shift("no template", "the request as raw text", _raw, _nothing),
    Shift("system prompt", f"behind the system prompt {SYSTEM!r}", _with_system, _no_system),
    Shift("turns before", f"after {len(TURNS)} harmless questions and their answers", _after_turns, _no_turns),
    Shift("French frame", "the request in English, a greeting and the wish for an English answer in French", _in_french,
          _no_french),
)}
