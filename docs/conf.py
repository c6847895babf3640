"""How the documentation is built: ``sphinx-build -W docs docs/_build/html``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert

import mnm_rl

DOCS = Path(__file__).parent

project = "mnm-rl"
author = "the authors of mnm-rl"
release = version = mnm_rl.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
exclude_patterns = ["_build", "draw_*.py"]
html_theme = "furo"
html_title = f"mnm-rl {release}"
html_copy_source = False

html_math_renderer = "mathml"
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 4
nb_execution_mode = "auto"
nb_execution_timeout = 300
nb_execution_raise_on_error = True
nb_merge_streams = True

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True


def leave_out_links_to_the_repository(app: Any, name: str, source: list[str]) -> None:
    """Files outside of docs/ are no pages here: what links to them becomes their path."""

    def replaced(match: re.Match[str]) -> str:
        text, target = match["text"], match["target"].partition("#")[0]
        path = ((DOCS / name).parent / target).resolve()
        if path.is_relative_to(DOCS.resolve()) or not path.is_relative_to(DOCS.parent.resolve()):
            return match[0]
        shown = f"`{path.relative_to(DOCS.parent.resolve())}`"
        return shown if text.strip("`") in shown else f"{text} ({shown})"

    source[0] = re.sub(r"(?<!!)\[(?P<text>[^\]]+)\]\((?P<target>\.\.?/[^)\s]*)\)", replaced, source[0])


def markdown_to_rest(app: Any, what: str, name: str, it: object, options: object, lines: list[str]) -> None:
    """Tables, headings and drawings of docstrings in Markdown, as Gymnasium's environments have them."""
    if not any(line.lstrip().startswith("|--") for line in lines):
        return
    found: list[str] = []
    for number, line in enumerate(lines):
        heading = re.match(r"## (.*)", line)
        before, after = lines[number - 1 : number], lines[number + 1 : number + 2]
        if heading:
            found.append(f".. rubric:: {heading[1]}")
        elif line.startswith("|"):
            if before and not before[0].startswith("|"):
                found += [".. list-table::", "   :header-rows: 1", ""]
            if not line.startswith("|--"):
                first, *rest = (cell.strip() for cell in line.strip("|").split("|"))
                found += [f"   * - {first}", *(f"     - {cell}" for cell in rest)]
        elif line.endswith(":") and after == [""] and lines[number + 2].startswith("    "):
            found.append(f"{line}:")
        else:
            found.append(line)
    lines[:] = found


def write_inline_math(self: Any, node: nodes.math) -> None:
    """As MathML, which browsers draw by themselves: a page needs nothing from elsewhere."""
    self.body.append(convert(node.astext()))
    raise nodes.SkipNode


def write_block_math(self: Any, node: nodes.math_block) -> None:
    """See :func:`write_inline_math`."""
    self.body.append(f"<p>{convert(node.astext(), display='block')}</p>")
    raise nodes.SkipNode


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.add_html_math_renderer("mathml", (write_inline_math, None), (write_block_math, None))
    app.connect("autodoc-process-docstring", markdown_to_rest)
    app.connect("source-read", leave_out_links_to_the_repository)
