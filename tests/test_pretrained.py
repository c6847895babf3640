"""Models as folders of plain files: what is written is what comes back, and what is wrong is one sentence."""

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from gymnasium import spaces
from own_envs import Sampled
from safetensors.numpy import load_file, save_file
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

import mnm_rl
from mnm_rl.agents import RecurrentA2C, RecurrentPPO
from mnm_rl.commands import save_pretrained
from mnm_rl.commands.save_pretrained import make_model, share
from mnm_rl.model_files.card import Card, Score, card_text
from mnm_rl.model_files.folder import CHECKSUM, read_config
from mnm_rl.model_files.spaces import space_from_plain, space_to_plain
from mnm_rl.pretrained import MODELS_FOLDER, SHIPPED, load_agent
from mnm_rl.training.folder import AGENTS, SUPERVISED, read_kind
from mnm_rl.training.rl.agent import read_agent
from mnm_rl.training.rl.config import config_from_dict
from mnm_rl.training.supervised.config import SupervisedConfig
from mnm_rl.training.supervised.pretrained import load_model, save_model
from mnm_rl.training.supervised.trainer import build_model, evaluate

ROOT = Path(__file__).parent.parent
SMALL = {"hidden_size": 6, "key_size": 4, "value_size": 5, "memory_widths": (3,), "heads": 2}
SCORE = Score("mean_reward", "mean reward of 10 episodes", 3.5, 3.0, 4.0)
SPACES = [
    spaces.Box(-1.0, np.inf, (2, 3), np.float32),
    spaces.Box(np.array([0.1, -5], np.float32), np.array([0.3, np.inf], np.float32)),
    spaces.Box(0, 255, (3, 4, 4), np.uint8),
    spaces.Discrete(5, start=-2),
    spaces.MultiDiscrete([3, 2], start=[1, 5]),
    spaces.MultiBinary(4),
    spaces.Dict({"b": spaces.Discrete(3), "a": spaces.Box(-1, 1, (2,))}),
]


def small_agent(algorithm: Any = RecurrentA2C, env: Any = "CartPole-v1", **settings: Any):
    core: Any = {"core": "mnm-p", "core_kwargs": SMALL}
    return algorithm("MlpPolicy", env, n_steps=8, policy_kwargs=core, seed=0, device="cpu", **settings)


@pytest.fixture
def saved(tmp_path):
    folder = tmp_path / "model"
    small_agent().save_pretrained(folder, Card(scores=[SCORE]))
    return folder


def same_actions(one, other, steps: int = 20) -> None:
    space, mine, theirs = one.observation_space, None, None
    space.seed(0)
    for step in range(steps):
        observation = space.sample()
        starts = np.array([step % 7 == 0])
        action, mine = one.predict(observation, mine, starts, deterministic=True)
        expected, theirs = other.predict(observation, theirs, starts, deterministic=True)
        np.testing.assert_array_equal(action, expected)
        for part, wanted in zip(mine, theirs, strict=True):
            np.testing.assert_array_equal(part, wanted)


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_a_space_comes_back(space):
    back = space_from_plain(json.loads(json.dumps(space_to_plain(space), allow_nan=False)))
    assert back == space
    assert back.dtype == space.dtype


@pytest.mark.parametrize(
    "values",
    [
        3,
        {},
        {"kind": "Text"},
        {"kind": "Box", "dtype": "O", "shape": [1], "low": 0, "high": 1},
        {"kind": "Box", "dtype": "float32", "shape": [10**9, 10**9], "low": 0, "high": 1},
        {"kind": "Box", "dtype": "float32", "shape": [2], "low": [0], "high": 1},
        {"kind": "Discrete", "dtype": "int64", "n": 0, "start": 0},
        {"kind": "Discrete", "dtype": "int64", "n": 10**12, "start": 0},
        {"kind": "MultiDiscrete", "dtype": "int64", "nvec": [10**12], "start": [0]},
        {"kind": "MultiBinary", "dtype": "int8", "n": [10**12]},
    ],
)
def test_what_is_no_space(values):
    with pytest.raises(ValueError, match="not the values of a space"):
        space_from_plain(values)


