"""RL Baselines3 Zoo with our agents, on the smallest things that they can do; run by `test_zoo.py`."""

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_scripts_a2c import run_script  # noqa: F401 - a fixture

pytest.importorskip("rl_zoo3", reason="needs the extra zoo")
pytest.importorskip("pandas", reason="needs the extra zoo")

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from mnm_rl.agents import RecurrentA2C, RecurrentPPO
from mnm_rl.commands.zoo import _rl_zoo, folder_of_ours, taken_core
from mnm_rl.envs import MazeVecEnv
from mnm_rl.training.rl.zoo_settings import zoo_entry
from mnm_rl.updates import NonFiniteError

zoo = _rl_zoo()
PPO = ("--algo", "recurrentppo_mnm", "--env", "CartPoleNoVel-v1")
MAZE = ("--algo", "recurrenta2c", "--env", "MNMMaze-3x3")
NO_EVALUATION = ("--eval-freq", "-1", "--verbose", "0")
SMALL = ("n_envs:2", "n_steps:16", "batch_size:16", "n_epochs:1")


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_ppo_trains_with_the_core_that_is_asked_for_and_plays(run_script):  # noqa: F811
    words = (*PPO, "-n", "72", "--seed", "1", "--core", "gru", "--eval-freq", "30", "--eval-episodes", "1")
    status, out, err = run_script("zoo", "train", *words, "-params", *SMALL, "gamma:0.5")
    assert status == 0, err
    run = Path("logs/recurrentppo_mnm/CartPoleNoVel-v1_1")
    agent = RecurrentPPO.load(run / "CartPoleNoVel-v1.zip", device="cpu")
    assert (agent.policy.core_name, agent.policy.memory.config.hidden_size) == ("gru", 64)
    assert (agent.gamma, agent.n_steps, agent.num_timesteps) == (0.5, 16, 96)
    assert agent.gae_lambda == zoo_entry(zoo.PPO_AGENT, PPO[3], "gru")["gae_lambda"] != 0.95
    assert (run / "best_model.zip").is_file()
    status, out, err = run_script("zoo", "enjoy", *PPO, "--no-render", "-n", "200")
    assert status == 0, err
    assert "Mean reward: " in out


def test_the_maze_is_one_batch_in_training_and_play(run_script, monkeypatch):  # noqa: F811
    made: list[int] = []

    class Noted(MazeVecEnv):
        def __init__(self, number: int, **settings: Any):
            made.append(number)
            assert settings == {"size": 3, "horizon": 8, "previous_action": True}
            super().__init__(number, **settings)

    monkeypatch.setattr(zoo, "MazeVecEnv", Noted)
    given = ("--env-kwargs", "horizon:8", "previous_action:True")
    words = (*MAZE, "-n", "48", "--seed", "1", "--eval-freq", "24", "--eval-episodes", "1", *given)
    status, _, err = run_script("zoo", "train", *words, "-params", "n_envs:3", "n_steps:8")
    assert status == 0, err
    assert made == [1, 3]  # for evaluation, and for training
    run = Path("logs/recurrenta2c/MNMMaze-3x3_1")
    (monitor,) = run.glob("*monitor.csv")
    assert len(monitor.read_text().splitlines()) == 2 + 48 // 8
    assert len((run / "evaluations.npz").read_bytes()) > 0
    assert RecurrentA2C.load(run / "MNMMaze-3x3.zip", device="cpu").policy.core_name == "mnm-p"
    made.clear()
    status, out, err = run_script("zoo", "enjoy", *MAZE, "-f", "logs", "--no-render", "-n", "8")
    assert (status, made) == (0, [1]), err
    assert "Episode Length 8" in out


def test_what_the_settings_say_of_the_environment_holds_for_evaluation_too(run_script):  # noqa: F811
    words = (*MAZE, "-n", "16", "--eval-freq", "8", "--eval-episodes", "1", "--seed", "1")
    status, out, err = run_script("zoo", "train", *words, "-params", "n_envs:1", "n_steps:8")
    assert status == 0, err  # observations of another size would end it
    assert "eval_env_kwargs={'previous_action': True}" in out


def test_a_search_keeps_the_core_and_prunes_what_is_not_finite(run_script, monkeypatch):  # noqa: F811
    made: list[tuple[Any, ...]] = []

    class Noted(RecurrentPPO):
        def learn(self, *args: Any, **kwargs: Any):
            core = self.policy.memory.config
            made.append((self.policy.core_name, core.hidden_size, self.entropy_kind, self.batch_size))
            if len(made) == 1:
                raise NonFiniteError("Nothing is finite.")
            return super().learn(*args, **kwargs)

    monkeypatch.setitem(zoo.ALGORITHMS, "ppo", Noted)
    words = (*PPO, "-n", "64", "--n-evaluations", "1", "--eval-episodes", "1", "--seed", "1", *NO_EVALUATION)
    policy = "policy_kwargs:dict(core='gru', core_kwargs=dict(hidden_size=4))"
    study = ("--storage", "study.log", "--study-name", "cores")
    search = ("-optimize", "--n-trials", "2", "--no-optim-plots", *study)
    status, out, err = run_script("zoo", "train", *words, *search, "-params", policy, "n_envs:2")
    assert status == 0, err
    assert {each[:3] for each in made} == {("gru", 4, "entropy")}
    storage = JournalStorage(JournalFileBackend("study.log"))
    pruned, done = optuna.load_study(storage=storage, study_name="cores").trials
    assert (pruned.state.name, done.state.name) == ("PRUNED", "COMPLETE")
    assert "Trial 0 is pruned: Nothing is finite." in out
    batch = done.params["n_steps"] * 2 // done.params["minibatches"]
    assert made[1][3] == batch
    status, out, err = run_script("zoo", "train", *PPO, *NO_EVALUATION, "-n", "8", *study, "--trial-id", "1")
    assert status == 0, err
    assert (made[2][:2], made[2][3]) == (("gru", 4), batch)


