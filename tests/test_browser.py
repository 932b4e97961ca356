"""The site in a browser, as wide as a phone and as a screen: the one that `make site` has made, or one built here."""

import contextlib
import functools
import re
import shutil
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

for package in ("sphinx", "myst_nb", "altair", "playwright"):
    pytest.importorskip(package, reason="make site installs what it needs")

from built_site import build_site  # noqa: E402
from playwright.sync_api import expect, sync_playwright  # noqa: E402

from steerpaper import paths  # noqa: E402

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(not BROWSER, reason="no browser here: apt-get install chromium")

NOTEBOOKS = sorted(str(path.relative_to(paths.NOTEBOOKS).with_suffix("")) for pattern in ("*.ipynb", "[!.]*/*.ipynb")
                   for path in paths.NOTEBOOKS.glob(pattern))
SIDEWAYS = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
UNSEEN = """[...document.querySelectorAll('article img')].filter(
    img => !img.complete || !img.naturalWidth || img.alt.trim().split(/\\s+/).length < 4).map(img => img.src)"""

# Code that is cut, tables that go on without a sign of it, and figures whose labels are too small.
CUT = "[...document.querySelectorAll('article pre')].filter(e => e.scrollWidth > e.clientWidth).map(e => e.textContent)"
UNMARKED = """[...document.querySelectorAll('article table')].map(table => table.parentElement).filter(
    e => e.scrollWidth > e.clientWidth && (getComputedStyle(e).overflowX != 'auto'
    || !getComputedStyle(e).backgroundImage.includes('gradient'))).map(e => e.textContent)"""
