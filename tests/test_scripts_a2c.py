"""The scripts that train and evaluate agents, as they are used from a shell."""

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mnm_rl.agents.on_policy import RecurrentOnPolicyAlgorithm
from mnm_rl.training.curves import read_curve
from mnm_rl.training.rl.agent import ALGORITHMS, policy_name, updates_made
from mnm_rl.training.rl.config import A2CConfig, config_from_dict, config_to_dict
from mnm_rl.training.rl.environments import EnvConfig, make_env
from mnm_rl.training.rl.presets import PRESETS, preset_config

SCRIPTS = Path(__file__).parent.parent / "scripts"
TINY_MAZE = ["--env", "MNMMaze-5x5", "--n-envs", "4", "--core", "lstm", "--hidden-size", "8"]
TINY_MAZE += ["--log-every", "2", "--no-tensorboard"]


@pytest.fixture
def run_script(monkeypatch, capsys):
    """Run a script in this process; returns its exit status, stdout and stderr."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def run(name: str, *arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments)])
        status = 0
        try:
            importlib.import_module(f"mnm_rl.commands.{name}").run_from_command_line()
        except SystemExit as stop:
            status = int(stop.code or 0)
        return status, *capsys.readouterr()

    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)


BOTH = pytest.mark.parametrize("train", ["train_a2c", "train_ppo"])
"""What holds for both programs."""


def load(directory: Path) -> RecurrentOnPolicyAlgorithm:
    kind = json.loads((directory / "config.json").read_text())["kind"]
    return ALGORITHMS[kind].load(directory / "checkpoint.zip", device="cpu")


def parameters(directory: Path) -> list[np.ndarray]:
    agent = load(directory)
    return [value.numpy() for value in agent.policy.state_dict().values()]


@BOTH
def test_a_run_its_continuation_and_its_evaluation(train, run_script, tmp_path):
    run, whole = tmp_path / "run", tmp_path / "whole"
    constant = [*TINY_MAZE, "--schedule", "constant"]  # a falling rate depends on the length of the run
    status, out, _ = run_script(train, *constant, "--log-dir", run, "--episodes", "12")
    assert status == 0
    assert f"evaluate.py {run}" in out.replace("\n", "")
    # As if the process had been killed later, in the middle of a row.
    with (run / "progress.csv").open("a") as file:
        file.write("4,16,3200,1.0,5,0,0,0,0,0,0,0,0,0\r\n6,24,48")
    assert run_script(train, "--resume", run, "--episodes", "24", "--quiet")[:2] == (0, "")
    run_script(train, *constant, "--log-dir", whole, "--episodes", "24", "--quiet")
    for first, second in zip(parameters(run), parameters(whole), strict=True):
        np.testing.assert_array_equal(first, second)
    curve, expected = read_curve(run / "progress.csv"), read_curve(whole / "progress.csv")
    assert curve["updates"] == [2, 4, 6]
    assert curve["episodes"] == [8, 16, 24]
    assert curve["timesteps"] == [1600, 3200, 4800]
    del curve["seconds"], expected["seconds"]
    assert curve == expected
    assert json.loads((run / "config.json").read_text())["config"]["episodes"] == 24

    video = tmp_path / "episode.gif"
    status, out, _ = run_script("evaluate", run, "--episodes", "4", "--video", video)
    assert status == 0
    rows = {line.split("  ")[0]: line.split() for line in out.splitlines()[2:-1]}
    assert list(rows) == [
        *("agent, stochastic", "agent, deterministic"),
        *("random player", "belief player", "oracle player"),
    ]
    assert float(rows["oracle player"][2]) > float(rows["random player"][2])
    assert rows["oracle player"][-2] == "0.0%", "episodes without a find"
    assert getattr(Image.open(video), "n_frames", 1) > 100
    again = run_script("evaluate", run / "checkpoint.zip", "--episodes", "4")[1]
    assert again.splitlines()[2:] == out.splitlines()[2:-1], "the same seed gives the same scores"


@BOTH
def test_a_run_that_goes_on_with_other_settings(train, run_script, tmp_path):
    run = tmp_path / "run"
    arguments = [*TINY_MAZE, "--schedule", "constant", "--episodes", "8", "--quiet"]
    run_script(train, *arguments, "--log-dir", run)
    changes = ["--episodes", "16", "--schedule", "linear", "--gamma", "0.8", "--ent-coef-end", "0.01"]
    assert run_script(train, "--resume", run, *changes, "--quiet")[0] == 0
    agent = load(run)
    assert agent.gamma == 0.8
    first = {"train_a2c": 0.03, "train_ppo": 0.01}[train]
    assert agent.ent_coef == pytest.approx(first + (0.01 - first) * 12 / 16)
    assert read_curve(run / "progress.csv")["learning_rate"] == pytest.approx([0.001, 0.0])
    document = json.loads((run / "config.json").read_text())
    (change,) = document["changes"]
    assert change["at"] == "timestep 1600"
    assert change["gamma"] == {"from": 0.9, "to": 0.8}
    assert document["config"]["schedule"] == "linear"


def test_a_preset_and_what_goes_before_it(run_script, tmp_path):
    arguments = [*TINY_MAZE, "--preset", "soonest", "--episodes", "4", "--quiet"]
    assert run_script("train_a2c", *arguments, "--log-dir", tmp_path / "run")[0] == 0
    config = json.loads((tmp_path / "run" / "config.json").read_text())["config"]
    assert {name: config[name] for name in PRESETS["soonest"]} == {**PRESETS["soonest"], "episodes": 4}
    assert config["core_settings"] == {"hidden_size": 8, "forget_bias": None}
    refused = run_script("train_a2c", "--preset", "soonest", "--resume", tmp_path / "run")
    assert (refused[0], refused[2].count("\n")) == (2, 1)
    assert "A preset is for a new run" in refused[2]


def test_all_presets_can_be_run():
    for name in PRESETS:
        for core in ("mnm-p", "lstm", "plastic"):
            preset_config(name, core).check()
    assert preset_config("paper").all_core_settings()["heads"] == 3
    assert preset_config("paper", "lstm").core_settings == {}
    with pytest.raises(ValueError, match="Unknown preset 'best'; known presets: paper, soonest, highest"):
        preset_config("best")


@BOTH
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_says_how_to_go_on(train, number, tmp_path):
    command = [sys.executable, str(SCRIPTS / f"{train}.py"), *TINY_MAZE, "--log-dir", str(tmp_path / "run")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        deadline = time.monotonic() + 60
        while not (tmp_path / "run" / "progress.csv").exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        process.send_signal(number)
        assert process.stdout is not None
        out = process.stdout.read()
    assert process.returncode == 130
    updates = updates_made(load(tmp_path / "run"))
    assert updates >= 2
    again = f"python scripts/{train}.py --resume {tmp_path / 'run'}"
    assert f"Stopped after {updates} updates. Go on with: {again}" in out


@BOTH
def test_cartpole_without_velocities(train, run_script, tmp_path):
    arguments = ["--env", "CartPole-v1", "--drop-observations", "1,3", "--core", "gru", "--n-envs", "2"]
    arguments += ["--log-dir", tmp_path / "run", "--timesteps", "512", "--n-steps", "64", "--log-every", "1"]
    rate = ["--learning-rate", "0.001", "--schedule", "linear"]
    assert run_script(train, *arguments, *rate, "--quiet")[0] == 0
    assert read_curve(tmp_path / "run" / "progress.csv")["learning_rate"] == [0.00075, 0.0005, 0.00025, 0]
    assert any((tmp_path / "run").glob("events.*"))
    status, out, _ = run_script(train, "--resume", tmp_path / "run", "--timesteps", "768", "--quiet")
    assert status == 0
    assert len(read_curve(tmp_path / "run" / "progress.csv")["updates"]) == 6
    assert load(tmp_path / "run").observation_space.shape == (2,)
    status, out, _ = run_script("evaluate", tmp_path / "run", "--episodes", "3")
    assert status == 0
    assert "player" not in out


@pytest.mark.learning
@pytest.mark.parametrize("core", ["lstm", "mnm-p"])
def test_both_cores_solve_cartpole_without_velocities(core, run_script, tmp_path):
    arguments = ["--env", "CartPole-v1", "--drop-observations", "1,3", "--core", core, "--hidden-size", "64"]
    if core == "mnm-p":
        arguments += ["--core.key-size", "32", "--core.value-size", "32", "--core.memory-widths", "32", "32"]
    arguments += ["--n-envs", "8", "--n-steps", "32", "--timesteps", "500000", "--reward-scale", "0.05"]
    arguments += ["--gae-lambda", "0.95", "--vf-coef", "0.5", "--ent-coef", "0.001"]
    arguments += ["--learning-rate", "0.003", "--schedule", "linear", "--quiet", "--gamma", "0.99"]
    arguments += ["--max-grad-norm", "4", "--no-normalize-advantage", "--normalize", "none"]
    run_script("train_a2c", *arguments, "--log-dir", tmp_path / "run")
    _, out, _ = run_script("evaluate", tmp_path / "run", "--episodes", "100")
    scores = {line[:20].strip(): float(line[20:29]) for line in out.splitlines()[2:]}
    assert scores["agent, deterministic"] > 475


def test_minigrid_is_seen_as_a_one_hot_vector():
    env = make_env(EnvConfig(env="MiniGrid-MemoryS7-v0"), 2)
    observations = env.reset()
    assert isinstance(observations, np.ndarray)
    assert observations.shape == (2, 7 * 7 * (11 + 6 + 3))
    np.testing.assert_array_equal(observations.sum(1), 7 * 7 * 3)
    assert policy_name(env.observation_space) == "MlpPolicy"
    image = env.get_attr("unwrapped")[0].gen_obs()["image"]
    objects = observations[0, : 49 * 11].reshape(7, 7, 11).argmax(-1)
    np.testing.assert_array_equal(objects, image[..., 0])


def test_environments_in_processes_of_their_own():
    env = make_env(EnvConfig(env="CartPole-v1", drop_observations="1,3", subprocesses=True), 1)
    observations = env.reset()
    assert isinstance(observations, np.ndarray)
    assert observations.shape == (1, 2)
    env.close()


def test_a_config_survives_json():
    given = {"heads": 2, "key_size": 7, "memory_widths": (5, 4)}
    values = config_to_dict(A2CConfig(env="CartPole-v1", core="mnm-g", core_settings=given, gamma=0.5))
    again = config_from_dict(json.loads(json.dumps(values)))
    assert config_to_dict(again) == values
    assert given.items() <= again.all_core_settings().items()


def test_settings_of_the_core_as_they_used_to_be_saved():
    former = {"core": "mnm-g", "hidden_size": 9, "heads": None, "core_kwargs": '{"memory_widths": [5]}'}
    settings = config_from_dict(former).all_core_settings()
    assert (settings["hidden_size"], settings["heads"], settings["memory_widths"]) == (9, 1, (5,))


def test_defaults_depend_on_the_environment():
    maze = A2CConfig(env_kwargs='{"horizon": 50}')
    assert (maze.total_timesteps, maze.rollout_steps, maze.discount) == (60_000 * 50, 50, 0.9)
    assert not maze.bootstraps
    other = A2CConfig(env="CartPole-v1")
    others = A2CConfig.defaults.others
    assert (other.total_timesteps, other.rollout_steps) == (500_000, others["n_steps"])
    assert other.discount == others["gamma"]
    assert other.bootstraps


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--core", "lstn"], "Unknown core 'lstn'"),
        (["--core", "lstm", "--heads", "2"], "has no setting heads"),
        (["--core-kwargs", "{}"], "--core.key-size 64 instead of --core-kwargs"),
        (["--core.key-size", "x"], "Error parsing --core.key-size: invalid literal for int"),
        (["--core.kernel", "gpu"], "Invalid choice 'gpu' for argument '--core.kernel'. Expected one of"),
        (["--core.speed", "1"], "The core mnm-p has no setting speed; its settings: hidden_size, "),
        (["--learning-rte", "1"], "There is no option --learning-rte; did you mean --learning-rate"),
        (["--preset", "best"], "Unknown preset 'best'; known presets: paper, soonest, highest"),
        (["surprise"], "Unexpected 'surprise'; --help lists the options"),
        (["--seed", "1", "--seed", "2"], "--seed is given twice"),
        (["--quiet", "--no-quiet"], "--quiet is given twice"),
        (["--hidden-size", "4", "--core.hidden-size", "5"], "--core.hidden-size is given twice"),
        (["--seed", str(2**32)], "seed must not be negative and less than 2^32"),
        (["--threads", "100000"], "threads must be at least 1 and at most 1024"),
        (["--core.recall-weights", "nan"], "recall_weights must be finite numbers"),
        (["--env", "FrozenLake-v1", "--env-kwargs", '{"map_name": "9x9"}'], "cannot be made: '9x9'"),
        (["--hidden-size", "0"], "hidden_size must be at least 1"),
        (["--env", "MNMMaze-8x8"], "size must be an odd whole number"),
        (["--env", "MNMMaze-9x7"], "MNMMaze-9x7 is not square"),
        (["--env-kwargs", '{"size": 8}'], "size must be an odd whole number"),
        (["--env-kwargs", '{"speed": 8}'], "unexpected keyword argument 'speed'"),
        (["--env-kwargs", "size=8"], "env_kwargs must be JSON"),
        (["--env", "NoSuchThing-v0"], "The environment 'NoSuchThing-v0' cannot be made"),
        (["--env", "no_such_module:Thing-v0"], "cannot be made"),
        (["--previous-reward"], "The maze always shows the previous reward"),
        (["--env", "CartPole-v1", "--drop-observations", "7"], "does not fit an observation of 4"),
        (["--env", "CartPole-v1", "--drop-observations", "x"], "must be whole numbers"),
        (["--env", "CartPole-v1", "--episodes", "7"], "use timesteps"),
        (["--drop-observations", "1"], "not for the maze"),
        (["--n-envs", "0"], "n_envs must be at least 1"),
        (["--episodes", "0"], "episodes must be at least 1"),
        (["--episodes", "9", "--timesteps", "9"], "not both"),
        (["--learning-rate", "-1"], "learning_rate must be positive"),
        (["--gamma", "1.5"], "gamma must be between 0 and 1"),
        (["--gamma-end", "-0.1"], "gamma_end must be between 0 and 1"),
        (["--ent-coef-end", "-1"], "ent_coef_end must not be negative"),
        (["--threads", "0"], "threads must be at least 1"),
        (["--device", "abacus"], "device must be cpu or cuda"),
    ],
)
def test_bad_options_get_one_sentence_and_leave_nothing_behind(run_script, tmp_path, arguments, message):
    status, out, err = run_script("train_a2c", *arguments, "--log-dir", tmp_path / "run")
    assert status == 2
    assert out == ""
    assert message in err
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


@BOTH
def test_a_folder_with_something_in_it_is_left_alone(train, run_script, tmp_path):
    (tmp_path / "note.txt").write_text("mine")
    status, _, err = run_script(train, *TINY_MAZE, "--log-dir", tmp_path)
    assert status == 2
    assert "is not an empty folder" in err
    assert [path.name for path in tmp_path.iterdir()] == ["note.txt"]


def test_a_folder_that_cannot_be_written(run_script, tmp_path):
    (tmp_path / "file").write_text("")
    status, _, err = run_script("train_a2c", *TINY_MAZE, "--log-dir", tmp_path / "file" / "run")
    assert status == 2
    assert "Cannot write to the directory" in err


@BOTH
def test_runs_that_cannot_go_on(train, run_script, tmp_path):
    assert "There is no run in" in run_script(train, "--resume", tmp_path)[2]
    run = tmp_path / "run"
    run_script(train, *TINY_MAZE, "--log-dir", run, "--episodes", "4", "--quiet")
    for core in ("gru", "mnm-p"):
        status, _, err = run_script(train, "--resume", run, "--core", core)
        assert status == 2
        assert f"has core lstm, not {core}" in err
    whole = (run / "checkpoint.zip").read_bytes()
    (run / "checkpoint.zip").write_bytes(whole[:-100])
    for script, arguments in ((train, ["--resume", run]), ("evaluate", [run])):
        status, _, err = run_script(script, *arguments)
        assert status == 2
        assert "checkpoint.zip is incomplete or damaged" in err
    (run / "checkpoint.zip").write_bytes(whole)
    document = json.loads((run / "config.json").read_text())
    document["config"] |= {"core": "gru", "core_settings": {"hidden_size": 8}}
    (run / "config.json").write_text(json.dumps(document))
    status, _, err = run_script(train, "--resume", run)
    assert status == 2
    assert "was made with core lstm, and" in err
    (run / "config.json").write_text(json.dumps({**document, "config": {"colour": 1}}))
    assert "does not know: colour" in run_script(train, "--resume", run)[2]


@BOTH
def test_a_resumed_run_stays_in_its_folder(train, run_script, tmp_path):
    status, _, err = run_script(train, "--resume", tmp_path / "run", "--log-dir", tmp_path / "other")
    assert status == 2
    assert "There is no run" in err
    run_script(train, *TINY_MAZE, "--log-dir", tmp_path / "run", "--episodes", "4", "--quiet")
    status, _, err = run_script(train, "--resume", tmp_path / "run", "--log-dir", tmp_path / "other")
    assert status == 2
    assert "leave out --log-dir or --resume" in err


def test_what_is_given_goes_before_a_preset(run_script, tmp_path):
    arguments = [*TINY_MAZE, "--preset", "soonest", "--timesteps", "1600", "--quiet"]
    assert run_script("train_a2c", *arguments, "--log-dir", tmp_path / "run")[0] == 0
    config = json.loads((tmp_path / "run" / "config.json").read_text())["config"]
    assert (config["timesteps"], config["episodes"]) == (1600, None)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"n_envs": 1.5}, "n_envs must be a whole number, got 1.5"),
        ({"seed": True}, "seed must be a whole number, got True"),
        ({"drop_observations": 5}, "drop_observations must be a text, got 5"),
        ({"schedule": "falling"}, "schedule must be one of constant, linear, got 'falling'"),
        ({"core_settings": []}, "core_settings must be settings by their names"),
        (
            {"core": "lstm", "core_settings": {"hidden_size": "8"}},
            "hidden_size must be a whole number, got '8'",
        ),
        ({"core_settings": {"memory_widths": [8, "x"]}}, "memory_widths must be several of: a whole number"),
        ({"gamma": "x"}, "gamma must be a number or nothing, got 'x'"),
    ],
)
def test_values_of_a_config_are_of_their_types(values, message):
    with pytest.raises((TypeError, ValueError), match=message):
        config_from_dict(values)


def test_evaluations_that_are_refused(run_script, tmp_path):
    run = tmp_path / "run"
    run_script("train_a2c", *TINY_MAZE, "--log-dir", run, "--episodes", "4", "--quiet")
    for arguments, message in (
        ([tmp_path / "nothing"], "There is no run at"),
        ([run, "--episodes", "1"], "episodes must be at least 2"),
        ([run, "--video", tmp_path / "episode.mp4"], "must end in .gif"),
        ([run, "--instance", "2"], "instance is for runs of dictionary inference"),
        ([run, "--data", "here"], "data is for runs of bAbI, not for an agent"),
    ):
        status, out, err = run_script("evaluate", *arguments)
        assert (status, out) == (2, "")
        assert message in err


def test_what_belongs_to_another_run_is_refused(run_script, tmp_path):
    for words, message in (
        (["--env", "CartPole-v1", "--preset", "soonest"], "The preset soonest is for the maze"),
        (["--trusted"], "--trusted is about the run that --resume goes on with"),
        (["--env", "a:b:c"], "env must be an id of Gymnasium's or module:id"),
        (["--env", "CartPole-v1", "--drop-observations", "1,1"], "must be different and not negative"),
    ):
        status, _, err = run_script("train_a2c", *words, "--log-dir", tmp_path / "run")
        assert (status, err.count("\n")) == (2, 1)
        assert message in err
    assert list(tmp_path.iterdir()) == []
