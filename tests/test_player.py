"""Playing: from an agent, its folder and an ONNX file alike, the last without torch."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from own_envs import Sampled
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from mnm_rl.agents import RecurrentA2C, RecurrentPPO
from mnm_rl.cores import core_names
from mnm_rl.player import Player

onnx: Any = pytest.importorskip("onnx")
onnxruntime: Any = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

MNM = {"hidden_size": 6, "key_size": 4, "value_size": 5, "memory_widths": (3,), "heads": 2}
VECTOR = spaces.Box(-1.0, 1.0, (3,), np.float32)
CORES: dict[str, dict[str, Any]] = {
    "lstm": {"hidden_size": 7},
    "mnm-p": {**MNM, "recall_weights": (1.0, 0.5)},
    "mnm-g": MNM,
    "ntm": {"hidden_size": 6},
}
OTHERS = [name for name in core_names() if name not in CORES and name != "lstm-salu"]
SPACES: dict[str, tuple[spaces.Space, spaces.Space]] = {
    "starts": (spaces.Discrete(5, start=-2), spaces.Discrete(4, start=7)),
    "choices": (spaces.MultiDiscrete([3, 2], start=[1, 5]), spaces.MultiDiscrete([3, 2], start=[4, -1])),
    "dict": (
        spaces.Dict({"b": spaces.Discrete(3, start=1), "a": VECTOR}),
        spaces.Box(np.array([-0.1, 0.0], np.float32), np.array([0.1, 0.02], np.float32)),
    ),
}


def make_agent(core: str, observation: spaces.Space = VECTOR, action: Any = None, normalized: bool = False):
    env: Any = DummyVecEnv([lambda: Sampled(observation, spaces.Discrete(4) if action is None else action)])
    policy = "MultiInputPolicy" if isinstance(observation, spaces.Dict) else "MlpPolicy"
    kwargs = {"core": core, "core_kwargs": CORES.get(core, {}), "ortho_init": False}
    env = VecNormalize(env, clip_obs=1.0) if normalized else env
    return RecurrentA2C(policy, env, n_steps=16, policy_kwargs=kwargs, seed=0, device="cpu")


def state_of(player: Player) -> Any:
    assert player.state is not None
    return player.state


def sample(space: spaces.Space, count: int) -> Any:
    if isinstance(space, spaces.Dict):
        return {key: sample(part, count) for key, part in space.spaces.items()}
    return np.stack([space.sample() for _ in range(count)])


def compared(agent: Any, mine: Any, wanted: Any) -> list[tuple[Any, Any]]:
    """Pairs of fields; of a DNC those that do not depend on which of equally free slots was taken.

    It sorts the slots by their usage, and rounding decides between those that are used alike.
    """
    names = type(agent.policy.initial_state(1))._fields
    pairs = zip(names, mine, wanted, strict=True)
    sorts = agent.policy.core_name in ("dnc", "sdnc")
    return [(one, other) for name, one, other in pairs if not sorts or name in ("hidden", "cell", "reads")]


def check_alike(agent: Any, players: list[Player], steps: int, seed: int = 0) -> None:
    """All players act as `predict` does, through resets, and their states are its."""
    space, state = agent.observation_space, None
    space.seed(seed)
    random = np.random.default_rng(seed)
    for player in players:
        player.reset()
    resets = 0
    for step in range(steps):
        observation, starts = sample(space, 3), (random.random(3) < 0.1) | (step == 0)
        resets += starts.sum()
        expected, state = agent.predict(observation, state, starts, deterministic=True)
        for player in players:
            np.testing.assert_allclose(player.step(observation, starts), expected, atol=1e-5)
            for mine, wanted in compared(agent, state_of(player), state):
                # Rounding is relative to the largest number: memories that grow add up what cancels.
                atol = 1e-4 * max(1.0, float(np.abs(wanted).max(initial=0.0)))
                np.testing.assert_allclose(mine, wanted, atol=atol, rtol=1e-3)
    assert resets > steps / 10


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Core -> an agent and its file; each is made once."""
    made: dict[str, tuple[Any, Path]] = {}

    def agent_and_file(core: str) -> tuple[Any, Path]:
        if core not in made:
            agent, path = make_agent(core), tmp_path_factory.mktemp(core) / "agent.onnx"
            agent.export(path)
            made[core] = agent, path
        return made[core]

    return agent_and_file


