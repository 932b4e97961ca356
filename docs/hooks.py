"""What the site does beyond its extensions: words for the notebooks' pictures, links to source as pages, docstrings as
they are written here, the explorers."""

import re
from pathlib import Path

import nbformat
from docutils import nodes
from sphinx import addnodes

import steerpaper
from steerpaper.paper.explorer import explored, explorer_page
from steerpaper.paper.gallery import captions
from steerpaper.paper.page import SHOWN
from steerpaper.paths import write_bytes


def tell_pictures(app, doctree) -> None:
    """A notebook's pictures get the captions of their figures as alternative text."""
    path = app.env.doc2path(app.env.docname)
    if path.suffix == ".ipynb":
        for picture, name in zip(doctree.findall(nodes.image), _pictures(path), strict=True):
            picture["alt"] = captions()[name]["shows"]


def _pictures(path) -> list[str]:
    """The names of a notebook's pictures, in order: as `save_figure` has noted them, or as its call has them."""
    found = []
    for cell in nbformat.read(path, as_version=4).cells:
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                noted = output.metadata.get("image/png", {}).get("alt") or ""
                called = re.findall(r'save_figure\(.*?"(\w+)"\)', cell.source)
                found.append(noted.replace(" ", "_") or called[0])
    return found


def link_to_source(app, doctree, docname) -> None:
    """A link to a module of the package leads to its page where it has one, instead of downloading it."""
    pages = getattr(app.env, "_viewcode_modules", {})
    for node in list(doctree.findall(addnodes.download_reference)):
        module = re.search(r"(?:^|/)(steerpaper/\w+(?:/\w+)*)\.py$", node["reftarget"])
        if module and pages.get(module[1].replace("/", ".")):
            uri = app.builder.get_relative_uri(docname, f"_modules/{module[1]}")
            node.replace_self(nodes.reference("", "", *node.children, refuri=uri, internal=True))


def only_once(app, what, name, obj, skip, options) -> bool | None:
    """What `steerpaper` takes from a room is described in that room, and listed where it is exported."""
    inside = app.env.current_document.autodoc_module
    return True if what == "module" and inside == "steerpaper" and _room(obj) != inside else None


def _room(obj) -> str:
    """The package that describes an object."""
    package, _, rest = getattr(obj, "__module__", "steerpaper").partition(".")
    return f"{package}.{rest.split('.')[0]}" if "." in rest else package


def as_written(app, what, name, obj, options, lines) -> None:
    """Of the whole package, a list of what it exports. In any docstring |α| is no substitution."""
    if name == "steerpaper":
        exported = [f":py:obj:`{one} <{_room(getattr(steerpaper, one))}.{one}>`" for one in steerpaper.__all__]
        lines += ["", ", ".join(exported), ""]
    for i, line in enumerate(lines):
        parts = line.split("`")
        parts[::2] = [part.replace("|", "\\|") for part in parts[::2]]
        lines[i] = "`".join(parts)


def list_explorers(app, docname, source) -> None:
    """The page about the explorer gets the list of those that there are; only the site has them."""
    if docname == "docs/explorer":
        links = [f'<li><a href="../explorer/{preset}.html">{preset}</a></li>' for preset in explored(SHOWN)]
        shown = f"<ul>{''.join(links)}</ul>" if links else "No model has the scores of its edges on record."
        source[0] = source[0].replace("<!-- explorers -->", shown)


def write_explorers(app, error) -> None:
    """A page per model beside the site's."""
    for preset in [] if error else explored(SHOWN):
        page = explorer_page(preset, explored(SHOWN))
        write_bytes(Path(app.outdir, "explorer", f"{preset}.html"), page.encode())


def setup(app) -> None:
    app.connect("source-read", list_explorers)
    app.connect("build-finished", write_explorers)
    app.connect("doctree-read", tell_pictures)
    app.connect("doctree-resolved", link_to_source)
    app.connect("autodoc-skip-member", only_once)
    app.connect("autodoc-process-docstring", as_written)