@pytest.mark.parametrize("algorithm", [RecurrentA2C, RecurrentPPO])
def test_an_agent_comes_back_and_can_go_on_learning(algorithm, tmp_path):
    agent = small_agent(algorithm, learning_rate=lambda left: 1e-3 * left, gamma=0.9)
    agent.learn(16)
    agent.save_pretrained(tmp_path / "model")
    back = algorithm.from_pretrained(tmp_path / "model", device="cpu")
    same_actions(agent, back)
    assert (back.gamma, back.n_steps, back.learning_rate, back.num_timesteps) == (0.9, 8, 1e-3, 16)
    assert back.policy.memory.config == agent.policy.memory.config
    learner = algorithm.from_pretrained(tmp_path / "model", env="CartPole-v1", device="cpu", gamma=0.5)
    same_actions(agent, learner)
    assert learner.gamma == 0.5
    learner.learn(16)
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]


def test_layers_around_the_core_and_classes_come_back(tmp_path):
    kwargs: dict[str, Any] = {
        "core": "gru",
        "core_layers": 2,
        "encoder_arch": [5],
        "separate_critic": True,
        "net_arch": {"pi": [4], "vf": [3]},
        "activation_fn": torch.nn.ReLU,
        "optimizer_class": torch.optim.RMSprop,
        "optimizer_kwargs": {"alpha": 0.9},
    }
    agent = RecurrentPPO(
        "MultiInputPolicy",
        DummyVecEnv([lambda: Sampled(SPACES[-1], SPACES[4])] * 2),
        n_steps=8,
        policy_kwargs=kwargs,
        device="cpu",
    )
    agent.save_pretrained(tmp_path)
    back = RecurrentPPO.from_pretrained(tmp_path, device="cpu")
    same_actions(agent, back)
    assert back.policy.activation_fn is torch.nn.ReLU
    assert isinstance(back.policy.optimizer, torch.optim.RMSprop)
    assert back.policy.optimizer_kwargs == {"alpha": 0.9}


@pytest.mark.parametrize("kind", ["array", "dictionary"])
def test_statistics_of_normalisation_come_back(kind, tmp_path):
    space = spaces.Box(-5, 5, (3,))
    env = Sampled(space if kind == "array" else spaces.Dict({"a": space}), spaces.Discrete(2))
    policy = "MlpPolicy" if kind == "array" else "MultiInputPolicy"
    agent = RecurrentA2C(policy, VecNormalize(DummyVecEnv([lambda: env])), n_steps=8, device="cpu")
    agent.learn(24)
    agent.save_pretrained(tmp_path)
    back = RecurrentA2C.from_pretrained(tmp_path, device="cpu")
    mine: Any = agent.normalize_env(env)
    theirs: Any = back.normalize_env(env)
    for name in ("obs_rms", "ret_rms"):
        for one, other in zip(
            parts(getattr(mine, name, None)), parts(getattr(theirs, name, None)), strict=True
        ):
            np.testing.assert_array_equal(one.mean, other.mean)
            np.testing.assert_array_equal(one.var, other.var)
            assert one.count == other.count
    learner = RecurrentA2C.from_pretrained(tmp_path, VecNormalize(DummyVecEnv([lambda: env])), device="cpu")
    taken: Any = learner.normalize_env(env)
    assert parts(taken.obs_rms)[0].count == parts(mine.obs_rms)[0].count


def parts(statistics: Any) -> list[Any]:
    return list(statistics.values()) if isinstance(statistics, dict) else [statistics]


def test_the_card_is_one_that_hugging_face_reads(tmp_path):
    card = Card("name", "It plays.", "mnm-rl train-a2c", 3, "CartPole-v1", "mnm-rl evaluate name", [SCORE])
    small_agent().save_pretrained(tmp_path, card)
    text = (tmp_path / "README.md").read_text()
    head = yaml.safe_load(text.split("---\n")[1])
    (entry,) = head["model-index"]
    (result,) = entry["results"]
    assert (head["library_name"], entry["name"]) == ("mnm-rl", "name")
    assert result["dataset"] == {"type": "CartPole-v1", "name": "CartPole-v1"}
    assert result["task"]["type"] == "reinforcement-learning"
    assert result["metrics"][0]["value"] == 3.5
    for part in (
        "It plays.",
        "mnm-rl train-a2c",
        "Seed 3",
        "mnm-rl evaluate name",
        "3 to 4",
        "load_pretrained",
    ):
        assert part in text


