"""A run's folder: one owner, kinds of runs, changes that are noted, disks that are full."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from mnm_rl.commands.parsing import find_choices
from mnm_rl.files import atomic_write
from mnm_rl.training import files
from mnm_rl.training.command_line import one_sentence_errors
from mnm_rl.training.curves import CurveFile, read_curve
from mnm_rl.training.files import check_output_file, check_writable_directory
from mnm_rl.training.folder import (
    A2C_AGENT,
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
from mnm_rl.training.rl.config import config_from_dict as agent_from_dict
from mnm_rl.training.stopping import stop_on_signals
from mnm_rl.training.supervised.config import config_from_dict as supervised_from_dict

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
    create_run(tmp_path, A2C_AGENT, {"core": "gru"})
    assert read_kind(tmp_path) == (A2C_AGENT, {"core": "gru"})
    with pytest.raises(ValueError, match="is not an empty folder"):
        create_run(tmp_path, A2C_AGENT, {})


def test_the_parameters_to_evaluate(tmp_path):
    assert SUPERVISED.parameters(tmp_path) == tmp_path / "checkpoint.pt"
    (tmp_path / "best.pt").touch()
    assert SUPERVISED.parameters(tmp_path) == tmp_path / "best.pt"
    (tmp_path / "other.pt").touch()
    assert SUPERVISED.parameters(tmp_path / "other.pt") == tmp_path / "other.pt"
    assert A2C_AGENT.parameters(tmp_path) == tmp_path / "checkpoint.zip"
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").touch()
    assert A2C_AGENT.parameters(tmp_path) == tmp_path / "model" / "model.safetensors"
    (tmp_path / "checkpoint.zip").touch()
    assert A2C_AGENT.parameters(tmp_path) == tmp_path / "checkpoint.zip"


def test_a_run_has_begun_once_it_has_left_anything_to_go_on_from(tmp_path):
    for kind in (SUPERVISED, A2C_AGENT):
        create_run(tmp_path / kind.name, kind, {})
        (tmp_path / kind.name / ".checkpoint.1.partial").touch()
        assert not kind.has_begun(tmp_path / kind.name)
    (tmp_path / "supervised" / "train.csv").touch()
    (tmp_path / "a2c" / "checkpoint.zip").touch()
    for kind in (SUPERVISED, A2C_AGENT):
        assert kind.has_begun(tmp_path / kind.name)


def test_runs_of_another_or_an_unknown_kind(tmp_path):
    create_run(tmp_path / "run", A2C_AGENT, {})
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


NO_CURVES = {
    "a word": (b"iteration,loss\n1,0.5\none,two\n", "has 'one', not a number"),
    "bytes": (bytes(range(256)), "holds what is not text"),
    "zeros": (b"iteration,loss\n1,\x00\n", "holds what is not text"),
    "a field without end": (b'iteration,loss\n1,"' + b"x" * 200_000, "holds what is not text"),
}


@pytest.mark.parametrize("kind", NO_CURVES)
def test_a_file_that_is_no_curve_is_named_and_left_alone(kind, tmp_path):
    path = tmp_path / "curve.csv"
    content, message = NO_CURVES[kind]
    path.write_bytes(content)
    for call in (lambda: read_curve(path), lambda: CurveFile(path, "iteration", after=1)):
        with pytest.raises(ValueError, match=f"^The curve {path} is damaged: .*{message}"):
            call()
    assert path.read_bytes() == content


def test_a_row_is_not_added_to_a_file_that_is_no_curve(tmp_path):
    path = tmp_path / "curve.csv"
    path.write_bytes(bytes(range(256)))
    with pytest.raises(ValueError, match=f"^The curve {path} is damaged"):
        CurveFile(path, "iteration").append({"iteration": 1})


def test_a_curve_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "empty.csv").touch()
    (tmp_path / "loop").symlink_to("loop")
    for name, message in (
        ("nowhere.csv", "There is no curve at .*nowhere.csv"),
        ("empty.csv", "empty.csv is empty: it has no columns"),
        (".", "cannot be read: [A-Z]"),
        ("loop", "loop cannot be read: [A-Z]"),
    ):
        with pytest.raises(ValueError, match=message):
            read_curve(tmp_path / name)
    for path in (None, 5):
        for call in (read_curve, lambda each: CurveFile(each, "iteration")):
            with pytest.raises(TypeError, match="The path of a curve must be a text or a path"):
                call(path)  # pyright: ignore[reportArgumentType]


def test_a_heading_alone_is_a_curve_without_rows(tmp_path):
    (tmp_path / "curve.csv").write_text("iteration,loss\n")
    assert read_curve(tmp_path / "curve.csv") == {}


def test_what_cannot_be_written_to_is_named_before_there_is_a_row(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "loop", tmp_path / "file" / "curve.csv"):
        with pytest.raises(ValueError, match=r"is not a file|Cannot write to the directory .*file"):
            CurveFile(path, "iteration")


def test_a_curve_has_the_column_that_grows(tmp_path):
    path = tmp_path / "curve.csv"
    path.write_text("iteration,loss\n1,2\n")
    with pytest.raises(ValueError, match="has no column updates; its columns: iteration, loss"):
        CurveFile(path, "updates", after=1)
    with pytest.raises(ValueError, match="needs the column iteration"):
        CurveFile(path, "iteration").append({"loss": 1})
    wrong: list[Any] = [5, None, [("iteration", 1)], {5: 1}]
    for row in wrong:
        with pytest.raises(TypeError, match="A row of a curve is a dictionary"):
            CurveFile(path, "iteration").append(row)
    for after in ("x", True):
        with pytest.raises(TypeError, match="after must be a number"):
            CurveFile(path, "iteration", after=after)  # pyright: ignore[reportArgumentType]
    assert path.read_text() == "iteration,loss\n1,2\n"


@pytest.mark.parametrize("from_dict", [supervised_from_dict, agent_from_dict])
@pytest.mark.parametrize("values", [None, 5, [], "x", {5: 1}])
def test_a_config_is_a_dictionary_of_options(values, from_dict):
    with pytest.raises(TypeError, match="A config must be a dictionary of options, got"):
        from_dict(values)


@pytest.mark.parametrize("from_dict", [supervised_from_dict, agent_from_dict])
@pytest.mark.parametrize("settings", [5, {"hidden_size": 5}, "x", "[]"])
def test_settings_of_a_core_were_json(settings, from_dict):
    with pytest.raises(ValueError, match="core_kwargs must be"):
        from_dict({"core_kwargs": settings})


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


@pytest.mark.parametrize(("words", "status"), [("evaluate nowhere", 2), ("info", 0)])
def test_a_program_without_output_runs_without(words, status):
    command = f"{sys.executable} -m mnm_rl {words} >&- 2>&-"
    assert subprocess.run(["sh", "-c", command], check=False).returncode == status


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


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("x", "has no column iteration; its columns: x."),
        ("a,b\n1,2\n", "has no column iteration; its columns: a, b."),
        ("iteration,iteration\n1,2\n", "is damaged: it has the column iteration twice."),
        ("iteration,loss\nx,1\n", "is damaged: its iteration has 'x', not a number."),
    ],
)
def test_curves_that_a_run_cannot_go_on_with(content, said, tmp_path):
    SUPERVISED.check_curves(tmp_path)
    (tmp_path / "train.csv").write_text("iteration,loss\n1,2\n")
    SUPERVISED.check_curves(tmp_path)
    (tmp_path / "valid.csv").write_text(content)
    with pytest.raises(ValueError, match=r"valid\.csv") as caught:
        SUPERVISED.check_curves(tmp_path)
    assert str(caught.value).endswith(said)


def test_a_folder_that_was_removed_does_not_come_back_with_a_file(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_write(tmp_path / "run" / "checkpoint.pt") as temporary:
        temporary.write_text("x")
    assert not (tmp_path / "run").exists()


def test_texts_may_be_empty_but_places_may_not():
    find_choices(["--title", "", "--labels", "", "b", "--out", "a.png"])
    for words in (["--log-dir", ""], ["--log-dir="], ["--title", "", "--resume", " "], [""]):
        with pytest.raises(ValueError, match="on the command line is empty"):
            find_choices(words)
