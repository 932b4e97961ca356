"""What the site does beyond its extensions: words for the notebooks' pictures, links between a notebook's models and to
source as pages, pictures that lead to larger ones, docstrings as they are written here, the explorers."""

import re
from pathlib import Path

import nbformat
from docutils import nodes
from sphinx import addnodes
from sphinx_external_toc.api import Document, FileItem, GlobItem, TocTree

import steerpaper
from steerpaper import paths
from steerpaper.paper.explorer import explored, explorer_page
from steerpaper.paper.gallery import captions
from steerpaper.paper.page import SHOWN
from steerpaper.paths import write_bytes


def tell_pictures(app, doctree) -> None:
    """A notebook's pictures get the captions of their figures as alternative text. All others are shown at half their
    size, as those are, with a link to the whole."""
    for picture in doctree.findall(nodes.image):
        if "width" not in picture:
            picture["scale"] = 50
    path = app.env.doc2path(app.env.docname)
    if path.suffix == ".ipynb" and path.parent == paths.NOTEBOOKS:  # in the others they are links with words
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


def break_headings(app, doctree) -> None:
    """Of tables that notebooks show: long names of columns and rows break at their underscores."""
    for table in doctree.findall(nodes.raw):
        table[:] = [nodes.Text(re.sub("_(?=[^<>]*</th>)", "_<wbr>", table.astext()))]


def list_models(app, config) -> None:
    """In the contents, the notebooks as executed on another model stand below those that are read first."""
    (notebooks,) = [tree for tree in config.external_site_map.root.subtrees if tree.caption == "Notebooks"]
    for preset in SHOWN:
        if copies := sorted((paths.NOTEBOOKS / preset).glob("*.ipynb")):
            first = f"notebooks/{preset}/{copies[0].stem}"
            below = [TocTree([GlobItem(f"notebooks/{preset}/*")])] if copies[1:] else []
            config.external_site_map[first] = Document(first, below, title=f"on {preset}")
            notebooks.items.append(FileItem(first))


def tell_search(app, doctree) -> None:
    """Search leads to a notebook once; from there links lead to it on other models."""
    if re.match("notebooks/.*/", app.env.docname):
        app.env.metadata[app.env.docname]["nosearch"] = True


def link_to_models(app, doctree, docname) -> None:
    """Below a notebook's title, where it is on other models."""
    folder, _, name = docname.partition("/")
    others = [preset for preset in SHOWN if f"notebooks/{preset}/{name}" in app.env.found_docs]
    if folder == "notebooks" and others:
        told = nodes.paragraph("", "The same on ")
        for preset in others:
            uri = app.builder.get_relative_uri(docname, f"notebooks/{preset}/{name}")
            told += [nodes.Text(", " * (preset != others[0])), nodes.reference("", preset, refuri=uri, internal=True)]
        told += nodes.Text(".")
        title = next(doctree.findall(nodes.title))
        title.parent.insert(title.parent.index(title) + 1, [told])


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
    """The page about the explorer gets the list of those that there are, and that of figures a link to each; only the
    site has them."""
    if docname == "docs/explorer":
        links = [f'<li><a href="../explorer/{preset}.html">{preset}</a></li>' for preset in explored(SHOWN)]
        shown = f"<ul>{''.join(links)}</ul>" if links else "No model has the scores of its edges on record."
        source[0] = source[0].replace("<!-- explorers -->", shown)
    elif docname == "figures/README":
        for preset in explored(SHOWN):
            link = f', <a href="../explorer/{preset}.html">circuits to explore</a>'
            source[0] = source[0].replace(f"<!-- explorer {preset} -->", link)


def write_explorers(app, error) -> None:
    """A page per model beside the site's."""
    for preset in [] if error else explored(SHOWN):
        page = explorer_page(preset, explored(SHOWN))
        write_bytes(Path(app.outdir, "explorer", f"{preset}.html"), page.encode())


def setup(app) -> None:
    app.connect("source-read", list_explorers)
    app.connect("build-finished", write_explorers)
    app.connect("config-inited", list_models, priority=901)  # once docs/toc.yml has been read
    app.connect("doctree-read", tell_pictures)
    app.connect("doctree-read", break_headings)
    app.connect("doctree-read", tell_search)
    app.connect("doctree-resolved", link_to_models)
    app.connect("doctree-resolved", link_to_source)
    app.connect("autodoc-skip-member", only_once)
    app.connect("autodoc-process-docstring", as_written)