def test_a_card_says_what_is_known_of_the_data_and_what_is_not_known_of_the_score():
    text = card_text(Card("name", notes=["parts are SYNTHETIC", "others too"]), "other", [], "use()")
    assert "No evaluation was made for this card.\n\n- parts are SYNTHETIC\n- others too\n\n## Use" in text


def test_what_a_task_says_of_its_data_is_on_the_card(tmp_path, monkeypatch):
    config = SupervisedConfig(task="double-copy", core="gru", core_settings={"hidden_size": 5}, batch_size=4)
    task = config.make_task()
    monkeypatch.setattr(type(task), "notes", ["parts are SYNTHETIC"])
    run = (config, task, build_model(config, task))
    monkeypatch.setattr(save_pretrained, "load_run", lambda *args: run)
    monkeypatch.setattr(save_pretrained, "read_kind", lambda *args: (SUPERVISED, {}))
    make_model(save_pretrained.Args(), tmp_path / "run", tmp_path / "model", "It copies.")
    text = (tmp_path / "model" / "README.md").read_text()
    assert "Printed by `mnm-rl evaluate model`.\n\n- parts are SYNTHETIC\n" in text


@pytest.mark.parametrize("name", ["babi", "babi-renamed"])
def test_the_scores_of_babi_are_of_the_official_questions_and_say_so(name):
    text = (MODELS_FOLDER / name / "README.md").read_text()
    assert f"Printed by `mnm-rl evaluate {name} --data PATH`." in text
    assert "SYNTHETIC questions of task 3" in text
    assert "GENERATED" not in text


def damage(folder: Path, kind: str) -> None:
    path, weights = folder / "config.json", folder / "model.safetensors"
    config = json.loads(path.read_text())
    if kind == "flipped":
        content = bytearray(weights.read_bytes())
        content[-1] ^= 1
        weights.write_bytes(content)
    elif kind == "cut":
        weights.write_bytes(weights.read_bytes()[:100])
    elif kind == "no weights":
        weights.unlink()
    elif kind == "no config":
        path.unlink()
    elif kind == "half a config":
        path.write_text(path.read_text()[:99])
    elif kind == "not finite":
        rewrite(folder, lambda tensors: tensors["value_net.bias"].fill(np.nan))
    elif kind == "lacks a parameter":
        rewrite(folder, lambda tensors: tensors.pop("value_net.bias"))
    elif kind == "no card":
        (folder / "README.md").unlink()
    elif kind == "no score":
        (folder / "README.md").write_text("# A model\n")
    else:
        config.update(json.loads(kind))
        path.write_text(json.dumps(config))


def rewrite(folder: Path, change) -> None:
    """Other parameters, with the right checksum."""
    import hashlib

    tensors = {name: tensor.copy() for name, tensor in load_file(folder / "model.safetensors").items()}
    change(tensors)
    save_file(tensors, folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    config[CHECKSUM] = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("flipped", "is incomplete or damaged: its checksum"),
        ("cut", "is incomplete or damaged: its checksum"),
        ("no weights", "is not the folder of a model"),
        ("no config", "is not the folder of a model"),
        ("half a config", "config.json is damaged"),
        ("not finite", "value_net.bias is not finite"),
        ("lacks a parameter", "it lacks value_net.bias"),
        ("no card", "has no card README.md"),
        ("no score", "has no score"),
        ('{"format": 7}', "has the format 7; this version reads 1"),
        ('{"algorithm": "SAC"}', "unknown kind, 'SAC'"),
        ('{"settings": {"gamma": 7}}', "cannot be used: gamma must be a number between 0 and 1"),
        ('{"settings": {"power": 7}}', "a setting that this version does not know: power"),
        ('{"policy": "Own"}', "cannot be used"),
        ('{"policy_settings": []}', "cannot be used"),
        ('{"observation_space": {"kind": "Text"}}', "cannot be used: not the values of a space"),
        (
            '{"action_space": {"kind": "Discrete", "dtype": "int64", "n": 9, "start": 0}}',
            "do not fit its config",
        ),
        ('{"normalization": {"norm_obs": 3}}', "cannot be used: VecNormalize cannot have"),
        ('{"timesteps": -1}', "timesteps must be"),
        ('{"n_envs": 0}', "n_envs must be"),
    ],
)
def test_what_is_wrong_with_a_folder_is_one_sentence(saved, kind, message):
    damage(saved, kind)
    with pytest.raises(ValueError, match=message) as caught:
        mnm_rl.load_pretrained(saved)
    assert "\n" not in str(caught.value)


