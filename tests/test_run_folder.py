"""A run's folder: one owner, kinds of runs, changes that are noted, disks that are full."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mnm_rl.training import files
from mnm_rl.training.command_line import one_sentence_errors
from mnm_rl.training.curves import CurveFile, read_curve
from mnm_rl.training.files import atomic_write, check_output_file, check_writable_directory
from mnm_rl.training.folder import (
    AGENT,
    SUPERVISED,
    change_config,
    check_changes,
    create_run,
    open_run,
    read_kind,
    read_run,
    save_state,
)
from mnm_rl.training.locks import LOCK_FILE, hold_run
from mnm_rl.training.stopping import stop_on_signals

HOLD = """
import sys, time
from pathlib import Path
from mnm_rl.training.locks import hold_run
with hold_run(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def holder(folder: Path) -> subprocess.Popen:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_folder_has_one_owner_and_a_killed_one_is_none(tmp_path):
    create_run(tmp_path / "run", SUPERVISED, {})
    process = holder(tmp_path / "run")
    half = tmp_path / "run" / ".checkpoint.pt.1.partial.pt"
    half.touch()
    try:
        with (
            pytest.raises(ValueError, match=f"Process {process.pid} is training in"),
            hold_run(tmp_path / "run"),
        ):
            pass
        assert half.exists(), "what a living run is writing is not swept"
    finally:
        process.kill()
        process.wait()
    with hold_run(tmp_path / "run"):
        assert (tmp_path / "run" / LOCK_FILE).read_text() == str(os.getpid())
        assert not half.exists()
    assert not list((tmp_path / "run").glob(".*"))


def test_what_a_run_killed_at_once_left_does_not_block_the_next(tmp_path):
    (tmp_path / LOCK_FILE).write_text("1")
    (tmp_path / ".config.json.1.partial.json").write_text("{")
    create_run(tmp_path, AGENT, {"core": "gru"})
    assert read_kind(tmp_path) == (AGENT, {"core": "gru"})
    with pytest.raises(ValueError, match="is not an empty folder"):
        create_run(tmp_path, AGENT, {})


def test_the_parameters_to_evaluate(tmp_path):
    assert SUPERVISED.parameters(tmp_path) == tmp_path / "checkpoint.pt"
    (tmp_path / "best.pt").touch()
    assert SUPERVISED.parameters(tmp_path) == tmp_path / "best.pt"
    (tmp_path / "other.pt").touch()
    assert SUPERVISED.parameters(tmp_path / "other.pt") == tmp_path / "other.pt"
    assert AGENT.parameters(tmp_path) == tmp_path / "checkpoint.zip"


def test_a_run_has_begun_once_it_has_left_anything_to_go_on_from(tmp_path):
    for kind in (SUPERVISED, AGENT):
        create_run(tmp_path / kind.name, kind, {})
        (tmp_path / kind.name / ".checkpoint.1.partial").touch()
        assert not kind.has_begun(tmp_path / kind.name)
    (tmp_path / "supervised" / "train.csv").touch()
    (tmp_path / "a2c" / "checkpoint.zip").touch()
    for kind in (SUPERVISED, AGENT):
        assert kind.has_begun(tmp_path / kind.name)


def test_runs_of_another_or_an_unknown_kind(tmp_path):
    create_run(tmp_path / "run", AGENT, {})
    with pytest.raises(ValueError, match="holds a run of kind a2c, not supervised"):
        open_run(tmp_path / "run", SUPERVISED)
    for text in ("{", "[]", '{"kind": "a2c", "config": []}', '{"kind": [], "config": {}}', "\xff"):
        (tmp_path / "run" / "config.json").write_bytes(text.encode("latin-1"))
        with pytest.raises(ValueError, match=r"is damaged|is not the config of a run"):
            read_run(tmp_path / "run")
    (tmp_path / "run" / "config.json").write_text('{"kind": "poem", "config": {}}')
    with pytest.raises(ValueError, match="of kind poem; known kinds: supervised, a2c, ppo, measurement"):
        read_kind(tmp_path / "run")


def test_changes_are_compared_by_dotted_names_and_noted(tmp_path):
    saved = {"seed": 1, "task_options": {"data": None, "tasks": "1"}}
    wanted = {"seed": 1, "task_options": {"data": "here", "tasks": "1"}}
    check_changes(tmp_path, saved, wanted, ("task_options.data",))
    with pytest.raises(ValueError, match=r"has data None, not here; .*, except for seed\."):
        check_changes(tmp_path, saved, wanted, ("seed",))
    with pytest.raises(ValueError, match=r"a resumed run keeps its settings\.$"):
        check_changes(tmp_path, saved, wanted, ())
    create_run(tmp_path / "run", SUPERVISED, saved)
    change_config(tmp_path / "run", saved, wanted, "iteration 3")
    document = json.loads((tmp_path / "run" / "config.json").read_text())
    assert document["config"] == wanted
    assert document["changes"] == [{"at": "iteration 3", "task_options.data": {"from": None, "to": "here"}}]


def test_a_curve_keeps_its_columns_and_gets_new_ones(tmp_path):
    path = tmp_path / "curve.csv"
    path.write_text("iteration,learning_rate,loss\n1,0.5,2\n")
    curve = CurveFile(path, "iteration", after=1)
    curve.append({"iteration": 2, "loss": 1.5, "learning_rate": 0.25})
    curve.append({"loss": 1.0, "iteration": 3, "learning_rate": 0.1, "skipped": 4})
    found = read_curve(path)
    assert found["loss"] == [2, 1.5, 1.0]
    assert found["learning_rate"] == [0.5, 0.25, 0.1]
    assert [value == value for value in found["skipped"]] == [False, False, True]


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device", "run/checkpoint.pt"),
            2,
            "run/checkpoint.pt: No space",
        ),
        (
            PermissionError(errno.EACCES, "Permission denied", "data"),
            2,
            "Cannot read or write data: Permission",
        ),
        (MemoryError(), 2, "There is not enough memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), 2, "not enough memory"),
        (ValueError("two\nlines"), 2, "two lines"),
        (KeyboardInterrupt(), 130, "Stopped."),
    ],
)
def test_what_goes_wrong_is_one_sentence(error, status, message, capsys):
    with pytest.raises(SystemExit) as stop, one_sentence_errors("program"):
        raise error
    said = capsys.readouterr().err
    assert stop.value.code == status
    assert said.startswith("program: ")
    assert message in said
    assert said.count("\n") == 1


