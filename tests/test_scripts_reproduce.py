"""`scripts/reproduce.py` as it is used from a shell, and what it makes of finished runs."""

import csv
import functools
import hashlib
import importlib
import importlib.util
import json
import multiprocessing
import os
import runpy
import shutil
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path

import numpy as np
import pytest
import torch
import torch._dynamo  # the optimizers need it: imported here, once for all trials
from PIL import Image

from mnm_rl.reproduction import processes
from mnm_rl.reproduction.babi import babi_tables
from mnm_rl.reproduction.collect import collect, mean_curve
from mnm_rl.reproduction.experiments import EXPERIMENTS, SCALES, make_experiment
from mnm_rl.reproduction.paper import TABLE_1, TABLE_4
from mnm_rl.reproduction.rl.experiment import make_comparison
from mnm_rl.reproduction.tables import algorithmic_table, maze_table
from mnm_rl.reproduction.testing import has_gone_on, read_test_errors
from mnm_rl.reproduction.trials import is_trained, start_command
from mnm_rl.training.folder import MEASUREMENT, SUPERVISED
from mnm_rl.training.options import flat
from mnm_rl.training.rl.config import config_to_dict as a2c_to_dict
from mnm_rl.training.supervised.config import config_to_dict

ROOT = Path(__file__).parent.parent
SCRIPTS = ROOT / "scripts"
FILES = {
    "figure2": ["figure2"],
    "figure3": ["figure3"],
    "figure4": ["figure4"],
    "figure6": ["figure6"],
    "table1": ["table1", "table3", "table4"],
}


class ForkedProcess:
    """A training process that starts at once, because it is forked from this one; used like a Popen."""

    def __init__(self, command, log, lock):
        del lock  # inherited
        fork = multiprocessing.get_context("fork")
        self._process = fork.Process(target=self._main, args=(command, log))
        self._process.start()
        self.terminate, self.kill, self.wait = self._process.terminate, self._process.kill, self._process.join

    @staticmethod
    def _main(command, log):
        for number in (1, 2):
            os.dup2(log.fileno(), number)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
        torch.set_num_threads(1)
        is_module = command[1] == "-m"
        module, arguments = (command[2], command[3:]) if is_module else (command[1], command[2:])
        sys.argv, status = [module, *arguments], 0
        sys.modules.pop(module, None)
        try:
            if is_module:
                runpy.run_module(module, run_name="__main__", alter_sys=True)
            else:
                runpy.run_path(module, run_name="__main__")
        except SystemExit as stop:
            status = stop.code if isinstance(stop.code, int) else 0
        except BaseException:
            traceback.print_exc()
            status = 1
        sys.stdout.flush()
        sys.stderr.flush()
        # The usual end of a process would wait for threads that only the process before the fork has.
        os._exit(status)

    def poll(self):
        return self._process.exitcode

    @property
    def returncode(self):
        return self._process.exitcode


@pytest.fixture
def reproduce(monkeypatch, capsys):
    """Run the script in this process, its trials in forked ones; returns exit status, stdout and stderr."""
    monkeypatch.setattr(processes, "_start", ForkedProcess)
    monkeypatch.setattr("mnm_rl.tasks.generated.GeneratedTask.held_out_episodes", 20)
    handler = signal.getsignal(signal.SIGTERM)

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["reproduce.py", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            importlib.import_module("mnm_rl.commands.reproduce").run_from_command_line()
        return int(stop.value.code or 0), *capsys.readouterr()

    yield run
    signal.signal(signal.SIGTERM, handler)


@pytest.fixture
def jobs_of(monkeypatch, tmp_path):
    """The jobs of an experiment in a temporary folder."""
    script = importlib.import_module("mnm_rl.commands.reproduce")
    return lambda name, scale="laptop", seeds=None: script._jobs(
        make_experiment(name, scale, seeds), tmp_path / f"{name}-{scale}"
    )


def read_csv(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))


