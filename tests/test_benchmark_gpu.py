"""The one command for a first run on a GPU, rehearsed on the CPU, and parts of it that go wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mnm_rl.commands.parsing import parse_all
from mnm_rl.training.command_line import one_sentence_errors

pytest.importorskip("triton", reason="triton is not installed")

ROOT = Path(__file__).parent.parent
PROGRAM = ROOT / "benchmarks" / "gpu.py"
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "benchmarks")])}
# Without the second run of the tests, and one setting of three: the others are the same again.
PARTS = ("versions", "tests 1", "races", "sanitizer", "peaks", "scan babi", "peer babi", "babi", "a2c")


def call(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(PROGRAM), *words]
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)


def records_of(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]


def ends(folder: Path) -> dict[object, object]:
    return {row["part"]: row["state"] for row in records_of(folder) if "state" in row}


def test_a_dry_run_goes_through_all_parts_and_a_second_one_has_nothing_to_do(tmp_path: Path) -> None:
    words = ("--out", str(tmp_path / "found"), "--minutes", "9", "--dry-run", "--parts", *PARTS)
    first = call(*words)
    assert first.returncode == 0, first.stdout + first.stderr
    found = records_of(tmp_path / "found")
    assert len(ends(tmp_path / "found")) == 12
    assert set(ends(tmp_path / "found").values()) == {"done"}
    scans = {(row["setting"], row["form"]) for row in found if "gflops" in row and "setting" in row}
    assert scans == {("babi", form) for form in ("torch", "graphs", "triton")}
    assert {row["rule"]: row["other_bits"] for row in found if "rule" in row} == {"local": 0, "gradient": 0}
    assert [row["iterations"] for row in found if row["part"] == "babi" and "iterations" in row] == [2]
    tested = next(row for row in found if row["part"] == "tests 1" and "passed" in row)
    assert (tested["passed"], tested["failed"], tested["skipped"]) == (1, 0, 0)
    summary = (tmp_path / "found" / "summary.md").read_text()
    assert "no number here means anything" in summary
    assert "| babi | triton |" in summary
    second = call(*words)
    assert (second.returncode, second.stdout.count("at most")) == (0, 0)
    assert records_of(tmp_path / "found") == found


WRONG = """
import os, subprocess, sys, time
from pathlib import Path
import gpu
from gpu_job import Job, Unit
from gpu_records import Records, write_summary

out, OWN = Path(sys.argv[1]), f"600.{os.getpid()}"
(out / "logs").mkdir(parents=True)
records = Records(out, True)

def hangs(job, note):
    note(found=1)
    subprocess.run(["sleep", OWN])

def crashes(job, note):
    os.abort()

def raises(job, note):
    raise RuntimeError("the sixth | sheik's sheep is sick")

def leaves(job, note):
    note(state="unfinished", reason="later")

units = [Unit(work.__name__, 0.1, work) for work in (hangs, crashes, raises, leaves)]
for unit in units:
    gpu.run_unit(unit, Job(out, True, 2.0, None, False, "auto", 1), records)
    write_summary(out, records)
for _ in range(100):
    left = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout.count(f"sleep {OWN}")
    if not left:
        break
    time.sleep(0.1)
print(left)
"""


def test_a_part_that_hangs_crashes_or_fails_ends_alone(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRONG, str(tmp_path)]
    ran = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=True, timeout=100)
    assert ran.stdout.split() == ["0"]
    reasons = {row["part"]: row["reason"] for row in records_of(tmp_path) if "state" in row}
    assert reasons == {
        "hangs": "ended after its 2 s",
        "crashes": "ended by signal SIGABRT",
        "raises": "RuntimeError: the sixth | sheik's sheep is sick",
        "leaves": "later",
    }
    assert ends(tmp_path)["leaves"] == "unfinished"
    assert [row["found"] for row in records_of(tmp_path) if "found" in row] == [1]
    assert "| raises | failed |" in (tmp_path / "summary.md").read_text()


def test_what_a_part_found_stays_only_where_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from gpu_records import Records  # pyright: ignore[reportMissingImports]

    records = Records(tmp_path, False)
    for part in ("babi", "peaks"):
        records.add(part, number=1)
        records.add(part, state="failed")
    records.forget("babi", keep=True)
    records.forget("peaks", keep=False)
    assert [(row["part"], row.get("number")) for row in records.all] == [("babi", 1)]
    assert Records(tmp_path, False).all == records.all
    assert records.states() == {}


def test_each_part_has_its_share_of_the_time_that_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import gpu  # pyright: ignore[reportMissingImports]

    units, left = gpu.all_units(False), 1800.0
    given = {}
    for place, unit in enumerate(units):
        given[unit.name] = seconds = gpu.time_for(unit, units[place + 1 :], left)
        left -= seconds
    assert abs(left) < 1e-6
    assert 420 < given["babi"] < 480
    assert 200 < given["tests 1"] < 260
    # Where nobody uses any of it, bAbI has all but what A2C needs.
    last = units[-2:]
    assert gpu.time_for(units[-3], last, 1800.0) > 1400
    assert gpu.time_for(units[1], [], 600.0) == 600


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--minutes", "-1"), "minutes must be a positive number, got -1.0."),
        (("--minutes", "nan"), "minutes must be a positive number, got nan."),
        (("--iterations", "0"), "iterations must be at least 1, got 0."),
        (("--babi", "nowhere.tar.gz"), "There is no nowhere.tar.gz; babi must be an archive or a folder"),
        (("--babi-supplement",), "babi_supplement needs babi"),
        (("--parts", "scans"), "got 'scans'."),
        (("--out", "file"), "file is a file, not a folder."),
        (("--out", "damaged"), "records.jsonl is damaged; take another folder for out."),
        (("--out", "measured"), "records.jsonl holds measurements; take another folder for out."),
        (("--minuets", "3"), "There is no option --minuets; did you mean --minutes?"),
    ],
)
def test_bad_options_are_one_sentence(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    sentence: str,
) -> None:
    (tmp_path / "file").touch()
    for name, text in (("damaged", "{"), ("measured", '{"part": "peaks", "dry_run": false}')):
        (tmp_path / name).mkdir()
        (tmp_path / name / "records.jsonl").write_text(text + "\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import gpu  # pyright: ignore[reportMissingImports]

    out = () if "--out" in words else ("--out", "new")
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--dry-run", *out, *words])
    with pytest.raises(SystemExit) as ended, one_sentence_errors("gpu.py"):
        gpu.main(parse_all(gpu.Args, gpu.__doc__))
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert sentence in said
    assert len(said.splitlines()) == 1
    assert not (tmp_path / "new").exists()


@pytest.mark.cuda
def test_a_part_on_the_gpu(tmp_path: Path) -> None:
    ran = call("--out", str(tmp_path), "--minutes", "5", "--parts", "versions", "peaks", "scan algorithmic")
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_without_a_gpu_only_a_dry_run(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, str(PROGRAM), "--out", str(tmp_path / "new")],
        env={**ENVIRONMENT, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 2
    assert ran.stderr == "gpu.py: There is no cuda device here; --dry-run does all of it on the CPU.\n"
