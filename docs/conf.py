"""How Sphinx builds these pages: ``make docs``."""

import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import fastgan

project = "fastgan"
release = fastgan.__version__
html_theme = "furo"
html_title = f"fastgan {release}"
html_show_copyright = False
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "none"
napoleon_use_param = False

# sections that our docstrings begin on the line of their text; napoleon knows them on a line of their own only
SECTION = re.compile(r"(Returns|Raises|Shape|Attributes|Precision|Source): (?=\S)")


def fields(app, what, name, obj, options, lines):
    """Make each of these sections a field of reST; its text ends at a blank line or at the next section."""
    made, inside = [], False
    for line in lines:
        if section := SECTION.match(line):
            made += ["", f":{section[1]}:", "    " + line[section.end() :]]
            inside = True
        elif inside and line and not line.endswith(":"):
            made.append("    " + line.strip())
        else:
            made.append(line)
            inside = False
    lines[:] = made


def setup(app):
    # before napoleon, which takes the other sections
    app.connect("autodoc-process-docstring", fields, priority=400)
