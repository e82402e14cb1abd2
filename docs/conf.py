"""Sphinx's settings. `make docs` builds the pages with warnings as errors."""

import sys
from pathlib import Path

import aioxide

sys.path.insert(0, str(Path(__file__).with_name("_ext")))

project = "aioxide"
author = "the aioxide authors"
copyright = "the aioxide authors"
release = version = aioxide.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.intersphinx", "run_example", "generated_pages"]
exclude_patterns = ["_build", "_generated"]
templates_path: list[str] = []
nitpicky = False

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

# No inventory is downloaded: the build works without the network.
intersphinx_mapping: dict[str, tuple[str, str | None]] = {}

autodoc_typehints = "description"
autodoc_member_order = "bysource"

html_theme = "furo"
html_title = "aioxide"
html_static_path = ["_static"]
html_css_files = ["style.css"]
html_copy_source = False
html_show_sourcelink = False
