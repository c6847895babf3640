"""Drawing curves of runs."""

import importlib
from pathlib import Path

import pytest
from matplotlib.axes import Axes
from PIL import Image

from mnm_rl.training.command_line import one_sentence_errors

ROOT = Path(__file__).parent.parent


@pytest.fixture
def plot(monkeypatch, capsys):
    """Run the script in this process; returns its exit status, stdout and stderr."""
    script = importlib.import_module("mnm_rl.commands.plot_curves")

    def run(*arguments: object) -> tuple[int, str, str]:
        status = 0
        try:
            with one_sentence_errors("plot_curves.py"):
                script.main(script.tyro.cli(script.Args, args=[*map(str, arguments)]))
        except SystemExit as stop:
            status = int(stop.code or 0)
        return status, *capsys.readouterr()

    return run


def write_run(folder: Path, rows: str) -> Path:
    folder.mkdir()
    (folder / "progress.csv").write_text("episodes,reward\n" + rows)
    return folder


def test_averages_marks_and_ends_are_printed(plot, tmp_path):
    run = write_run(tmp_path / "run", "10,0\n20,10\n30,30\n40,50\n")
    picture = tmp_path / "pictures" / "curve.png"
    status, out, _ = plot(run, "--window", 20, "--at", 20, "--mark", 15, "--out", picture)
    assert status == 0
    assert out.splitlines()[0].split(maxsplit=1) == [
        "run",
        "5.0 at 20, passes 15 at 30, ends with 40.0 at 40",
    ]
    assert Image.open(picture).width > 700


def test_no_two_of_twenty_curves_look_alike(plot, tmp_path, monkeypatch):
    runs = [write_run(tmp_path / f"run{number}", "10,0\n20,10\n") for number in range(20)]
    drawn = []
    draw = Axes.plot

    def note(self, *args, **kwargs):
        lines = draw(self, *args, **kwargs)
        drawn.extend((line.get_color(), line.get_linestyle()) for line in lines)
        return lines

    monkeypatch.setattr(Axes, "plot", note)
    assert plot(*runs, "--out", tmp_path / "curves.png")[0] == 0
    assert len(set(drawn)) == len(drawn) == 20


def test_bad_input_is_one_sentence(plot, tmp_path):
    run = write_run(tmp_path / "run", "10,0\n")
    heading, infinite = write_run(tmp_path / "none", ""), write_run(tmp_path / "infinite", "10,0\n20,inf\n")
    back = write_run(tmp_path / "back", "20,1\n10,1\n")
    (tmp_path / "file").touch()
    for arguments, message in (
        ((), "Name at least one folder of a run, or a CSV file, as runs."),
        ((tmp_path,), f"There is no curve at {tmp_path}/progress.csv."),
        ((run, "--y", "size"), f"The curve {run}/progress.csv has no column size; its columns: episodes, "),
        ((heading,), f"The curve {heading}/progress.csv has no rows of numbers."),
        ((infinite,), f"The curve {infinite}/progress.csv has a number in reward that is beyond 1e+15."),
        (
            (back,),
            f"The curve {back}/progress.csv cannot be drawn over episodes, which goes from 20 back to 10.",
        ),
        ((run, "--labels", "a", "b"), "labels must be as many as runs: there are 1, and 2 labels."),
        ((run, "--out", tmp_path / "file" / "a.png"), f"Cannot write to the directory {tmp_path}/file: "),
    ):
        status, _, err = plot(*arguments, *(() if "--out" in arguments else ("--out", tmp_path / "a.png")))
        assert (status, err.count("\n")) == (2, 1)
        assert err.startswith(f"plot_curves.py: {message}")