def test_a_file_of_the_users_goes_before_the_package(run_script):  # noqa: F811
    policy = "dict(core='lstm', core_kwargs=dict(hidden_size=4), activation_fn=nn.ReLU)"
    entry = {"n_timesteps": 16, "policy": "MlpPolicy", "n_steps": 8, "policy_kwargs": policy}
    Path("own.yml").write_text(yaml.safe_dump({"default": {**entry, "learning_rate": "lin_0.01"}}))
    words = ("--algo", "recurrenta2c", "--env", "CartPole-v1", "-conf", "own.yml", *NO_EVALUATION)
    status, _, err = run_script("zoo", "train", *words)
    assert status == 0, err
    first = Path("logs/recurrenta2c/CartPole-v1_1/CartPole-v1.zip")
    agent = RecurrentA2C.load(first, device="cpu")
    assert (agent.policy.core_name, agent.policy.memory.config.hidden_size) == ("lstm", 4)
    assert (agent.n_steps, agent.lr_schedule(1.0)) == (8, 0.01)
    status, _, err = run_script("zoo", "train", *words, "-i", first)
    assert status == 0, err
    assert Path("logs/recurrenta2c/CartPole-v1_2/CartPole-v1.zip").is_file()


WRONG = [
    ("tra", "unknown sub-command 'tra'; known: train, enjoy"),
    ("train --core", "--core needs a value"),
    ("train --core lstm --core gru", "--core is given twice"),
    ("train --algo recurrenta2c --core lstmm", "Unknown core 'lstmm'"),
    ("train --algo ppo --core lstm", "--core is for recurrenta2c and recurrentppo_mnm"),
    ("train --algo recurrenta2c --core lstm -conf own.yml", "with -conf or policy_kwargs"),
    ("train --algo recurrenta2c -conf own.yml", "own.yml"),
    ("train --algo recurrenta2c -params policy_kwargs:3", "policy_kwargs must be a dictionary"),
    ("train --algo recurrenta2c -params policy_kwargs:{'core':'lstmm'}", "Unknown core 'lstmm'"),
    ("train --algo recurrenta2c -params n_stps:3", "no setting 'n_stps'"),
    ("train --algo recurrenta2c -params n_steps", "no Python"),
    ("train --algo recurrenta2c -params n_steps:eight", "'eight' is not defined; texts are in quotes"),
    ("train --algo recurrenta2c --env MNMMaze-3x3 --env-kwargs colour:3", "'colour'"),
    ("train --env Nothing-v7", "Nothing-v7"),
    ("train --gym-packages no_such_module", "no_such_module"),
    ("enjoy --core lstm", "--core is an option of train"),
    ("enjoy --algo recurrenta2c -f nowhere", "nowhere"),
    ("enjoy --algo recurrenta2c", "logs/recurrenta2c folder was not found"),
]


@pytest.mark.parametrize(("words", "says"), WRONG)
def test_bad_input_is_one_sentence(run_script, words, says):  # noqa: F811
    status, _, err = run_script("zoo", *words.split())
    assert (status, err.count("\n")) == (2, 1), err
    assert says in err
    assert not list(Path().rglob("*.zip"))


def test_an_algorithm_that_there_is_not_is_refused_by_rl_zoo(run_script):  # noqa: F811
    status, _, err = run_script("zoo", "train", "--algo", "nothing")
    assert status == 2
    assert "invalid choice: 'nothing'" in err
    assert all(name in err for name in zoo.KINDS)


def test_an_option_of_ours_is_taken_out_of_the_words():
    assert taken_core(["--env", "A", "--core=lstm", "-n", "3"]) == ("lstm", ["--env", "A", "-n", "3"])
    assert taken_core(["--env", "A"]) == (None, ["--env", "A"])


def test_enjoy_looks_where_train_writes_unless_a_folder_is_named():
    ours = tuple(zoo.KINDS)
    assert folder_of_ours(["--env", "A", "--algo", "recurrenta2c"], ours) == ["-f", "logs"]
    for named in (["-f", "there"], ["-fthere"], ["--folder=there"], ["--algo", "ppo"], ["--algo"]):
        assert folder_of_ours(["--algo", "recurrenta2c", "-n", "3", *named], ours) == []
    assert folder_of_ours(["--env", "A"], ours) == []


def test_without_rl_zoo_one_sentence_says_how_to_get_it(run_script, monkeypatch):  # noqa: F811
    monkeypatch.setitem(sys.modules, "rl_zoo3.train", None)
    status, _, err = run_script("zoo", "train")
    assert (status, err.count("\n")) == (2, 1)
    assert "pip install 'mnm-rl[zoo]'" in err
    status, out, _ = run_script("zoo", "--help")
    assert status == 0
    assert "recurrentppo_mnm" in out