def test_other_cores_beside_the_papers(reproduce, tmp_path):
    words = ("--scale", "smoke", "--out", tmp_path, "--workers", 2, "--cores", "mnm-p,ntm,fwm")
    status, _, err = reproduce("figure4", *words)
    assert status == 0, err
    rows = read_csv(tmp_path / "figure4-smoke" / "figure4.csv")
    assert {"MNM-p", "NTM", "FWM"} <= {cell for row in rows for cell in row}
    status, _, _ = reproduce("figure4", *words[:4], "--cores", "mnm-p,ntm", "--draw-only")
    assert status == 0
    rows = read_csv(tmp_path / "figure4-smoke" / "figure4.csv")
    assert "FWM" not in {cell for row in rows for cell in row}, "what is drawn is what was chosen"


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_smoke(name, reproduce, tmp_path):
    status, out, err = reproduce(name, "--scale", "smoke", "--out", tmp_path, "--workers", 2)
    assert status == 0, err
    directory = tmp_path / f"{name}-smoke"
    expected = [f"{table}.{ending}" for table in FILES[name] for ending in ("md", "csv")]
    for file in (f"{name}.png", *expected, "about.json"):
        assert str(directory / file) in out
        assert (directory / file).stat().st_size > 0
    assert Image.open(directory / f"{name}.png").width > 700
    cells = " ".join(cell for row in read_csv(directory / f"{name}.csv") for cell in row)
    models = {
        "figure6": ("MNM-p", "LSTM", "Plastic", "Homogenous Plastic"),
        "table1": ("MNM-p", "MNM-g", "LSTM+SALU", "LSTM", "TPR-RNN", "EntNet", "DNC", "SDNC"),
    }
    for model in models.get(name, ("MNM-p", "MNM-g", "LSTM+SALU", "LSTM")):
        assert model in cells
    about = json.loads((directory / "about.json").read_text())
    assert about["command"][:4] == ["reproduce.py", name, "--scale", "smoke"]
    assert about["versions"]["torch"] == torch.__version__
    assert about["hardware"]["cores"] >= 1
    assert about["missing"] == []
    assert all(run["finished"] for run in about["runs"].values())

    logs = {path: path.read_text() for path in (directory / "logs").glob("*.log")}
    assert len(logs) == len(make_experiment(name, "smoke").trials)
    (directory / f"{name}.png").unlink()
    status, out, _ = reproduce(name, "--scale", "smoke", "--out", tmp_path)
    assert status == 0
    assert f"{len(logs)} of {len(logs)} trials are trained" in out
    assert (directory / f"{name}.png").exists()
    assert {path: path.read_text() for path in logs} == logs, "nothing was run again"


def test_the_comparison_of_cores(reproduce, tmp_path):
    cores = ["mnm-p,lstm"]
    if importlib.util.find_spec("sb3_contrib") is not None:
        cores.append("sb3-contrib")
    words = ("rl", "--scale", "smoke", "--environments", "MNMMaze-5x5", "MemoryS7", "--cores", *cores)
    status, out, err = reproduce(*words, "--out", tmp_path, "--workers", 2)
    assert status == 0, err
    directory = tmp_path / "rl-smoke"
    trials = make_comparison(
        "smoke", None, ["MNMMaze-5x5", "MemoryS7"], [*cores[0].split(","), *cores[1:]]
    ).trials
    assert f"0 of {len(trials)} trials are trained" in out
    files = ("rl.png", "rl-intervals.png", "rl.md", "rl.csv", "rl-aggregate.md", "rl-runs.csv", "about.json")
    for file in (*files, "rl-time.md") if len(cores) > 1 else files:
        assert str(directory / file) in out
        assert (directory / file).stat().st_size > 0
    rows = read_csv(directory / "rl-runs.csv")
    assert len(rows) == len(trials) + 1
    assert {row[rows[0].index("finished")] for row in rows[1:]} == {"yes"}
    logs = {path: path.read_text() for path in (directory / "logs").glob("*.log")}
    assert reproduce(*words, "--out", tmp_path)[0] == 0
    assert {path: path.read_text() for path in logs} == logs, "nothing was run again"


def test_a_failed_trial_is_reported_at_the_end(reproduce, tmp_path):
    broken = tmp_path / "figure2-smoke" / "instance-1-lstm-seed0"
    arguments = ("figure2", "--scale", "smoke", "--out", tmp_path, "--workers", 1)
    assert reproduce(*arguments)[0] == 0
    (broken / "valid.csv").write_text("iteration,symbol_error\n10,0.9\n")
    (broken / "checkpoint.pt").write_bytes(b"not a checkpoint")
    status, out, err = reproduce(*arguments)
    assert status == 1
    assert "instance-1-lstm-seed0 failed" in out
    assert "instance-1-mnm-p-seed0 done" in out
    assert str(tmp_path / "figure2-smoke" / "figure2.png") in out
    assert "instance-1-lstm-seed0 failed: exit status 2" in err
    assert "checkpoint.pt is incomplete or damaged" in err