def test_another_algorithm_and_other_spaces_are_named(saved):
    with pytest.raises(ValueError, match="is one of RecurrentA2C, not of RecurrentPPO"):
        RecurrentPPO.from_pretrained(saved)
    with pytest.raises(ValueError, match="spaces do not match"):
        RecurrentA2C.from_pretrained(saved, env="Pendulum-v1", device="cpu")


def test_classes_of_ones_own_are_neither_written_nor_imported(saved, tmp_path):
    class Own(torch.nn.Tanh):
        pass

    agent = RecurrentA2C("MlpPolicy", "CartPole-v1", device="cpu", policy_kwargs={"activation_fn": Own})
    with pytest.raises(ValueError, match="activation_fn is Own, which cannot be written without a pickle"):
        agent.save_pretrained(tmp_path / "other")
    config = json.loads((saved / "config.json").read_text())
    config["policy_settings"]["core"] = "antigravity:Core"
    (saved / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="the module antigravity would be imported"):
        mnm_rl.load_pretrained(saved)


def test_other_files_are_not_written_over(saved, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="neither empty nor the folder of a model"):
        small_agent().save_pretrained(run)
    small_agent().save_pretrained(saved)  # a model is replaced
    with pytest.raises(ValueError, match="has no score"):
        mnm_rl.load_pretrained(saved)
    with pytest.raises(ValueError, match="is a file"):
        small_agent().save_pretrained(saved / "config.json")


def test_names_that_are_not_known():
    with pytest.raises(
        ValueError, match=r"'maze-best' is neither .*; these are maze-highest, maze-highest-lstm"
    ):
        mnm_rl.load_pretrained("maze-best")
    with pytest.raises(ValueError, match="is not the folder of a model"):
        mnm_rl.load_pretrained(ROOT / "docs")
    with pytest.raises(ValueError, match="is no agent"):
        load_agent("double-copy")


def test_the_models_of_the_package_are_all_there_and_small():
    assert {path.name for path in MODELS_FOLDER.iterdir()} == set(SHIPPED)
    assert sum(path.stat().st_size for path in MODELS_FOLDER.rglob("*") if path.is_file()) < 20e6


@pytest.mark.parametrize("name", SHIPPED)
def test_hugging_face_reads_the_card(name):
    hub = pytest.importorskip("huggingface_hub")
    data = hub.ModelCard.load(MODELS_FOLDER / name / "README.md").data
    assert (data.model_name, data.library_name) == (name, "mnm-rl")
    assert all(result.metric_value is not None for result in data.eval_results)
    assert len(data.eval_results) >= 1


@pytest.mark.parametrize("name", SHIPPED)
def test_a_model_of_the_package_is_that_of_its_run(name):
    run = ROOT / "results" / SHIPPED[name].run
    kind, values = read_kind(run)
    model: Any = mnm_rl.load_pretrained(name)
    if kind in AGENTS:
        expected = read_agent(run, config_from_dict(values, kind)).policy.state_dict()
        found = model.policy.state_dict()
    else:
        expected = torch.load(run / "best.pt", weights_only=True)["model"]
        found = model.model.state_dict()
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=0, atol=0)
    config = read_config(MODELS_FOLDER / name)
    assert not [value for value in texts_in(config) if Path(value).is_absolute()]
    assert {part.dtype for part in load_file(MODELS_FOLDER / name / "model.safetensors").values()} == {
        np.dtype("float32")
    }
    assert config["kind"] == kind.name


def texts_in(values: Any) -> list[str]:
    if isinstance(values, str):
        return [values]
    inner = values.values() if isinstance(values, dict) else values if isinstance(values, list) else ()
    return [text for each in inner for text in texts_in(each)]


