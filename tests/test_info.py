"""What ``mnm-rl info`` says."""

from __future__ import annotations

import json
import platform
import sys
from pathlib import Path

import pytest
import torch

from mnm_rl import processors
from mnm_rl.commands import info
from mnm_rl.commands.main import main
from mnm_rl.kernels import build


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", ["mnm-rl", "info", *words])
    main()


def test_for_programs_everything_is_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MNM_RL_PREBUILT", "0")
    run(monkeypatch, "--json")
    told = json.loads(capsys.readouterr().out)
    versions = told["versions"]
    assert versions["python"] == platform.python_version()
    assert versions["torch"] == torch.__version__
    assert {"mnm-rl", "gymnasium", "stable-baselines3", "minigrid", "numpy", "triton"} <= versions.keys()
    kernel = build.find_kernel()
    assert told["kernel"] == {
        "origin": kernel.origin,
        "path": None if kernel.path is None else str(kernel.path),
        "reason": kernel.reason,
    }
    assert told["threads"] == torch.get_num_threads()
    assert len(told["devices"]) == torch.cuda.device_count()
    assert {"dev", "gpu", "bench", "ray", "tune", "rl"} <= told["extras"].keys()
    assert told["environment"]["MNM_RL_PREBUILT"] == "0"
    assert {"compiler", "system", "processor", "installed in"} <= told.keys()


def test_for_people_it_is_a_line_each(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(monkeypatch)
    lines = capsys.readouterr().out.splitlines()
    first = [line.split("  ")[0] for line in lines]
    assert first[:3] == ["python", "mnm-rl", "torch"]
    assert {"kernel", "compiler", "processor", "devices", "extra tune"} <= set(first)
    assert f"torch {torch.__version__}" in [" ".join(line.split()) for line in lines]


def test_what_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setattr(
        info.metadata, "requires", lambda name: ['no-such-package<2; extra == "odd"', "torch>=2"]
    )
    found = info.collect()
    assert found["compiler"] == "none: no C++ compiler (no-such-compiler) on the path"
    assert found["extras"] == {"odd": "lacks no-such-package"}
    monkeypatch.setattr(info, "PACKAGES", ("no-such-package",))
    assert info.collect()["versions"]["no-such-package"] is None
    lines = info.in_words(info.collect())
    assert any(line.split() == ["no-such-package", "not", "installed"] for line in lines)


def test_an_option_that_there_is_not_is_refused_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        run(monkeypatch, "--jsn")
    assert stop.value.code == 2
    assert capsys.readouterr().err == "mnm-rl info: There is no option --jsn; did you mean --json?\n"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (
            "cpu family\t: 26\nmodel\t\t: 2\nmodel name\t: AMD EPYC\n\ncpu family\t: 26\n",
            "AMD EPYC, family 26 model 2",
        ),
        ("model name\t: Neoverse\n", "Neoverse"),
        ("", platform.processor() or platform.machine()),
        (None, platform.processor() or platform.machine()),
    ],
)
def test_a_processor_is_named_with_its_generation(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str | None, name: str
) -> None:
    monkeypatch.setattr(processors, "INFORMATION", tmp_path / "cpuinfo")
    if text is not None:
        (tmp_path / "cpuinfo").write_text(text)
    assert processors.processor_name() == name
