"""What is PPO's own in the program that trains it, and that all programs take its runs."""

import json
import zipfile
from typing import Any

import pytest
from test_scripts_a2c import TINY_MAZE, load, run_script  # noqa: F401 - a fixture

from mnm_rl.training.curves import read_curve
from mnm_rl.training.folder import PPO_AGENT
from mnm_rl.training.rl.config import PPOConfig, config_from_dict, config_to_dict


@pytest.fixture
def run(run_script, tmp_path):  # noqa: F811
    """Folder of a finished run in the maze."""
    folder = tmp_path / "run"
    sizes = ["--bptt-steps", "50", "--batch-size", "400", "--n-epochs", "3", "--clip-range", "0.1"]
    status, _, err = run_script(
        "train_ppo", *TINY_MAZE, *sizes, "--episodes", "16", "--log-dir", folder, "--quiet"
    )
    assert (status, err) == (0, "")
    return folder


def test_its_settings_arrive_and_are_saved(run):
    document = json.loads((run / "config.json").read_text())
    assert document["kind"] == "ppo"
    config = config_from_dict(document["config"], PPO_AGENT)
    assert isinstance(config, PPOConfig)
    assert config_to_dict(config) == document["config"]
    agent: Any = load(run)
    assert {name: getattr(agent, name) for name in ("n_steps", "bptt_steps", "batch_size", "n_epochs")} == {
        "n_steps": 200,
        "bptt_steps": 50,
        "batch_size": 400,
        "n_epochs": 3,
    }
    assert agent.clip_range(1) == 0.1
    assert agent._n_updates == 4 * 3
    assert agent.entropy_kind == "entropy"


def test_its_curve_counts_rollouts_and_tells_how_far_the_policy_moved(run):
    curve = read_curve(run / "progress.csv")
    assert curve["updates"] == [2, 4]
    assert curve["timesteps"] == [1600, 3200]
    assert curve["episodes"] == [8, 16]
    assert all(0 < value < 1 for value in curve["approx_kl"])
    assert all(0 <= value < 1 for value in curve["clip_fraction"])


def test_all_programs_take_its_runs(run_script, run, tmp_path):  # noqa: F811
    status, out, _ = run_script("evaluate", run, "--episodes", "4")
    assert status == 0
    assert "4 updates" in out
    assert "agent, deterministic" in out
    status, out, err = run_script("analyze", run, "--out", tmp_path / "pictures", "--episodes", "4")
    assert (status, err) == (0, "")
    assert (tmp_path / "pictures" / "maze-agent.gif").exists()
    status, out, _ = run_script("plot_curves", run, "--out", tmp_path / "curves.png", "--window", "0")
    assert status == 0
    assert (tmp_path / "curves.png").exists()


def test_each_program_goes_on_with_its_own_runs_only(run_script, run):  # noqa: F811
    status, out, err = run_script("train_a2c", "--resume", run)
    assert (status, out) == (2, "")
    assert f"{run} holds a run of kind ppo, not a2c." in err
    kind = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({**kind, "kind": "a2c"}))
    status, out, err = run_script("train_ppo", "--resume", run)
    assert (status, out) == (2, "")
    assert f"{run} holds a run of kind a2c, not ppo." in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--batch-size", "300"], "batch_size counts steps, and must hold whole sequences of 200"),
        (["--bptt-steps", "201"], "bptt_steps must be at most n_steps, 200, got 201."),
        (["--bptt-steps", "30"], "bptt_steps must divide n_steps, 200, evenly, got 30; 25 does."),
        (["--n-epochs", "0"], "n_epochs must be at least 1"),
        (["--clip-range", "0"], "clip_range must be positive"),
        (["--target-kl", "-1"], "target_kl must be positive"),
        (["--preset", "soonest"], "There is no option --preset"),
        (["--core", "lstm-salu", "--bptt-steps", "50"], "whose state grows with every step"),
    ],
)
def test_bad_options_get_one_sentence_and_leave_nothing_behind(
    run_script,  # noqa: F811
    tmp_path,
    arguments,
    message,
):
    maze = ["--env", "MNMMaze-5x5", "--n-envs", "4"]
    status, out, err = run_script("train_ppo", *maze, *arguments, "--log-dir", tmp_path / "run")
    assert (status, out) == (2, "")
    assert message in err
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


