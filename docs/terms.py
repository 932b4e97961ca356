"""The glossary's terms in all other pages: the first time that a page uses one, it leads to the glossary and tells on
hovering what it means."""

import re
from functools import cache
from pathlib import Path

from docutils import nodes

_GLOSSARY = Path(__file__).with_name("glossary.md")
_ENTRY = re.compile(r"^### ([\w -]+)\n\n(.+?)(?=\n\n|\Z)", re.MULTILINE | re.DOTALL | re.ASCII)  # of a single term
_NOT_IN = (nodes.reference, nodes.literal, nodes.math, nodes.raw)


@cache
def terms() -> dict[str, str]:
    """What each term means, as text, by the term as its heading has it; without the links to the package at the end."""
    found = {}
    for term, words in _ENTRY.findall(_GLOSSARY.read_text("utf-8")):
        words = re.sub(r"(,? ?\[`[^]]*`\]\([^)]*\))+$", "", " ".join(words.split()))
        found[term] = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", words).replace("`", "").replace("*", "").strip()
    return found


def explain_terms(app, doctree, docname) -> None:
    """Link every term where a page uses it first, not counting headings, code and other links."""
    if docname in ("docs/glossary", "docs/api"):
        return
    left = {_pattern(term): term for term in sorted(terms(), key=len, reverse=True)}
    uri = app.builder.get_relative_uri(docname, "docs/glossary")
    for paragraph in list(doctree.findall(nodes.paragraph)):
        for text in list(paragraph.findall(nodes.Text)):
            if not any(isinstance(node, _NOT_IN) for node in _around(text)):
                text.parent.replace(text, _linked(str(text), left, uri))


def _pattern(term: str) -> str:
    """Where a term stands, in the plural, too; as an abbreviation only as it is written."""
    first = f"[{term[0].upper()}{term[0].lower()}]" if term[1:].islower() else term[0]
    return rf"(?<![\w-]){first}{re.escape(term[1:])}s?(?![\w-])"


def _around(node: nodes.Node) -> list[nodes.Node]:
    """What a node stands in."""
    return [] if node.parent is None else [node.parent, *_around(node.parent)]


def _linked(text: str, left: dict[str, str], uri: str) -> list[nodes.Node]:
    """A text with links at the terms that are left, which are taken from these."""
    found = [(match, pattern) for pattern in left if (match := re.search(pattern, text))]
    if not found:
        return [nodes.Text(text)]
    match, pattern = min(found, key=lambda one: (one[0].start(), -len(one[0][0])))
    term = left.pop(pattern)
    link = nodes.reference("", match[0], refuri=f"{uri}#{nodes.make_id(term)}", reftitle=terms()[term], internal=True,
                           classes=["term"])
    return [nodes.Text(text[:match.start()]), link, *_linked(text[match.end():], left, uri)]


def setup(app) -> None:
    app.connect("doctree-resolved", explain_terms)