def test_real_processes_and_ctrl_c(tmp_path):
    command = [sys.executable, str(SCRIPTS / "reproduce.py"), "figure6", "--out", str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    run = tmp_path / "figure6-laptop" / "maze-mnm-p-seed0"
    with subprocess.Popen(
        [*command, "--workers", "1"],
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        # A shell starts what it puts in the background, such as all tests, with Ctrl-C ignored.
        preexec_fn=functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    ) as process:
        deadline = time.monotonic() + 120
        while not (run / "checkpoint.zip").exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        err = process.stderr.read()
    assert process.returncode == 130
    assert "Stopped; the checkpoints are saved. The same command goes on." in err
    assert (run / "checkpoint.zip").exists()
    log = (tmp_path / "figure6-laptop" / "logs" / "maze-mnm-p-seed0.log").read_text()
    assert "--episodes 30000" in log
    assert not (tmp_path / "figure6-laptop" / "maze-lstm-seed0").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("figure9",),
            "Unknown figure or table 'figure9'; known: figure2, figure3, figure4, figure6, table1",
        ),
        (("figure2", "--scale", "huge"), "Unknown scale 'huge'; known: smoke, laptop, paper."),
        (("figure2", "--seeds", "0"), "seeds must be from 1 to 1000, got 0."),
        (("figure2", "--workers", "0"), "workers must be at least 1, got 0."),
        (("figure3", "--ray-address", "auto"), "figure3 measures time on this machine, so it takes no --ray"),
        (("figure2", "--draw-only"), "There are no runs with any numbers in"),
        (("figure2", "--environments", "lstm"), "environments is an option of rl, not of figure2."),
        (("figure2", "--cores", "lstm,gpt"), "Unknown core 'gpt'"),
        (("figure2", "--cores", "lstm,lstm"), "The core lstm is given twice."),
        (("figure3", "--cores", "entnet"), "The core entnet reads whole sentences, and figure3 has none"),
        (
            ("figure2", "--cores", "tpr-rnn"),
            "The core tpr-rnn reads whole sentences, and the task dictionary has",
        ),
        (("rl", "--environments", "Pong"), "Unknown environment 'Pong'; known: CartPoleNoVel, PendulumNoVel"),
        (("table1", "--cores", ","), "cores names nothing; write names with commas or spaces between"),
        (("table1", "--cores"), "cores names nothing"),
        (("rl", "--environments", " , "), "environments names nothing"),
    ],
)
def test_bad_input_is_one_sentence(arguments, message, reproduce, tmp_path):
    status, out, err = reproduce(*arguments, "--out", tmp_path)
    assert (status, out) == (2, "")
    assert err.startswith(f"reproduce.py: {message}")
    assert err.count("\n") == 1


def test_bad_folders_are_one_sentence(reproduce, tmp_path):
    (tmp_path / "file").touch()
    status, _, err = reproduce("figure2", "--out", tmp_path / "file")
    assert status == 2
    assert err == (
        f"reproduce.py: Cannot write to the directory {tmp_path}/file/figure2-laptop: Not a directory.\n"
    )
    folder = tmp_path / "figure2-laptop" / "instance-1-mnm-p-seed0"
    shutil.copytree(ROOT / "results" / "figure2" / "figure2-laptop" / "instance-2-mnm-p-seed0", folder)
    status, out, err = reproduce("figure2", "--out", tmp_path)
    assert (status, out) == (2, "")
    sentence = "holds a run with instance 2, not 1; move it away, or give another --out."
    assert err == f"reproduce.py: {folder} {sentence}\n"