def change_config(run, **changes: object) -> None:
    document = json.loads((run / "config.json").read_text())
    document["config"].update(changes)
    (run / "config.json").write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"core_settings": {"hidden_size": 9}}, "was made with hidden_size 8, and"),
        ({"previous_action": False}, "was made with previous_action None, and"),
        ({"env": "MNMMaze-7x7"}, "was made with env MNMMaze-5x5, and"),
        ({"env": "nowhere:MNMMaze-5x5"}, "for which the module nowhere would be imported"),
        ({"vf_coef": 0.75}, "was made with vf_coef 0.01, and"),
        ({"n_envs": 8}, "was made with n_envs 4, and"),
        ({"clip_range": 0.3}, "was made with clip_range 0.1, and"),
    ],
)
def test_a_config_of_another_agent_is_refused(run_script, run, changes, message):  # noqa: F811
    change_config(run, **changes)
    value = next(iter(changes.values()))
    for command, *words in (
        ("evaluate", run, "--episodes", "4"),
        ("analyze", run, "--episodes", "4"),
        ("train_ppo", "--resume", run, "--quiet", "--no-tensorboard"),
    ):
        status, _, err = run_script(command, *words)
        assert (status, err.count("\n")) == (2, 1), err
        assert message in err
        assert "module" in err or f"{run / 'config.json'} says {value if name_of(value) else 9}" in err


def name_of(value: object) -> bool:
    """Whether a value is a setting itself, not those of a core."""
    return not isinstance(value, dict)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"core_layers": 2}, "was made with core_layers 1, and"),
        ({"net_arch": [4]}, "was made with net_arch [], and"),
        ({"max_grad_norm": 0.1}, "was made with max_grad_norm"),
        ({"adam_epsilon": 0.1}, "was made with adam_epsilon 1e-05, and"),
        ({"seed": 3}, "was made with seed 0, and"),
        ({"clip_range": 0.3}, "was made with clip_range 0.1, and"),
        ({"entropy_kind": "concentration"}, "was made with entropy_kind entropy, and"),
    ],
)
def test_a_former_agent_is_compared_by_what_it_has(run_script, run, changes, message):  # noqa: F811
    path = run / "checkpoint.zip"
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    data = json.loads(members["data"])
    del data["callback_state"]["config"]
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {**members, "data": json.dumps(data).encode()}.items():
            archive.writestr(name, content)
    assert run_script("evaluate", run, "--episodes", "4")[0] == 0
    change_config(run, **changes)
    for words in (("evaluate", run, "--episodes", "4"), ("train_ppo", "--resume", run, "--quiet")):
        status, _, err = run_script(*words)
        assert (status, err.count("\n")) == (2, 1), err
        assert message in err


def test_a_run_is_not_made_shorter_than_it_is(run_script, run):  # noqa: F811
    before = (run / "config.json").read_bytes()
    status, _, err = run_script("train_ppo", "--resume", run, "--episodes", "4", "--quiet")
    assert status == 2
    assert "The run has made 3200 timesteps of 3200; timesteps and episodes cannot make it shorter" in err
    assert (run / "config.json").read_bytes() == before


def test_pictures_are_checked_before_anything_is_played(run_script, run, tmp_path):  # noqa: F811
    (tmp_path / "folder.png").mkdir()
    for words, message in (
        (["--picture-steps", "5"], "picture_steps is of a picture; give --picture, too."),
        (["--picture", tmp_path / "a.png", "--picture-steps", "201"], "picture_steps must be at most 200"),
        (["--picture", tmp_path / "folder.png"], "is a folder, not a file"),
        (["--picture", tmp_path / "a.gif", "--video", tmp_path / "a.gif"], "cannot both be"),
        (["--seed", str(2**32)], "seed must not be negative and less than 2^32"),
    ):
        status, out, err = run_script("evaluate", run, "--episodes", "4", *words)
        assert (status, out) == (2, "")
        assert message in err


def test_where_episodes_are_slow_fewer_are_played(run_script, tmp_path, monkeypatch):  # noqa: F811
    from mnm_rl.commands import evaluate

    monkeypatch.setattr(evaluate, "FEWEST_EPISODES", 20)
    folder = tmp_path / "cartpole"
    words = [
        "--env",
        "CartPole-v1",
        "--core",
        "lstm",
        "--hidden-size",
        "4",
        "--n-envs",
        "4",
        "--n-steps",
        "16",
    ]
    run_script("train_ppo", *words, "--timesteps", "64", "--no-tensorboard", "--quiet", "--log-dir", folder)
    monkeypatch.setattr(evaluate, "SECONDS", 0.0)
    assert "20 episodes each" in run_script("evaluate", folder)[1]
    monkeypatch.setattr(evaluate, "SECONDS", 1e9)
    monkeypatch.setattr(evaluate, "EPISODES", 40)
    assert "40 episodes each" in run_script("evaluate", folder)[1]
    assert "6 episodes each" in run_script("evaluate", folder, "--episodes", "6")[1]
