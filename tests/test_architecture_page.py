"""docs/architecture.md names modules, classes and functions; all of them are there, and so are its files."""

import importlib
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "architecture.md").read_text()
NAMES = sorted(set(re.findall(r"`(mnm_rl\.[\w.]*\w)`", PAGE)))
FILES = sorted(set(re.findall(r"`((?:mnm_rl|tests|scripts|examples)/[\w./]*\w)`", PAGE)))


def named(dotted: str) -> Any:
    """The module, or what a module has under the rest of the name."""
    parts = dotted.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError as error:
            if error.name is None or not dotted.startswith(error.name):
                raise  # a module that is there needs one that is not
            continue
        for part in parts[length:]:
            found = getattr(found, part)
        return found
    raise ImportError(dotted)


def test_the_page_names_all_equations_and_many_places():
    assert len(NAMES) > 50
    for equation in range(1, 7):
        assert re.search(rf"Eq\. {equation}\b", PAGE)


@pytest.mark.parametrize("name", NAMES)
def test_every_dotted_name_on_the_page_imports(name):
    assert named(name) is not None


@pytest.mark.parametrize("name", FILES)
def test_every_file_on_the_page_exists(name):
    assert (ROOT / name).exists()


def test_what_stands_in_a_file_by_the_page_stands_there():
    found = 0
    for names, file in re.findall(r"((?:`\w+`(?:, | and )?)+) in `((?:mnm_rl|agents|envs)/[\w./]*\w)`", PAGE):
        for name in re.findall(r"`(\w+)`", names):
            found += 1
            assert re.search(rf"\b{name}\b", (ROOT / file).read_text()), f"{name} is not in {file}"
    assert found > 15


def test_every_room_is_on_the_drawing():
    drawing = PAGE.split("```")[1] + PAGE.split("```")[2].split("What never happens")[0]
    names = [path.name for path in (ROOT / "mnm_rl").iterdir() if not path.name.startswith("_")]
    for name in names:
        if name not in ("py.typed", "agents", "envs") and not name.endswith(".pyc"):
            assert name in drawing, f"{name} is not in the drawing of the rooms"


def test_a_name_that_is_not_there_is_found_out():
    with pytest.raises(AttributeError):
        named("mnm_rl.memory.writes.no_such_write")
    with pytest.raises(AttributeError):
        named("mnm_rl.no_such_room.anything")
