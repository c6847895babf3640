"""The package as it is installed, and what the README promises about it."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_every_package_is_listed_for_installation():
    found = set()
    for top, name in (("mnm_rl", "mnm_rl"), ("envs", "mnm_rl.envs"), ("agents", "mnm_rl.agents")):
        for init in (ROOT / top).rglob("__init__.py"):
            found.add(".".join([name, *init.parent.relative_to(ROOT / top).parts]))
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == found


def test_importing_the_package_does_not_import_what_it_only_registers():
    code = "import sys, mnm_rl; print({'stable_baselines3', 'pygame', 'minigrid'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_every_dependency_is_bounded():
    project = PROJECT["project"]
    extras = [line for extra in project["optional-dependencies"].values() for line in extra]
    for requirement in [*project["dependencies"], *extras]:
        assert ">=" in requirement, requirement
        assert "<" in requirement, requirement


def test_ci_installs_and_tests_with_the_commands_of_the_readme():
    command = next(
        line for line in (ROOT / "README.md").read_text().splitlines() if ".venv/bin/pytest" in line
    )
    setup, install, test = (part.strip() for part in command.split("&&"))
    script = (ROOT / ".ci" / "run").read_text()
    assert setup == "python3 -m venv .venv"
    assert 'python3 -m venv "$venv"' in script
    assert install == ".venv/bin/pip install -c constraints.txt -e '.[dev]'"
    assert "\"$venv/bin/pip\" install -c constraints.txt -e '.[dev]'" in script
    assert test == ".venv/bin/pytest"
    assert '"$venv/bin/pytest"' in script


def readme_examples() -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)


def test_the_examples_of_the_readme_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for code in readme_examples():
        shortened = (
            code.replace("1_000_000", "8_000")
            .replace("400_000", "8_000")
            .replace("n_eval_episodes=200", "n_eval_episodes=32")
        )
        exec(compile(shortened, "README.md", "exec"), {})
    printed = capsys.readouterr().out
    assert "torch.Size([50, 32, 100])" in printed
    assert (tmp_path / "agent.zip").exists()