def test_committed_runs_count(jobs_of):
    jobs = {job.trial.name: job for job in (*jobs_of("figure6"), *jobs_of("figure2"))}
    for folder, name in (
        ("maze/soonest-seed0", "maze-mnm-p-seed0"),
        ("maze/soonest-lstm", "maze-lstm-seed0"),
        ("figure2/figure2-laptop/instance-1-mnm-p-seed0", "instance-1-mnm-p-seed0"),
        ("dictionary/instance-3-in-turn-mnm-p", "instance-3-mnm-p-seed0"),
    ):
        shutil.copytree(ROOT / "results" / folder, jobs[name].folder)
        assert is_trained(jobs[name])
    runs = collect([job for job in jobs.values() if job.trial.panel == "maze"])
    assert maze_table("figure6", runs).rows[0][:5] == ["MNM-p", "1", "30,000", "178.1", "23,760"]


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_commands_say_what_the_trials_are(name, scale, jobs_of, monkeypatch):
    jobs = jobs_of(name, scale, 2)
    assert len({job.trial.name for job in jobs}) == len(jobs)
    assert {job.trial.seed for job in jobs} == {0, 1}
    for job in jobs[: len(jobs) // 2]:
        command, length = job.program.command[-1], {job.program.length_option: job.trial.length}
        arguments = start_command(job)[len(job.program.command) :]
        if job.program.kind is MEASUREMENT:
            continue
        module = importlib.import_module(f"mnm_rl.commands.{command.replace('-', '_')}")
        monkeypatch.setattr(sys, "argv", [command, *arguments])
        run = module._parse().run
        run.check()
        as_dict = config_to_dict if job.program.kind is SUPERVISED else a2c_to_dict
        assert flat(as_dict(run)) == {**job.settings, **length}


def test_the_papers_sizes():
    counts = {name: len(make_experiment(name, "paper").trials) for name in EXPERIMENTS}
    assert counts == {
        "figure2": 4 * 4 * 5,
        "figure3": 7 * 4,
        "figure4": 2 * 4 * 5,
        "figure6": 4 * 10,
        "table1": 8 * 12,
    }
    for trial in make_experiment("figure6", "paper").trials:
        assert trial.length == 1_000_000
        assert trial.settings["previous_action"] is False
        assert trial.settings.get("core_settings") == ({"heads": 3} if trial.core == "mnm-p" else None)


def test_some_panels_of_a_figure_have_the_trials_of_the_whole_one():
    whole = make_experiment("figure2", "laptop", 2)
    some = make_experiment("figure2", "laptop", 2, panels=["instance-3", "instance-1"])
    assert some.trials == tuple(t for t in whole.trials if t.panel in ("instance-1", "instance-3"))
    assert len(some.trials) == len(whole.trials) / 2


def test_models_of_stories_have_their_own_settings_and_as_many_stories_as_was_published():
    for scale in ("laptop", "paper"):
        trials = {trial.core: trial for trial in make_experiment("table1", scale).trials}
        for core, trial in trials.items():
            of_stories = core in ("tpr-rnn", "entnet", "dnc", "sdnc")
            options = trial.settings.get("task_options", {})
            assert (options.get("format") == "story") == of_stories
            assert options.get("repeat") == ("auto" if scale == "laptop" else None)
            if scale == "laptop":
                assert trial.settings["schedule"] == "linear"
                assert trial.length == (15_600 if of_stories else 7000)
        for core in ("dnc", "sdnc"):
            sizes = trials[core].settings["core_settings"]
            assert (sizes["hidden_size"], sizes["slots"], sizes["slot_size"]) == (256, 256, 64)
        assert trials["entnet"].settings["max_grad_norm"] == 40
    smoke = {trial.core: trial.settings for trial in make_experiment("table1", "smoke").trials}
    assert smoke["dnc"]["core_settings"]["slots"] == 8
    assert smoke["dnc"]["task_options"]["tasks"] == "1,20"


def test_the_papers_tables_agree_with_each_other():
    means, _, best = np.array(list(TABLE_4.values())).T
    assert means.mean() == pytest.approx(TABLE_1["MNM-p"][0][0], abs=0.005)
    assert (best <= means).all()


def write_supervised(job, rows: dict[int, float], tests: dict[int, float] | None = None) -> None:
    """A run with a curve and test errors."""
    job.folder.mkdir(parents=True)
    document = {"kind": "supervised", "config": {**job.given, "iterations": job.trial.length}}
    (job.folder / "config.json").write_text(json.dumps(document))
    lines = [f"{iteration},{error},{error}" for iteration, error in rows.items()]
    for file in ("train.csv", "valid.csv"):
        (job.folder / file).write_text("\n".join(["iteration,symbol_error,answer_error", *lines]) + "\n")
    if tests is not None:
        errors = {"symbol_error": 0.25, "answer_error": 0.5, "by_task": tests, "notes": ["all made up"]}
        (job.folder / "test.json").write_text(json.dumps(errors))


def test_means_over_seeds(jobs_of):
    jobs = [job for job in jobs_of("figure2", seeds=3) if job.trial.name.startswith("instance-3-mnm-p")]
    write_supervised(jobs[0], {1000: 0.5, 2000: 0.3, 4000: 0.1}, {})
    write_supervised(jobs[1], {1000: 0.3, 2000: 0.0})
    write_supervised(jobs[2], {1000: 0.1})
    runs = collect(jobs)
    assert [run.trained for run in runs] == [True, True, False]
    x, mean, spread = mean_curve(runs, "train.csv", "iteration", "symbol_error")
    np.testing.assert_array_equal(x, [1000, 2000, 4000])
    np.testing.assert_allclose(mean, [0.3, 0.15, 0.05])
    np.testing.assert_allclose(spread, np.array([np.std([0.5, 0.3, 0.1]), 0.15, 0.05]))
    smooth = mean_curve(runs[:1], "train.csv", "iteration", "symbol_error", width=2500)[1]
    np.testing.assert_allclose(smooth, [0.5, 0.4, 0.2])
    row = algorithmic_table("figure2", runs).rows[0]
    assert row == [
        *("instance 3", "MNM-p", "3 (1 not finished)", "2,333 ± 1,247"),
        *("2,000 (1 of 3 runs)", "25.000", "zero error"),
    ]


def test_babi_tables(jobs_of):
    jobs = [job for job in jobs_of("table1", seeds=2) if job.trial.core == "mnm-p"]
    write_supervised(jobs[0], {4000: 0.2}, {task: 0.1 if task == 3 else 0.01 for task in range(1, 21)})
    write_supervised(jobs[1], {4000: 0.2}, {task: 0.02 for task in range(1, 21)})
    one, three, four = babi_tables(collect(jobs))
    assert one.rows[0] == ["MNM-p", "2", "1.73 ± 0.28", "0.50 ± 0.50", ""]
    assert ["paper, MNM-p", "", "0.55 ± 0.74", "0.08 ± 0.28", ""] in one.rows
    assert one.notes[-1] == "Data: all made up."
    assert three.columns[:3] == ["task", "MNM-p", "paper, EntNet"]
    assert three.rows[2] == [
        "3: three supporting facts",
        *("10.00", "10.60", "3.40", "1.80", "0.70", "1.80", "0.90"),
    ]
    assert three.rows[20][:2] == ["mean error (%)", "1.450"]
    assert three.rows[21] == ["failed tasks (> 5%)", *("1", "4", "0", "2", "1", "1", "0")]
    assert four.columns == ["task", "seed 0", "seed 1", "mean", "best", "paper, mean of 12", "paper, best"]
    assert four.rows[2][1:] == ["10.00", "2.00", "6.00 ± 4.00", "2.00", "1.8 ± 0.43", "0.9"]
    assert four.markdown().startswith("| task | seed 0 |")


FIGURE4 = ("figure4", "--scale", "smoke", "--cores", "ntm,sam", "--workers", 1)


def cell(table: Path, row: dict[str, str], column: str) -> str:
    """What stands in a column of the row that has such cells."""
    with table.open(newline="") as file:
        return next(each[column] for each in csv.DictReader(file) if row.items() <= each.items())


def test_a_run_that_has_gone_on_is_tested_again(reproduce, tmp_path):
    words, directory = (*FIGURE4, "--out", tmp_path), tmp_path / "figure4-smoke"
    assert reproduce(*words)[0] == 0
    run, table = directory / "double-copy-ntm-seed0", directory / "figure4.csv"
    tested = json.loads((run / "test.json").read_text())
    model = {"task": "double copy", "model": "NTM"}
    assert cell(table, model, "test error (%)") == f"{100 * tested['symbol_error']:.3f}"
    # The parameters of another run stand for those that more training would have found.
    shutil.copy(directory / "priority-sort-ntm-seed0" / "best.pt", run / "best.pt")
    draw = ("figure4", "--scale", "smoke", "--cores", "ntm,sam", "--draw-only", "--out", tmp_path)
    status, _, err = reproduce(*draw)
    assert status == 0
    assert err.startswith("double-copy-ntm-seed0 has other parameters than those that were tested")
    assert cell(table, model, "test error (%)") == ""
    status, _, err = reproduce(*words)
    assert status == 1
    assert "best.pt" in err, "it is tested again, which these parameters do not let it"
    shutil.copy(run / "checkpoint.pt", run / "best.pt")
    assert reproduce(*words)[0] == 0
    again = json.loads((run / "test.json").read_text())
    assert again["parameters"] != tested["parameters"]
    assert cell(table, model, "test error (%)") != ""
    before = (run / "test.json").stat().st_mtime_ns
    assert reproduce(*words)[0] == 0
    assert (run / "test.json").stat().st_mtime_ns == before, "nothing was run again"


def test_errors_of_earlier_versions_count_unless_they_are_older(tmp_path):
    errors = {"symbol_error": 0.25, "answer_error": 0.5, "by_task": {}, "notes": []}
    (tmp_path / "test.json").write_text(json.dumps(errors))
    found = read_test_errors(tmp_path)
    assert found is not None
    assert found.symbol_error == 0.25
    (tmp_path / "best.pt").write_bytes(b"x")
    assert read_test_errors(tmp_path) == found, "files of one copy are in any order"
    written = (tmp_path / "test.json").stat().st_mtime
    os.utime(tmp_path / "best.pt", (written + 60, written + 60))
    assert read_test_errors(tmp_path) is None
    assert has_gone_on(tmp_path)
    tied = {**errors, "parameters": {"file": "best.pt", "sha256": hashlib.sha256(b"x").hexdigest()}}
    (tmp_path / "test.json").write_text(json.dumps(tied))
    os.utime(tmp_path / "test.json", (1, 1))
    assert read_test_errors(tmp_path) is not None, "what says whose errors it has need not be new"
    (tmp_path / "best.pt").write_bytes(b"y")
    assert read_test_errors(tmp_path) is None
    (tmp_path / "best.pt").unlink()
    assert read_test_errors(tmp_path) is not None, "parameters that were removed to save space"


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> Path:
    """Finished runs of figure 3, figure 4 and table 1, with made-up numbers."""
    script = importlib.import_module("mnm_rl.commands.reproduce")
    out = tmp_path_factory.mktemp("drawn")
    errors = {"symbol_error": 0.1, "answer_error": 0.1, "by_task": {"1": 0.1}, "notes": []}
    rows = {
        "valid.csv": "iteration,seconds,symbol_error,answer_error\n10,1,0.5,0.5\n20,2,0.4,0.4\n",
        "measurement.csv": "round,seconds,processor_seconds,peak_mebibytes\n1,0.1,0.1,nan\n",
        "progress.csv": "updates,episodes,timesteps,seconds,reward\n1,40,8000,5,1.5\n2,80,16000,9,2.5\n",
    }
    experiments = [make_experiment(name, "smoke", 1, ["ntm", "sam"]) for name in DRAWN]
    experiments.append(make_comparison("smoke", None, ["MNMMaze-5x5"], ["lstm", "gru"]))
    for experiment in experiments:
        for job in script._jobs(experiment, out / f"{experiment.name}-smoke"):
            job.folder.mkdir(parents=True)
            length = {job.program.length_option: job.trial.length}
            document = {"kind": job.program.kind.name, "config": {**job.given, **length}}
            (job.folder / "config.json").write_text(json.dumps(document))
            (job.folder / job.program.kind.curve).write_text(rows[job.program.kind.curve])
            if job.program.tested:
                (job.folder / "test.json").write_text(json.dumps(errors))
    return out


DRAWN = {
    "figure3": "length-4-ntm-seed0",
    "figure4": "double-copy-ntm-seed0",
    "figure6": "maze-ntm-seed0",
    "table1": "babi-ntm-seed0",
}


@pytest.mark.parametrize(
    ("name", "file", "content", "wrong"),
    [
        ("figure4", "test.json", "{}", "it has no by_task"),
        ("figure4", "test.json", "", "it is not JSON"),
        ("figure4", "test.json", "[]", "it is not a JSON object"),
        ("figure4", "test.json", '"symbol_error": null', "its symbol_error is null"),
        (
            "figure4",
            "test.json",
            '"symbol_error": "0.1"',
            'its symbol_error is "0.1", not a number from 0 to 1',
        ),
        ("figure4", "test.json", '"symbol_error": NaN', "its symbol_error is NaN"),
        ("figure4", "test.json", '"answer_error": 7', "its answer_error is 7"),
        ("figure4", "test.json", '"by_task": {"x": 0.1}', "its by_task has 'x', not the number of a task"),
        ("figure4", "test.json", '"notes": [1]', "its notes are not all texts"),
        ("figure4", "test.json", '"parameters": 1', "its parameters are not a file and its sha256"),
        ("table1", "test.json", '"by_task": {}', "its by_task has no task"),
        ("table1", "test.json", '"by_task": {"1": true}', "its error of task 1 is true"),
        ("figure4", "valid.csv", "iteration,answer_error\n20,0.1\n", "has no column symbol_error"),
        ("figure4", "valid.csv", "symbol_error\n0.1\n", "has no column iteration"),
        ("figure4", "valid.csv", "iteration,symbol_error\ninf,0.1\n", "its iteration has inf"),
        ("figure4", "valid.csv", "iteration,symbol_error\n20,nan\n", "its symbol_error has nan"),
        ("figure4", "valid.csv", "iteration,symbol_error\n20,1\n10,1\n", "goes from 20 back to 10"),
        ("figure4", "valid.csv", "", "is empty"),
        ("table1", "valid.csv", "iteration,symbol_error\n20,0.1\n", "has no column answer_error"),
        ("figure3", "measurement.csv", "round,peak_mebibytes\n1,2\n", "has no column seconds"),
        ("figure3", "measurement.csv", "round,seconds\n1,2\n", "has no column peak_mebibytes"),
        ("figure6", "progress.csv", "updates,episodes\n1,40\n", "has no column reward"),
        ("figure6", "progress.csv", "updates,episodes,reward\n1,40,-inf\n", "its reward has -inf"),
        ("rl", "progress.csv", "updates,timesteps,episodes,reward\n1,9999,4,1\n", "has no column seconds"),
        ("rl", "progress.csv", "timesteps,episodes,seconds\n9999,4,1\n", "has no column reward"),
        ("rl", "progress.csv", "timesteps,episodes,seconds,reward\n9999,4,1,inf\n", "its reward has inf"),
        ("rl", "config.json", '"config": {"env": "MNMMaze-5x5", "gamma": "x"}', "gamma must be a number"),
    ],
)
@pytest.mark.parametrize("words", [("--draw-only",), ()], ids=["draw", "train"])
def test_a_damaged_file_is_named_before_anything_is_done(
    words, name, file, content, wrong, drawn, reproduce, tmp_path
):
    shutil.copytree(drawn / f"{name}-smoke", tmp_path / f"{name}-smoke")
    folder = tmp_path / f"{name}-smoke"
    path = next(folder.glob("*-lstm-*")) / file if name == "rl" else folder / DRAWN[name] / file
    is_part = content.startswith('"')
    path.write_text(
        json.dumps({**json.loads(path.read_text()), **json.loads(f"{{{content}}}")}) if is_part else content
    )
    given = (
        ("--environments", "MNMMaze-5x5", "--cores", "lstm,gru") if name == "rl" else ("--cores", "ntm,sam")
    )
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    status, out, err = reproduce(name, "--scale", "smoke", *given, *words, "--out", tmp_path)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert (str(path) if file != "config.json" else str(path.parent)) in err
    assert wrong in err
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_what_is_not_damaged_is_drawn(drawn, reproduce, tmp_path):
    for name in (*DRAWN, "rl"):
        shutil.copytree(drawn / f"{name}-smoke", tmp_path / f"{name}-smoke")
        given = (
            ("--environments", "MNMMaze-5x5", "--cores", "lstm,gru")
            if name == "rl"
            else ("--cores", "ntm,sam")
        )
        status, _, err = reproduce(name, "--scale", "smoke", *given, "--draw-only", "--out", tmp_path)
        assert (status, err) == (0, "")
