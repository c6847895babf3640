"""Who imports whom: data goes one way through the house, and no two files need each other."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAY_IMPORT = {
    "text_tables": set(),
    "files": set(),
    "model_files": {"files"},
    "caches": set(),
    "updates": set(),
    "field_types": set(),
    "processors": set(),
    "sizes": set(),
    "state_dicts": set(),
    "memory": set(),
    "kernels": {"caches", "memory"},
    "cores": {"field_types", "kernels", "memory", "sizes"},
    "testing": {"cores"},
    "envs": {"sizes"},
    "tasks": {"caches", "field_types", "sizes", "text_tables"},
    "agents": {"cores", "files", "model_files", "sizes", "state_dicts", "updates"},
    "training": {
        "agents",
        "cores",
        "envs",
        "field_types",
        "files",
        "model_files",
        "processors",
        "sizes",
        "state_dicts",
        "tasks",
        "text_tables",
        "updates",
    },
    "analysis": {
        *("agents", "cores", "envs", "files", "kernels", "memory", "sizes", "tasks", "text_tables"),
        "training",
    },
    "reproduction": {"cores", "files", "tasks", "text_tables", "training"},
    "pretrained": {"agents", "model_files", "training"},
    "player": {"agents", "model_files", "pretrained"},
    "commands": {
        *("agents", "analysis", "cores", "envs", "files", "kernels", "model_files", "pretrained"),
        *("processors", "reproduction", "tasks", "text_tables", "training"),
    },
    "scripts": {"commands"},
}
"""Room -> the rooms that it knows. `mnm_rl/__init__.py` and `__main__.py` stand outside."""


def files() -> dict[str, Path]:
    """Every module of the package and every script, by its full name."""
    found = {f"scripts.{path.stem}": path for path in (ROOT / "scripts").glob("*.py")}
    for folder, name in (("mnm_rl", "mnm_rl"), ("agents", "mnm_rl.agents"), ("envs", "mnm_rl.envs")):
        for path in (ROOT / folder).rglob("*.py"):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            # mnm_rl/agents and mnm_rl/envs are links to the folders at the top.
            if folder != "mnm_rl" or parts[0] not in ("agents", "envs"):
                found[".".join([name, *parts]).removesuffix(".__init__")] = path
    return found


FILES = files()


def imports(name: str) -> set[str]:
    """Modules of this project that a file imports anywhere in it, also for type checkers alone."""
    found = set()
    for node in ast.walk(ast.parse(FILES[name].read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mnm_rl"):
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner in FILES else str(node.module))
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.startswith("mnm_rl")}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} imports by a relative name"
    return found


def room(name: str) -> str | None:
    parts = name.split(".")
    if parts[0] == "scripts":
        return "scripts"
    return parts[1] if len(parts) > 1 and parts[1] != "__main__" else None


def test_every_file_is_found():
    assert {room(name) for name in FILES} - {None} == MAY_IMPORT.keys()
    assert {"mnm_rl.agents.a2c", "mnm_rl.envs.turn", "mnm_rl.training.folder"} <= FILES.keys()


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_file_imports_only_what_its_room_knows(name):
    own = room(name)
    if own is None:
        return
    foreign = {other: room(other) for other in imports(name)}
    wrong = [other for other, theirs in foreign.items() if theirs != own and theirs not in MAY_IMPORT[own]]
    assert not wrong, f"{own} must not know {', '.join(wrong)}"


TWINS = ("mnm_rl.training.rl", "mnm_rl.training.supervised")


@pytest.mark.parametrize("name", sorted(name for name in FILES if room(name) == "training"))
def test_the_two_kinds_of_training_do_not_know_each_other_nor_the_shared_files_them(name):
    known = {twin for twin in TWINS for other in imports(name) if other.startswith(twin)}
    assert known <= {twin for twin in TWINS if name.startswith(twin)}


def test_nobody_goes_upwards():
    order = list(MAY_IMPORT)
    for own, known in MAY_IMPORT.items():
        assert all(order.index(other) < order.index(own) for other in known)


def test_no_two_files_need_each_other():
    # A package's __init__ gathers names for those outside; files inside import the file that has them.
    graph = {name: imports(name) & FILES.keys() for name in FILES if not is_package(name)}
    seen: dict[str, int] = {}

    def visit(name: str, path: tuple[str, ...]) -> None:
        if seen.get(name) == 2 or name not in graph:
            return
        assert seen.get(name) != 1, f"a circle: {' -> '.join([*path[path.index(name) :], name])}"
        seen[name] = 1
        for other in sorted(graph[name]):
            visit(other, (*path, name))
        seen[name] = 2

    for name in graph:
        visit(name, ())


@pytest.mark.parametrize("name", sorted(name for name in FILES if "." in name))
def test_a_file_does_not_import_the_package_that_it_lies_in(name):
    package = name.rpartition(".")[0]
    if not is_package(name) and package in FILES:
        assert package not in imports(name)


def is_package(name: str) -> bool:
    return FILES[name].name == "__init__.py"
