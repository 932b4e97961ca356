"""The site: README, results, figures, notebooks as they are committed, pages, explorers and docstrings. `make site`
builds it."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

project = "steerpaper"
author = copyright = "the steerpaper authors"
extensions = [
    "myst_nb", "sphinx_external_toc", "sphinx.ext.autodoc", "sphinx.ext.napoleon",
    "sphinx.ext.viewcode", "hooks", "terms",
]

# The source is the repository itself, so that a link between its pages is the same here and on GitHub.
include_patterns = [
    "README.md", "RESULTS.md", "docs/*.md", "docs/*.rst", "figures/*.md", "notebooks/*.ipynb", "notebooks/*/*.ipynb",
    "data/organisms/*/README.md",
]
exclude_patterns = ["**/.*", "build", "steerpaper", "tests"]
external_toc_path = "docs/toc.yml"

nb_execution_mode = "off"
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4

autodoc_default_options = {"members": True, "no-value": True, "member-order": "bysource"}
autodoc_typehints = "none"
napoleon_custom_sections = [
    "Returns",  # prose, in which a colon ends no type
    ("Attributes", "params_style"),  # a list
]
default_role = "code"

html_theme = "sphinx_book_theme"
html_title = "steerpaper"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_favicon = "static/icon.svg"
html_context = {"default_mode": "light"}  # figures are drawn for it
html_domain_indices = False
html_theme_options = {"home_page_in_toc": True, "navbar_persistent": []}  # search is at the side
