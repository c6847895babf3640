"""The package as it is installed, and what the README promises about it."""

import importlib
import re
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

import mnm_rl

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
    extras = [line for line in extras if not line.startswith(f"{project['name']}[")]  # other extras of ours
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


def test_the_main_command_of_the_readme_trains_and_is_stopped_with_a_checkpoint(tmp_path):
    line = next(line for line in (ROOT / "README.md").read_text().splitlines() if "train_a2c.py" in line)
    python, *words = line.split("&&")[-1].split()
    assert python == ".venv/bin/python"
    process = subprocess.Popen(
        [sys.executable, str(ROOT / words[0]), *words[1:]],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    curve = tmp_path / "runs" / "MNMMaze-9x9-mnm-p-seed0" / "progress.csv"
    deadline = time.monotonic() + 300
    while process.poll() is None and not curve.exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130, said
    assert (curve.parent / "checkpoint.zip").exists()


@pytest.mark.parametrize("name", ["train_a2c", "train_ppo", "train_supervised", "tune"])
def test_a_program_that_needs_no_option_takes_none(name, monkeypatch):
    monkeypatch.setattr(sys, "argv", [name])
    assert importlib.import_module(f"mnm_rl.commands.{name}")._parse()


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


def test_the_version_is_the_same_wherever_it_stands():
    version = PROJECT["project"]["version"]
    assert mnm_rl.__version__ == version
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
    heads = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    assert "unreleased" in heads[0].lower()
    assert any(head.startswith(version) for head in heads)


def test_the_classifiers_name_the_versions_of_python_that_ci_has():
    prefix = "Programming Language :: Python :: 3."
    named = [line for line in PROJECT["project"]["classifiers"] if line.startswith(prefix)]
    assert named == [f"{prefix}{sys.version_info.minor}"]