def interrupt() -> None:
    """Ctrl-C, whose exception becomes another one on its way out, as inside of Python's own parser."""
    try:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(10)
    except KeyboardInterrupt as error:
        raise SystemError("AST constructor recursion depth mismatch") from error


def test_ctrl_c_that_comes_out_as_another_error_is_ctrl_c(capsys):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(SystemExit) as stop, one_sentence_errors("program"):
            interrupt()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert (stop.value.code, capsys.readouterr().err) == (130, "program: Stopped.\n")


def test_the_same_error_without_ctrl_c_is_a_bug():
    with pytest.raises(SystemError, match="AST"), one_sentence_errors("program"):
        raise SystemError("AST constructor recursion depth mismatch")


def test_checks_of_places_leave_nothing_behind(tmp_path):
    check_writable_directory(tmp_path / "a" / "b")
    check_output_file(tmp_path / "c" / "picture.png", (".png", ".gif"))
    assert os.listdir(tmp_path) == []
    with atomic_write(tmp_path / "a" / "b" / "file") as temporary:
        temporary.write_text("x")
    assert os.listdir(tmp_path / "a" / "b") == ["file"]


def test_places_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    for place in ("file", "file/below", "loop", "loop/below"):
        with pytest.raises(ValueError, match="Cannot write to the directory"):
            check_writable_directory(tmp_path / place)
    with pytest.raises(ValueError, match="is a folder, not a file"):
        check_output_file(tmp_path / "folder.png", (".png",))
    with pytest.raises(ValueError, match=r"must end in \.png or \.gif"):
        check_output_file(tmp_path / "picture.bmp", (".png", ".gif"))


def test_an_error_of_ours_is_not_dressed_up_as_the_users():
    with pytest.raises(RuntimeError, match="a bug"), one_sentence_errors("program"):
        raise RuntimeError("a bug")


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path, monkeypatch):
    save_state(tmp_path / "checkpoint.pt", {"number": 1})
    whole = (tmp_path / "checkpoint.pt").read_bytes()

    def full(self, data):
        raise OSError(errno.ENOSPC, "No space left on device", str(self))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        save_state(tmp_path / "checkpoint.pt", {"number": 2})
    assert (tmp_path / "checkpoint.pt").read_bytes() == whole
    assert os.listdir(tmp_path) == ["checkpoint.pt"]


def test_a_file_system_that_cannot_flush_folders(tmp_path, monkeypatch):
    def refuse(descriptor):
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(files.os, "fsync", refuse)
    with atomic_write(tmp_path / "file") as temporary:
        temporary.write_text("whole")
    assert (tmp_path / "file").read_text() == "whole"


def test_a_closed_terminal_stops_a_run_unless_it_was_told_to_ignore_that():
    before = [(number, signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    asked = []
    try:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        stop_on_signals(lambda: asked.append(time.monotonic()))
        os.kill(os.getpid(), signal.SIGHUP)
        assert not asked
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        stop_on_signals(lambda: asked.append(time.monotonic()))
        os.kill(os.getpid(), signal.SIGHUP)
        assert len(asked) == 1
    finally:
        for number, handler in before:
            signal.signal(number, handler)