@pytest.mark.parametrize(
    "core", [*CORES, *(pytest.param(core, marks=pytest.mark.learning) for core in OTHERS)]
)
def test_agent_folder_and_onnx_file_act_alike_over_500_steps_with_resets(core, exported, tmp_path):
    agent, path = exported(core)
    agent.save_pretrained(tmp_path / "model")
    players = [Player.from_agent(agent), Player.from_pretrained(tmp_path / "model"), Player.from_onnx(path)]
    check_alike(agent, players, 500)
    check_values(agent, path)


def check_values(agent: Any, path: Path) -> None:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    state = agent.policy.initial_state(3)
    random = np.random.default_rng(0)
    for _ in range(20):
        observation, starts = sample(agent.observation_space, 3), random.random(3) < 0.2
        arrays = [observation, starts, *(part.detach().numpy() for part in state)]
        names = [each.name for each in session.get_inputs()]
        _, value, *after = session.run(None, dict(zip(names, arrays, strict=True)))
        with torch.no_grad():
            expected = agent.policy.predict_values(
                torch.as_tensor(observation), state, torch.as_tensor(starts)
            )
        np.testing.assert_allclose(value, expected.numpy(), atol=1e-5, rtol=1e-4)
        state = type(state)(*map(torch.as_tensor, after))


@pytest.mark.parametrize("kind", SPACES)
def test_spaces_of_all_kinds_are_exported(kind, tmp_path):
    agent = make_agent("lstm", *SPACES[kind])
    agent.export(tmp_path / "agent.onnx")
    player = Player.from_onnx(tmp_path / "agent.onnx")
    assert (player.observation_space, player.action_space) == (agent.observation_space, agent.action_space)
    check_alike(agent, [Player.from_agent(agent), player], 60)


@pytest.mark.parametrize("kind", ["array", "dictionary"])
def test_observations_are_normalised_as_in_training(kind, tmp_path):
    observation = VECTOR if kind == "array" else spaces.Dict({"a": VECTOR, "b": spaces.Box(-9, 9, (2,))})
    agent = make_agent("lstm", observation, normalized=True)
    agent.learn(64)
    agent.export(tmp_path / "agent.onnx")
    agent.save_pretrained(tmp_path / "model")
    players = [
        Player.from_agent(agent),
        Player.from_pretrained(tmp_path / "model"),
        Player.from_onnx(tmp_path / "agent.onnx"),
    ]
    wrapper, state = agent.get_vec_normalize_env(), None
    assert wrapper is not None
    for step in range(50):
        raw = sample(agent.observation_space, 3)
        expected, state = agent.predict(wrapper.normalize_obs(raw), state, np.array([step == 0] * 3), True)
        for player in players:
            np.testing.assert_array_equal(player.step(raw), expected)
            np.testing.assert_allclose(state_of(player)[0], state[0], atol=1e-5)


def test_one_environment_plays_without_a_batch_and_reset_forgets(exported):
    agent, path = exported("mnm-p")
    observations = sample(VECTOR, 12)
    for player in (Player.from_agent(agent), Player.from_onnx(path)):
        first = [player.step(each) for each in observations]
        states = state_of(player)
        assert np.shape(first[0]) == ()
        player.reset()
        assert player.state is None
        assert [player.step(each) for each in observations] == first
        for mine, wanted in zip(state_of(player), states, strict=True):
            np.testing.assert_array_equal(mine, wanted)
        player.step(observations[0], True)
        started = state_of(player)
        player.reset()
        player.step(observations[0])
        for mine, wanted in zip(state_of(player), started, strict=True):
            np.testing.assert_array_equal(mine, wanted)