def test_a_supervised_model_comes_back(tmp_path):
    config = SupervisedConfig(task="double-copy", core="gru", core_settings={"hidden_size": 5}, batch_size=4)
    task = config.make_task()
    model = build_model(config, task)
    folder = tmp_path / "model"
    save_model(folder, config, task, model)
    back = load_model(folder)
    assert evaluate(back.model, back.task, "valid") == evaluate(model, task, "valid")
    assert dataclasses.replace(back.config, core_settings={}, task_options={}) == dataclasses.replace(
        config, core_settings={}, task_options={}
    )
    with pytest.raises(ValueError, match="has no score"):
        mnm_rl.load_pretrained(folder)
    shutil.copy(MODELS_FOLDER / "maze-highest" / "model.safetensors", folder)
    with pytest.raises(ValueError, match="checksum"):
        load_model(folder)


def run_command(*words: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "mnm_rl", *words], capture_output=True, text=True, cwd=ROOT)


def test_a_model_of_a_run_evaluates_as_the_run_does(tmp_path):
    run, folder = "results/rl/defaults/ppo-CartPoleNoVel-lstm", tmp_path / "model"
    made = run_command("save-pretrained", run, "--to", str(folder), "--episodes", "4")
    assert made.returncode == 0, made.stderr
    wanted, found = (run_command("evaluate", each, "--episodes", "4") for each in (run, str(folder)))
    assert found.returncode == 0, found.stderr
    assert found.stdout.splitlines()[1:] == wanted.stdout.splitlines()[1:]
    card = (folder / "README.md").read_text()
    assert "python scripts/train_ppo.py --env CartPoleNoVel-v1" in card  # from the page of the run
    assert "mean reward of 4 episodes" in card
    resumed = run_command("train-ppo", "--resume", str(folder))
    assert (resumed.returncode, "a run cannot go on from it" in resumed.stderr) == (2, True)


def test_a_model_in_place_of_the_checkpoint(tmp_path):
    run = tmp_path / "run"
    words = ("--env", "CartPoleNoVel-v1", "--core", "gru", "--timesteps", "64", "--n-steps", "16", "--quiet")
    made = run_command("train-ppo", *words, "--n-envs", "2", "--log-dir", str(run))
    assert made.returncode == 0, made.stderr
    before = run_command("evaluate", str(run), "--episodes", "4").stdout.splitlines()
    done = run_command("save-pretrained", str(run), "--in-place")
    assert done.returncode == 0, done.stderr
    assert not (run / "checkpoint.zip").exists()
    assert {path.name.partition(".")[0] for path in run.iterdir()} == {"config", "events", "model"}
    after = run_command("evaluate", str(run), "--episodes", "4").stdout.splitlines()
    assert after[1:] == before[1:]
    assert after[0] == before[0].replace("checkpoint.zip", "model/model.safetensors")
    resumed = run_command("train-ppo", "--resume", str(run), "--timesteps", "128")
    assert (resumed.returncode, "a run cannot go on from it" in resumed.stderr) == (2, True)
    again = run_command("save-pretrained", str(run), "--in-place")
    assert (again.returncode, "There is no checkpoint" in again.stderr) == (2, True)
    for wrong in (("--to", "x", "--in-place"), ()):
        refused = run_command("save-pretrained", str(run), *wrong)
        assert (refused.returncode, "either --to" in refused.stderr) == (2, True)


def test_evaluate_takes_the_name_of_a_model():
    done = run_command("evaluate", "dictionary-1")
    assert done.stdout.startswith("dictionary, instance 1, mnm-p, seed 0: test error 0.000%"), done.stderr
    done = run_command("evaluate", "maze-best")
    assert (done.returncode, "package are maze-highest, " in done.stderr) == (2, True)


def numbers(score: Score) -> tuple[float, float, float]:
    return score.value, score.low, score.high


def test_the_interval_of_a_share_is_wilsons():
    assert numbers(share("x", "y", 0, 100)) == pytest.approx((0, 0, 0.036994), abs=1e-5)
    assert numbers(share("x", "y", 50, 100)) == pytest.approx((0.5, 0.403832, 0.596168), abs=1e-5)
