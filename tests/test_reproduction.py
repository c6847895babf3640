"""Trials and sweeps: killed, stopped, failing and foreign runs, with a small program in place of training."""

import json
import os
import signal
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from mnm_rl.reproduction import processes
from mnm_rl.reproduction.processes import Stopped, run_job
from mnm_rl.reproduction.sweep import run_locally, run_on_ray
from mnm_rl.reproduction.trials import Job, Program, Trial, check, has_run, is_trained, progress
from mnm_rl.training.folder import RunKind

TRAINER = Path(__file__).parent / "tiny_trainer.py"
DEFAULTS = {"core": "none", "seed": 0, "behaviour": "good"}
PROGRAM = Program(
    kind=RunKind("tiny", "curve.csv", "round", "checkpoint"),
    command=(sys.executable, str(TRAINER)),
    flags=(),
    complete=lambda given: {**DEFAULTS, **given},
    words=lambda given: [word for name, value in given.items() for word in (f"--{name}", str(value))],
    length_option="rounds",
    free=lambda settings: ("data", "babi_supplement"),
)


def make_job(directory: Path, behaviour: str = "good", seed: int = 0, length: int = 5) -> Job:
    trial = Trial(f"{behaviour}-{seed}", "measurement", "", "none", seed, length, {"behaviour": behaviour})
    return Job(trial, PROGRAM, directory)


def commands(job: Job) -> list[str]:
    """The commands of the trial so far: which trained from the start, and which went on."""
    lines = [line for line in job.log.read_text().splitlines() if line.startswith("$")]
    return ["resume" if "--resume" in line else "start" for line in lines]


def rounds(job: Job) -> list[str]:
    return [line.strip() for line in (job.folder / "curve.csv").read_text().splitlines()[1:]]


def in_the_background(job: Job, stop: threading.Event) -> tuple[threading.Thread, list]:
    results: list = []

    def run():
        try:
            results.append(run_job(job, stop))
        except Stopped as stopped:
            results.append(stopped)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, results


def wait_until(condition) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_trial_runs_once(tmp_path):
    job = make_job(tmp_path)
    assert not has_run(job)
    assert run_job(job).error is None
    assert is_trained(job)
    assert run_job(job).error is None
    assert commands(job) == ["start"]
    assert progress(job) == 5


def test_a_longer_trial_goes_on(tmp_path):
    run_job(make_job(tmp_path))
    longer = make_job(tmp_path, length=8)
    assert not is_trained(longer)
    assert run_job(longer).error is None
    assert commands(longer) == ["start", "resume"]
    assert rounds(longer) == [str(number) for number in range(1, 9)]


def test_an_unfinished_last_line_of_a_curve_does_not_count(tmp_path):
    job = make_job(tmp_path)
    hand_made(job, 2)
    (job.folder / "curve.csv").write_text("round,loss\n1,0.5\n2,0.4\n3")
    assert progress(job) == 2


def test_a_killed_process_goes_on_from_its_checkpoint(tmp_path):
    job = make_job(tmp_path, "dies-once")
    assert run_job(job).error is None
    assert commands(job) == ["start", "resume"]
    assert rounds(job) == ["1", "2", "3", "4", "5"]


def test_a_process_killed_before_its_first_checkpoint_begins_anew(tmp_path):
    job = make_job(tmp_path, "dies-at-once")
    assert run_job(job).error is None
    assert commands(job) == ["start", "start"]
    assert rounds(job) == ["1", "2", "3", "4", "5"]


def test_a_process_that_is_killed_again_and_again_is_given_up(tmp_path):
    job = make_job(tmp_path, "always-dies")
    assert "killed by SIGKILL" in (run_job(job).error or "")
    assert len(commands(job)) == processes.ATTEMPTS


def test_stopping_saves_and_the_next_call_goes_on(tmp_path):
    job, stop = make_job(tmp_path, "slow", length=400), threading.Event()
    thread, results = in_the_background(job, stop)
    wait_until(lambda: progress(job) >= 3)
    stop.set()
    thread.join(30)
    assert isinstance(results[0], Stopped)
    saved = int((job.folder / "checkpoint").read_text())
    assert saved >= 3
    shorter = replace(job, trial=replace(job.trial, length=saved + 2))
    assert run_job(shorter).error is None
    assert rounds(job) == [str(number) for number in range(1, saved + 3)]


def test_two_processes_do_not_train_the_same_trial(tmp_path):
    job, stop = make_job(tmp_path, "slow", length=30), threading.Event()
    threads = [in_the_background(job, stop) for _ in range(2)]
    for thread, results in threads:
        thread.join(60)
        assert results[0].error is None
    assert commands(job) == ["start"]
    assert rounds(job) == [str(number) for number in range(1, 31)]


def test_what_lives_on_after_its_parent_was_killed_keeps_others_away(tmp_path):
    job = make_job(tmp_path, "slow", length=40)
    child = os.fork()
    if child == 0:
        run_job(job)
        os._exit(0)
    wait_until(lambda: progress(job) >= 2)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert run_job(job).error is None
    assert commands(job) == ["start"], "the second call has waited for the process that was left"
    assert rounds(job) == [str(number) for number in range(1, 41)]


