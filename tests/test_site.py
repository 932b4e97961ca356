"""The site builds without a warning from what is committed; no link of it is dead, and every picture is told in words."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

for package in ("sphinx", "myst_nb", "sphinx_book_theme", "sphinx_external_toc", "altair", "vl_convert"):
    pytest.importorskip(package, reason="make site installs what it needs")

from bs4 import BeautifulSoup  # noqa: E402, comes with the theme

import steerpaper  # noqa: E402
from built_site import build_site  # noqa: E402
from steerpaper.outputs import outputs  # noqa: E402
from steerpaper.paper.explorer import explored  # noqa: E402
from steerpaper.paper.page import SHOWN  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
COPIES = sorted((ROOT / "notebooks").glob("[!.]*/*.ipynb"))  # as executed on other models


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Its pages by their path."""
    folder = build_site(tmp_path_factory.mktemp("site"))
    return folder, {path: BeautifulSoup(path.read_text("utf-8"), "html.parser") for path in folder.rglob("*.html")
                    if "_static" not in path.parts}


def test_everything_is_there(site):
    folder, pages = site
    names = {str(path.relative_to(folder)) for path in pages}
    wanted = {"index", "README", "RESULTS", "docs/api", "figures/README", *(f"notebooks/{name}" for name in outputs())}
    wanted |= {f"{path.parent.name}/{path.stem}" for kind in ("docs", "figures") for path in (ROOT / kind).glob("*.md")}
    wanted |= {f"notebooks/{path.parent.name}/{path.stem}" for path in COPIES}
    assert {f"{name}.html" for name in wanted} <= names
    assert "README.html" in (folder / "index.html").read_text()
    listed = {link["href"].partition("#")[0] for link in pages[folder / "README.html"].select("nav.bd-links a")}
    assert {f"{name}.html" for name in wanted} - listed == {"index.html", "README.html"}  # the rest is in the contents


def links(page, folder) -> set[Path]:
    """Where the links of a page's text lead."""
    return {(folder / unquote(link["href"]).partition("#")[0]).resolve() for link in page.select("article a[href]")}


def test_a_notebook_leads_to_the_same_on_other_models(site):
    folder, pages = site
    assert COPIES
    for path in COPIES:
        read, copy, figures = (folder / f"{name}.html" for name in (
            f"notebooks/{path.stem}", f"notebooks/{path.parent.name}/{path.stem}", f"figures/{path.parent.name}"))
        assert copy in links(pages[read], read.parent) and {read, figures} <= links(pages[copy], copy.parent)
        assert pages[copy].h1.text.rstrip("#").endswith(f", on {path.parent.name}")
        assert copy in links(pages[figures.with_name("README.html")], figures.parent)


def test_in_the_contents_notebooks_on_other_models_stand_below_those_that_are_read_first(site):
    folder, pages = site
    (part,) = [words.find_next_sibling("ul") for words in pages[folder / "README.html"].select("nav.bd-links p.caption")
               if words.text.strip() == "Notebooks"]
    for preset in {path.parent.name for path in COPIES}:
        (below,) = [link.find_parent("li") for link in part.select("a") if link.text.strip() == f"on {preset}"]
        assert [link["href"] for link in below.select("a[href]")] == [
            f"notebooks/{preset}/{path.stem}.html" for path in COPIES if path.parent.name == preset]


def test_the_figures_lead_to_the_explorers(site):
    folder, pages = site
    found = links(pages[folder / "figures" / "README.html"], folder / "figures")
    assert explored(SHOWN) and {folder / "explorer" / f"{preset}.html" for preset in explored(SHOWN)} <= found


def test_no_link_is_dead(site):
    folder, pages = site
    ids = {path: {tag["id"] for tag in page.find_all(id=True)} for path, page in pages.items()}
    dead, seen = [], 0
    for path, page in pages.items():
        for tag in page.find_all(["a", "img", "link", "script"]):
            url = urlsplit(tag.get("href") or tag.get("src") or "#")
            if url.scheme or url.netloc or url.geturl() in ("", "#"):
                continue
            target, seen = (path.parent / unquote(url.path)).resolve() if url.path else path, seen + 1
            if not target.is_file() or (url.fragment and target in ids and unquote(url.fragment) not in ids[target]):
                dead.append((str(path.relative_to(folder)), url.geturl()))
    assert not dead and seen > 1000


def test_every_picture_is_told_in_words(site):
    folder, pages = site
    pictures = [(path.stem, img) for path, page in pages.items() for img in page.select("article img")]
    assert len(pictures) > 60
    assert not [name for name, img in pictures if len(img.get("alt", "").split()) < 4]


def test_every_picture_leads_to_the_whole_one(site):
    folder, pages = site
    for path, page in pages.items():
        for img in page.select("article img"):
            assert img.parent.name == "a" and img.parent["href"].endswith((".png", ".svg")), (path.stem, img["alt"])


def test_every_figure_and_table_of_the_paper_is_a_link(site):
    folder, pages = site
    names = pages[folder / "docs" / "figures.html"].select("table code")
    assert len(names) > 20 and not [name.text for name in names if not name.find_parent("a")]


def test_the_package_is_described_once(site):
    folder, pages = site
    page = pages[folder / "docs" / "api.html"]
    described = [tag["id"] for tag in page.select("dt.sig[id]")]
    assert len(described) == len(set(described))
    linked = {link.text for link in page.select("p a.reference.internal") if link["href"][1:] in described}
    assert linked >= {name for name in steerpaper.__all__ if callable(getattr(steerpaper, name))}  # tables: not described
    assert {"steerpaper.heads.attention_change", "steerpaper.circuits.attribute", "steerpaper.Steering"} <= set(described)


def test_the_glossary_begins_with_all_its_terms(site):
    folder, pages = site
    page = pages[folder / "docs" / "glossary.html"]
    terms = [heading.parent["id"] for heading in page.select("article h3")]
    listed = [link["href"][1:] for link in page.select("article section > p a[href^='#']")]
    assert len(terms) > 30 and sorted(terms) == sorted(listed[:len(terms)])


def test_the_glossary_leads_to_the_source(site):
    folder, pages = site
    links = [tag["href"] for tag in pages[folder / "docs" / "glossary.html"].select("article a[href]")]
    assert len([link for link in links if link.startswith("../_modules/steerpaper/")]) > 30


def test_terms_of_the_glossary_are_told_where_a_page_uses_them_first(site):
    folder, pages = site
    told = {path: page.select("article a.term[title]") for path, page in pages.items()}
    home = {link.text: link for link in told[folder / "README.html"]}
    assert home["ASR"]["href"] == "docs/glossary.html#asr" and home["ASR"]["title"].startswith("Attack success rate")
    for path, found in told.items():
        wanted = [link["href"].partition("#")[2] for link in found]
        assert len(wanted) == len(set(wanted)), path  # once a page
        assert all(link.find_parent(["h1", "h2", "h3", "code", "pre"]) is None for link in found), path
    everywhere = {link["href"].partition("#")[2]: link["title"] for found in told.values() for link in found}
    assert len(everywhere) > 25 and not any("](" in words or "`" in words for words in everywhere.values())
    assert not told[folder / "docs" / "glossary.html"]