SMALL = """[...document.querySelectorAll('article img')].filter(
    img => img.getBoundingClientRect().width < Math.min(640, img.naturalWidth / 2) - 1).map(img => img.src)"""


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The site that `make site` has made, unless it is older than what it is made of."""
    made, made_of = paths.BUILD / "site", ("README.md", "RESULTS.md", "docs", "figures", "notebooks", "steerpaper")
    files = [file for name in made_of for file in (paths.ROOT / name, *(paths.ROOT / name).rglob("*")) if file.is_file()]
    index, newest = made / "index.html", max(file.stat().st_mtime for file in files if "__pycache__" not in file.parts)
    if index.is_file() and index.stat().st_mtime > newest:
        return made
    return build_site(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def address(folder):
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder)) as server:
        server.handle_error = lambda *_: None  # of a page that is left before it is read
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(params=[390, 1280], ids=["phone", "screen"])
def page(request, browser, address):
    """A page of the site's; it must not complain. What it asks of other sites (MathJax) is answered with nothing."""
    complaints, size = [], {"width": request.param, "height": 900}
    with contextlib.closing(browser.new_context(viewport=size, base_url=address)) as made:
        made.route(lambda url: not url.startswith(address), lambda route: route.fulfill(body=""))
        page = made.new_page()
        page.on("console", lambda message: message.type in ("error", "warning") and complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        yield page
    assert not complaints


def fits(page) -> bool:
    """On a screen, code is not cut; tables and figures can be read on either."""
    wanted = [UNMARKED, SMALL] + [CUT] * (page.viewport_size["width"] > 640)
    found = [one for fault in wanted for one in page.evaluate(fault)]
    assert not found, page.url
    return page.evaluate(SIDEWAYS) == 0


def drawn(page) -> int:
    """Lines in the explorer's circuit."""
    return page.locator("#circuit svg").locator("g.mark-rule > line, g.mark-line > path").count()


def test_home(page):
    page.goto("")
    expect(page).to_have_url(re.compile("README"))  # where the first page leads
    expect(page.locator("article h2").first).to_contain_text("What was found")
    assert page.locator("article img").count() and not page.evaluate(UNSEEN)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_shows_its_figures(page, name):
    page.goto(f"notebooks/{name}.html", wait_until="load")
    text = (paths.NOTEBOOKS / f"{name}.ipynb").read_text("utf-8")  # one that ended at once has none
    assert page.locator("article img").count() == text.count('"image/png": "') + text.count('"![')
    assert not page.evaluate(UNSEEN)
    assert fits(page)
    given = page.locator(".tag_injected-parameters")  # of the cells that name the preset, one is shown
    expect(page.locator(".tag_parameters")).to_be_visible(visible=not given.count())


def test_a_reader_goes_from_a_notebook_to_the_same_on_another_model_and_to_its_figures(page):
    page.goto("notebooks/03_qk_freeze.html")
    page.get_by_role("link", name="organism-gemma2", exact=True).first.click()
    expect(page.locator("article h1")).to_contain_text("Freezing attention, on organism-gemma2")
    page.get_by_role("link", name="on one page").click()
    expect(page.locator("article h1")).to_contain_text("Figures of organism-gemma2")


def test_no_page_scrolls_sideways(page, folder):
    pages = [path for pattern in ("[!i]*.html", "docs/*.html", "figures/*.html", "data/**/*.html", "explorer/*.html")
             for path in folder.glob(pattern)]
    wide = []
    for path in pages:
        page.goto(str(path.relative_to(folder)), wait_until="load")
        wide += [] if fits(page) else [path.name]
    assert not wide and len(pages) > 20


def test_search_finds_what_a_word_is(page):
    page.goto("search.html?q=steering+value+vector")
    found = page.locator("#search-results li a")
    expect(found.filter(has_text="OV decomposition")).to_have_count(1)
    expect(found.filter(has_text="Glossary")).not_to_have_count(0)


@pytest.fixture
def explorer(page, folder):
    pages = sorted(folder.glob("explorer/*.html"))
    if not pages:
        pytest.skip("no model has the scores of its edges on record")
    page.goto("docs/explorer.html")
    page.locator("article a[href*='../explorer/']").first.click()
    expect(page.locator("#harmless svg")).to_be_visible()
    return page


def test_the_explorer_draws_what_is_chosen(explorer):
    few = drawn(explorer)
    explorer.get_by_role("slider", name="edges").fill("300")
    expect(explorer.locator("#harmful svg")).to_contain_text("DIM: 0.")
    expect(explorer.locator("#harmful svg")).to_contain_text("at 300 edges, interpolated")
    many = drawn(explorer)
    assert many > few
    explorer.get_by_role("combobox", name="method").select_option("PO")
    expect(explorer.locator("#harmful svg")).to_contain_text("PO: 0.")
    explorer.get_by_role("combobox", name="compared with").select_option("DIM")
    for words in ("only in PO's", "only in DIM's", "in both"):
        expect(explorer.locator("#circuit svg")).to_contain_text(words)
    assert drawn(explorer) > many


def test_the_explorer_tells_names_and_keeps_a_node_s_edges(explorer):
    every = drawn(explorer)
    node = explorer.get_by_label("node: steer;")
    node.hover()
    words = explorer.locator("#vg-tooltip-element")
    expect(words).to_contain_text("steered by")
    expect(words).to_be_in_viewport(ratio=1)
    expect(words).to_contain_text("edges out of it")
    expect(words).not_to_contain_text("edges into it")  # there are none
    node.click()
    expect(explorer.locator("#told")).to_contain_text("node: steer; steered by: DIM; in the circuit: from")
    expect(explorer.locator("#told")).to_be_in_viewport(ratio=1)
    expect(node).to_have_attribute("stroke-width", "2")
    assert 0 < drawn(explorer) < every


def test_the_explorer_shows_an_organism_s_circuit_whole(page, folder):
    for path in folder.glob("explorer/organism-*.html"):
        page.goto(f"explorer/{path.name}")
        expect(page.locator("#circuit svg")).to_be_visible()
        assert page.locator(".wide").evaluate("e => e.scrollWidth - e.clientWidth") <= 0
