"""The one dialect of all docstrings, as far as ruff's D rules cannot hold it."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("mnm_rl", "agents", "envs")
FILES = sorted({path.resolve() for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")})
ALLOWED = re.compile(r"``.+?``|:[a-z]+:`[^`]+`", re.DOTALL)


def docstrings(source: str) -> Iterator[tuple[int, str]]:
    """Line and text of every docstring, those of attributes included: strings that stand for themselves."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Expr(value=ast.Constant(value=str(text), lineno=line)):
                yield line, text


def faults(source: str) -> list[str]:
    found = []
    for line, text in docstrings(source):
        if "`" in ALLOWED.sub("", text):
            found.append(f"line {line}: code is set in ``double backticks``, a reference as :func:`name`")
        if re.match(r"\s*Returns?\s", text):
            found.append(f"line {line}: the summary says what comes back, without 'Return'")
    return found


def test_there_are_files():
    assert {"a2c.py", "maze.py", "mnm.py"} <= {path.name for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_docstrings_speak_one_dialect(path):
    assert faults(path.read_text()) == []


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("The size of ``x``, see :func:`draw` and :class:`~a.B`.", 0),
        ("The size of `x`.", 1),
        ("Code over ``two\nlines``.", 0),
        ("Return the size.", 1),
        ("Returns the size of `x`.", 2),
        ("Returning is not possible.", 0),
        ("A number.\n\nReturns:\n    its size.", 0),
        ("A role without its end, :func:`x.", 1),
        ("One too many, ``x```.", 1),
    ],
)
def test_the_check_itself(text, count):
    for source in (f'"""{text}"""', f'class A:\n    b = 1\n    """{text}"""', f'def f():\n    """{text}"""'):
        assert len(faults(source)) == count