def test_whoever_plays_an_onnx_file_imports_neither_torch_nor_stable_baselines3(exported):
    _, path = exported("lstm")
    code = (
        "import sys, numpy\n"
        "from mnm_rl.player import Player\n"
        f"player = Player.from_onnx({str(path)!r})\n"
        "player.step(numpy.zeros(3))\n"
        "print({'torch', 'stable_baselines3', 'onnx', 'onnxscript'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_core_that_cannot_be_exported_is_named(tmp_path):
    with pytest.raises(ValueError, match="core 'lstm-salu' grows with every step"):
        make_agent("lstm-salu").export(tmp_path / "agent.onnx")
    agent: Any = make_agent("lstm")
    agent.policy.core.step = lambda inputs, state: (torch.histc(inputs, 7), state)
    with pytest.raises(ValueError, match="core 'lstm' cannot be exported to ONNX: ") as caught:
        agent.export(tmp_path / "agent.onnx")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_names_of_files(tmp_path):
    with pytest.raises(ValueError, match=r"must end in \.onnx"):
        make_agent("lstm").export(tmp_path / "agent.zip")
    with pytest.raises(ValueError, match="There is no ONNX file"):
        Player.from_onnx(tmp_path / "agent.onnx")


def test_files_that_are_not_exported_agents_are_one_sentence(exported, tmp_path):
    path, whole = tmp_path / "agent.onnx", exported("lstm")[1].read_bytes()
    cases = {
        "not an ONNX file that can be run": whole[: len(whole) // 2],
        "not an agent that mnm-rl has exported": changed(whole, "mnm_rl.format", None),
        "has the format 9; this version reads 1": changed(whole, "mnm_rl.format", "9"),
        "is damaged: not the values of a space": changed(whole, "mnm_rl.action_space", "{}"),
        "is damaged: its inputs are": changed(
            whole, "mnm_rl.observation_space", '{"kind": "Dict", "spaces": []}'
        ),
    }
    for message, content in cases.items():
        path.write_bytes(content)
        with pytest.raises(ValueError, match=message) as caught:
            Player.from_onnx(path)
        assert "\n" not in str(caught.value)


def changed(content: bytes, key: str, value: str | None) -> bytes:
    model = onnx.load_from_string(content)
    kept = {each.key: each.value for each in model.metadata_props}
    del model.metadata_props[:]
    kept.pop(key)
    onnx.helper.set_model_props(model, kept if value is None else {**kept, key: value})
    return model.SerializeToString()


@pytest.mark.parametrize(
    ("observation", "starts", "message"),
    [
        (np.zeros(4), None, r"must have the shape \[3\].*got \[4\]; is it another agent's"),
        (np.zeros((2, 2, 3)), None, "must have the shape"),
        ("up", None, "must be numbers of the shape"),
        (np.array([0, np.nan, 0]), None, "is not finite"),
        (np.zeros((2, 3)), [True], "for each of 2 observations"),
        (np.zeros((2, 3)), "yes", "for each of 2 observations"),
    ],
)
def test_what_is_no_observation(observation, starts, message):
    with pytest.raises(ValueError, match=message):
        Player.from_agent(make_agent("lstm")).step(observation, starts)


def test_the_number_of_environments_stays_until_a_reset():
    player = Player.from_agent(make_agent("lstm"))
    player.step(np.zeros((2, 3)))
    with pytest.raises(ValueError, match="in the middle of 2 episodes and is given 3"):
        player.step(np.zeros((3, 3)))
    player.reset()
    player.step(np.zeros((3, 3)))
    with pytest.raises(ValueError, match="must be a dictionary of 'a', 'b'"):
        Player.from_agent(make_agent("lstm", *SPACES["dict"])).step(np.zeros(3))


def test_drawn_actions_are_drawn():
    player = Player.from_agent(make_agent("lstm"), deterministic=False)
    assert len({int(action) for action in player.step(np.zeros((200, 3)))}) > 1


def test_an_agent_of_ppo_has_layers_and_two_cores_in_its_file(tmp_path):
    kwargs: dict[str, Any] = {"core": "gru", "separate_critic": True, "encoder_arch": [5], "net_arch": [4]}
    agent = RecurrentPPO(
        "MlpPolicy", "CartPole-v1", n_steps=8, batch_size=8, policy_kwargs=kwargs, device="cpu"
    )
    agent.export(tmp_path / "agent.onnx")
    agent.observation_space = agent.policy.observation_space = spaces.Box(-1, 1, (4,))
    check_alike(agent, [Player.from_onnx(tmp_path / "agent.onnx")], 30)