def test_a_failed_trial_is_reported_and_others_go_on(tmp_path):
    jobs = [make_job(tmp_path, "fails"), *(make_job(tmp_path, seed=seed) for seed in range(3))]
    reported: list[str] = []
    outcomes = run_locally(jobs, 2, lambda outcome: reported.append(outcome.name))
    errors = {outcome.name: outcome.error for outcome in outcomes}
    assert sorted(reported) == sorted(errors) == ["fails-0", "good-0", "good-1", "good-2"]
    assert [name for name, error in errors.items() if error] == ["fails-0"]
    error = errors["fails-0"]
    assert error is not None
    assert "exit status 1" in error
    assert error.endswith("    line 8\n    the reason")
    assert "line 2" not in error


def test_an_interrupted_sweep_saves_what_runs_and_starts_nothing_new(tmp_path):
    jobs = [make_job(tmp_path, seed=1), make_job(tmp_path, "slow", length=400), make_job(tmp_path, seed=2)]

    def interrupt(outcome):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_locally(jobs[:2], 2, interrupt)
    assert not is_trained(jobs[1])
    assert not has_run(jobs[2])


def hand_made(job: Job, done: int, checkpoint: bool = True, **changes) -> None:
    job.folder.mkdir(parents=True)
    config = {**job.settings, "rounds": 99, **changes}
    (job.folder / "config.json").write_text(json.dumps({"kind": "tiny", "config": config}))
    lines = ["round", *map(str, range(1, done + 1))]
    (job.folder / "curve.csv").write_text("\n".join(lines) + "\n")
    if checkpoint:
        (job.folder / "checkpoint").write_text(str(done))


def test_a_run_made_by_hand_counts(tmp_path):
    job = make_job(tmp_path)
    hand_made(job, 5, checkpoint=False, checkpoint_minutes=1.0, data="elsewhere", babi_supplement=True)
    check(job)
    assert run_job(job).error is None
    assert not job.log.exists()
    unfinished = make_job(tmp_path, seed=1)
    hand_made(unfinished, 3)
    assert run_job(unfinished).error is None
    assert commands(unfinished) == ["resume"]


def test_other_runs_are_refused(tmp_path):
    job = make_job(tmp_path)
    hand_made(job, 5, seed=4)
    with pytest.raises(ValueError, match=r"good-0 holds a run with seed 4, not 0; move it away, or give ano"):
        check(job)
    assert "holds a run with seed 4" in (run_job(job).error or "")
    (job.folder / "config.json").write_text(json.dumps({"kind": "a2c", "config": {}}))
    with pytest.raises(ValueError, match="holds a run of kind a2c, not tiny"):
        check(job)
    without = make_job(tmp_path, seed=1)
    hand_made(without, 3, checkpoint=False)
    with pytest.raises(ValueError, match="is not finished and has no checkpoint to go on from"):
        check(without)
    foreign = make_job(tmp_path, seed=2)
    foreign.folder.mkdir()
    (foreign.folder / "letter.txt").write_text("do not delete")
    with pytest.raises(ValueError, match="There is no run in"):
        check(foreign)


def test_a_run_that_reached_the_error_at_which_it_stops_is_trained(tmp_path):
    job = make_job(tmp_path)
    hand_made(job, 2)
    stopping = replace(PROGRAM, complete=lambda given: {**DEFAULTS, "stop_error": 0.01, **given})
    solved = replace(job, program=stopping)
    (job.folder / "curve.csv").write_text("round,symbol_error\n1,0.5\n2,0.01\n")
    config = {**solved.settings, "rounds": 99}
    (job.folder / "config.json").write_text(json.dumps({"kind": "tiny", "config": config}))
    assert is_trained(solved)


def test_trials_on_ray(tmp_path):
    pytest.importorskip("ray")
    behaviours = ("good", "dies-once", "kills-its-parent", "fails")
    jobs = [make_job(tmp_path, behaviour) for behaviour in behaviours]
    reported: list[str] = []
    outcomes = run_on_ray(jobs, "local", lambda outcome: reported.append(outcome.name))
    assert sorted(reported) == ["dies-once-0", "fails-0", "good-0", "kills-its-parent-0"]
    assert [outcome.name for outcome in outcomes if outcome.error] == ["fails-0"]
    assert commands(jobs[1]) == ["start", "resume"]
    assert rounds(jobs[2]) == ["1", "2", "3", "4", "5"], "the task was done again, the rounds were not"


def test_a_ray_cluster_that_is_not_there_is_named():
    pytest.importorskip("ray")
    with pytest.raises(ValueError, match="There is no Ray cluster at auto"):
        run_on_ray([], "auto", lambda outcome: None)


def test_without_ray_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match=r"--ray-address needs Ray: pip install 'mnm-rl\[ray\]'"):
        run_on_ray([], "local", lambda outcome: None)
