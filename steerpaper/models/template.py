"""The chat template: what it makes of a prompt, which token closes an answer, and whether it fits the model."""

import re
from os.path import commonprefix

# Llama 3's template prints today's date unless told otherwise, Qwen 3's opens a chain of thought.
_ARGUMENTS = {"date_string": "26 Jul 2024", "enable_thinking": False}
_PROMPT, _ANSWER = "Who are you?", "Nobody you know."
_OPEN_THOUGHT = re.compile(r"[<\[]\|?(think\w*|thought\w*|reason\w*)\|?[>\]](?!.*/\|?\1)", re.IGNORECASE | re.DOTALL)


class ChatTemplate:
    """The template of a tokenizer, as the tokenizer has it when asked: there may be none."""

    def __init__(self, tokenizer):
        self.tokenizer, self._added = tokenizer, tokenizer.added_tokens_decoder

    def tokenize(self, prompt: str) -> list[int]:
        """See `Model.tokenize`."""
        if self.tokenizer.chat_template is None:
            raise ValueError("the tokenizer has no chat template: pass lists of token ids, not strings")
        if found := self._controls(self._plain(prompt), prompt):
            token = self._added[found[0]].content
            why = ("begins a text and cannot stand in one" if token == self.tokenizer.bos_token else
                   "is a control token of the model's conversations and cannot stand in a prompt")
            raise ValueError(f"{token!r} {why}: take it out of the prompt {prompt[:60]!r}")
        ids, bos = self._filled(prompt), self.tokenizer.bos_token_id
        adds_bos = bos is not None and bos not in ids and self.tokenizer("x")["input_ids"][:1] == [bos]
        return [bos, *ids] if adds_bos else ids

    def check(self, n_rows: int) -> None:
        """That it writes a prompt out, in tokens that are among the `n_rows` of the embedding.

        Raises:
            ValueError: it does not, or it cannot be filled.
        """
        if self.tokenizer.chat_template is None:
            return
        where = f"the chat template of {self.tokenizer.name_or_path} (chat_template.jinja or tokenizer_config.json)"
        instead = "correct it, or take it out and pass lists of token ids"
        try:
            text, ids = self._filled(_PROMPT, tokenize=False), self.tokenize(_PROMPT)
        except Exception as error:  # it is a program, and may raise anything
            raise ValueError(f"{where} fails on one user turn ({type(error).__name__}: {error}): {instead}") from error
        if _PROMPT not in text:
            raise ValueError(f"{where} leaves the prompt out: of {_PROMPT!r} it makes {text!r}. If it is written for "
                             "messages in parts ([{'type': 'text', 'text': ...}]), let it write message['content'], "
                             f"which is text here; else {instead}")
        if max(ids) >= n_rows:
            token = self.tokenizer.convert_ids_to_tokens(max(ids))
            raise ValueError(f"{where} writes {token!r} (id {max(ids)}), but the embedding has {n_rows} rows: the "
                             "tokenizer is of another model, or the embedding was not resized to it")

    def closing_token(self) -> int | None:
        """The control token that follows an answer in a conversation, where the template writes one.

        None, too, where it writes answers otherwise than its generation prompt begins them.
        """
        if self.tokenizer.chat_template is None:
            return None
        turn = {"role": "assistant", "content": _ANSWER}
        asked, unasked = self._filled(_PROMPT), self._filled(_PROMPT, add_generation_prompt=False)
        try:
            answered = self._filled(_PROMPT, turn, add_generation_prompt=False)
            text = self._filled(_PROMPT, turn, add_generation_prompt=False, tokenize=False)
        except Exception:  # it is a program, and may refuse answers: then it closes none
            return None
        as_begun = asked == unasked or len(commonprefix([asked, answered])) > len(commonprefix([asked, unasked]))
        _, found, rest = text.rpartition(_ANSWER)
        return next(iter(self._controls(self._plain(rest), rest)), None) if found and as_begun else None

    def concerns(self, end_tokens: list[int]) -> list[str]:
        """What a person should know of a model with these end tokens."""
        found = []
        if not end_tokens:
            found.append("neither does the checkpoint name an end token, nor does its chat template close an answer "
                         "with a control token: every answer runs on to max_new_tokens, into turns that the model "
                         "invents. Set eos_token_id in generation_config.json to the token that ends an answer")
        if self.tokenizer.chat_template is not None:
            begun = self._filled(_PROMPT, tokenize=False).rpartition(_PROMPT)[2]
            if thought := _OPEN_THOUGHT.search(begun):
                tag = thought[0]
                closed = f"{tag}\n\n{tag[0]}/{tag[1:]}\n\n"
                found.append(f"the chat template opens a chain of thought, {tag!r}, and leaves it to the model to "
                             "close it: what is generated, judged and attributed is reasoning first. To have the "
                             f"answer alone, let the template itself close it, {closed!r}")
        return found

    def _filled(self, prompt: str, *others: dict, add_generation_prompt: bool = True, tokenize: bool = True):
        """Token ids, or text, of a conversation."""
        filled = self.tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}, *others], add_generation_prompt=add_generation_prompt,
            tokenize=tokenize, return_dict=tokenize, **_ARGUMENTS)
        return list(filled["input_ids"]) if tokenize else filled

    def _plain(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def _controls(self, ids: list[int], text: str) -> list[int]:
        """Those of the ids of a text, in their order, that are control tokens: the special ones, and added ones that
        the template writes (fine-tuned models often leave these unmarked)."""
        template = self.tokenizer.get_chat_template()

        def is_control(token: str, special: bool) -> bool:
            if token == self.tokenizer.unk_token and token not in text:  # stands for a character unknown here
                return False
            return special or bool(token.strip()) and token in template
        known = {i: self._added[i] for i in self._added.keys() & set(ids)}
        controls = {i for i, token in known.items() if is_control(token.content, token.special)}
        return [i for i in ids if i in controls] if controls else []

