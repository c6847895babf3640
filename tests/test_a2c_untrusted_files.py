"""Agents from strangers: `load(..., trusted=False)` runs nothing that is in a file, and says what it saw."""

import base64
import io
import json
import os
import pickle
import struct
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest
import torch
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import VecNormalize
from torch import nn

from mnm_rl.agents import RecurrentA2C
from mnm_rl.agents.checkpoint import check_checkpoint
from mnm_rl.agents.safe_loading import read_object, read_untrusted
from mnm_rl.envs import MazeVecEnv
from mnm_rl.training.folder import read_kind
from mnm_rl.training.rl.agent import read_agent
from mnm_rl.training.rl.config import config_from_dict

OLD = sorted((Path(__file__).parent / "old_checkpoints").glob("*.zip"))
"""Agents of several algorithms and cores, as earlier versions saved them."""
RESULTS = Path(__file__).parent.parent / "results"
RUNS = [path.parents[1] for path in RESULTS.rglob("model/config.json")]


def make_env():
    return VecNormalize(MazeVecEnv(3, size=5, horizon=20))


def make_agent(**settings: Any) -> RecurrentA2C:
    policy_kwargs = {"core": "gru", "core_kwargs": {"hidden_size": 5}, **settings.pop("policy_kwargs", {})}
    return RecurrentA2C(
        "MlpPolicy", make_env(), n_steps=6, seed=0, device="cpu", policy_kwargs=policy_kwargs, **settings
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("agent") / "agent.zip"
    agent = make_agent(learning_rate=LinearSchedule(1e-3, 0.0, 1.0), policy_kwargs={"activation_fn": nn.ReLU})
    agent.callback_state["numbers"] = np.arange(3)
    agent.learn(50).save(path)
    return path.read_bytes()


def members(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(parts: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, part in parts.items():
            archive.writestr(name, part)
    return stream.getvalue()


def with_data(content: bytes, **changes: Any) -> bytes:
    parts = members(content)
    data = {**json.loads(parts["data"]), **changes}
    return packed({**parts, "data": json.dumps(data).encode()})


def serialized(pickled: bytes) -> dict[str, str]:
    return {":type:": "x", ":serialized:": base64.b64encode(pickled).decode()}


class Attack:
    """An object that makes a file when it is unpickled."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def load_untrusted(content: bytes, **arguments: Any) -> RecurrentA2C:
    return RecurrentA2C.load(io.BytesIO(content), device="cpu", trusted=False, **arguments)


def test_an_agent_of_ours_is_the_same_agent(whole, tmp_path):
    trusted, agent = RecurrentA2C.load(io.BytesIO(whole), device="cpu"), load_untrusted(whole)
    assert agent.policy_kwargs == trusted.policy_kwargs
    assert agent.policy.activation_fn is nn.ReLU
    assert agent.lr_schedule(0.5) == trusted.lr_schedule(0.5) == 5e-4
    assert (agent.observation_space, agent.num_timesteps) == (trusted.observation_space, 54)
    np.testing.assert_array_equal(agent.callback_state["numbers"], np.arange(3))
    assert agent.ep_info_buffer is not None
    assert trusted.ep_info_buffer is not None
    assert list(agent.ep_info_buffer) == list(trusted.ep_info_buffer)
    for mine, other in zip(agent.policy.parameters(), trusted.policy.parameters(), strict=True):
        torch.testing.assert_close(mine, other, atol=0, rtol=0)
    assert agent.action_space.sample() == trusted.action_space.sample()


def test_a_run_goes_on_as_from_a_trusted_file(whole):
    agents = []
    for trusted in (True, False):
        agent = RecurrentA2C.load(
            io.BytesIO(whole), env=make_env(), device="cpu", force_reset=False, trusted=trusted
        )
        agents.append(agent.learn(60, reset_num_timesteps=False))
    for mine, other in zip(agents[0].policy.parameters(), agents[1].policy.parameters(), strict=True):
        torch.testing.assert_close(mine, other, atol=0, rtol=0)
    np.testing.assert_array_equal(agents[0].env.obs_rms.mean, agents[1].env.obs_rms.mean)


@pytest.mark.parametrize("path", OLD, ids=lambda path: path.stem)
def test_an_agent_of_an_earlier_version_needs_the_short_list_only(path):
    untrusted = read_untrusted(path)
    with zipfile.ZipFile(path) as archive:
        data = json.loads(archive.read("data"))
    for key, item in data.items():
        if isinstance(item, dict) and ":serialized:" in item and key != "lr_schedule":
            theirs = cloudpickle.loads(base64.b64decode(item[":serialized:"]))
            assert pickle.dumps(untrusted.objects[key]) == pickle.dumps(theirs), key
    assert check_checkpoint(path)["core"]


@pytest.mark.parametrize("path", OLD, ids=lambda path: path.stem)
def test_an_agent_of_an_earlier_version_acts_as_the_model_of_its_run(path):
    run = next(run for run in RUNS if str(run.relative_to(RESULTS)).replace("/", "-") == path.stem)
    kind, config = read_kind(run)
    model = read_agent(run, config_from_dict(config, kind))
    shape = (4, *(model.observation_space.shape or ()))
    observation = np.random.default_rng(0).random(shape, np.float32)
    algorithm = type(model)
    agents: list[Any] = [model]
    agents += [algorithm.load(path, device="cpu", trusted=trusted) for trusted in (True, False)]
    (actions, state), *others = (agent.predict(observation, deterministic=True) for agent in agents)
    assert state
    for other_actions, other_state in others:
        np.testing.assert_array_equal(actions, other_actions)
        for mine, other in zip(state, other_state, strict=True):
            np.testing.assert_array_equal(mine, other)


def test_an_object_in_any_attribute_is_refused_by_name_and_not_run(whole, tmp_path):
    keys = [*json.loads(members(whole)["data"]), "something_else"]
    assert len(keys) > 35
    for key in keys:
        marker = tmp_path / key
        content = with_data(whole, **{key: serialized(cloudpickle.dumps(Attack(marker)))})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if key in ("lr_schedule", "tensorboard_log"):
                load_untrusted(content)
            else:
                with pytest.raises(ValueError, match=f"holds posix.mkdir in '{key}'"):
                    load_untrusted(content)
        assert not marker.exists()


def test_the_same_object_runs_where_the_file_is_trusted(whole, tmp_path):
    content = with_data(whole, _last_obs=serialized(cloudpickle.dumps(Attack(tmp_path / "made"))))
    RecurrentA2C.load(io.BytesIO(content), device="cpu")
    assert (tmp_path / "made").exists()


@pytest.mark.parametrize("name", ["policy.pth", "policy.optimizer.pth", "pytorch_variables.pth"])
def test_an_object_among_the_parameters_is_refused_and_not_run(whole, tmp_path, name):
    stream = io.BytesIO()
    torch.save({"x": Attack(tmp_path / "made")}, stream)
    for part in (stream.getvalue(), pickle.dumps(Attack(tmp_path / "made"))):
        with pytest.raises(ValueError, match=r"posix.mkdir among its parameters|is not a file of torch"):
            load_untrusted(packed({**members(whole), name: part}))
        assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    "name", ["data", "_stable_baselines3_version", "system_info.txt", "evil.pth", "evil"]
)
def test_a_pickle_as_any_other_member_is_refused_or_ignored(whole, tmp_path, name):
    content = packed({**members(whole), name: pickle.dumps(Attack(tmp_path / "made"))})
    if name in ("data", "evil.pth", "evil"):
        with pytest.raises(ValueError, match=r"is incomplete or damaged|holds 'evil"):
            load_untrusted(content)
    else:
        load_untrusted(content)
    assert not (tmp_path / "made").exists()


def call(module: str, name: str, arguments: Any) -> bytes:
    """A pickle that calls a function."""
    return b"\x80\x04" + f"c{module}\n{name}\n".encode() + pickle.dumps(arguments, 2)[2:-1] + b"R."


SCHEDULE = b"stable_baselines3.common.utils\nLinearSchedule\n"
SPACE = "cgymnasium.spaces.box\nBox\n"
PICKLES: dict[str, bytes] = {
    "a call of a known class": call("torch.optim.adam", "Adam", ()),
    "a call of a space": call("gymnasium.spaces.box", "Box", (0.0, 1.0, (10**9,))),
    "eval": call("builtins", "eval", ("1",)),
    "getattr": call("builtins", "getattr", ("x", "y")),
    "a dotted name": b"\x80\x04\x8c\x05numpy\x8c\x0edtype.__init__\x93.",
    "a module of ours": call("mnm_rl.agents.a2c", "RecurrentA2C", ()),
    "another dtype": call("numpy", "dtype", ("O",)),
    "a huge array": call("numpy._core.multiarray", "_reconstruct", (1, (10**13,), b"b")),
    "writing into a class": b"\x80\x04c" + SCHEDULE + b"N}\x8c\x08__call__cnumpy\ndtype\ns\x86b.",
    "a class with arguments": b"\x80\x04" + SPACE.encode() + b"K\x01\x85\x81.",
    "an old instance": b"(" + b"i" + SPACE[1:].encode() + b".",
    "a persistent id": b"\x80\x04Ux\x01aQ."[:2] + b"Pname\n.",
    "an extension": b"\x80\x04\x82\x01.",
    "a byte array longer than the file": b"\x80\x05\x96" + struct.pack("<Q", 2**50) + b".",
    "a frame longer than the file": b"\x80\x04\x95" + struct.pack("<Q", 2**50) + b".",
    "nothing": b"",
    "an end without a value": b"\x80\x04.",
    "no pickle": b"\xff\x00\x01",
}


@pytest.mark.parametrize("kind", PICKLES)
def test_pickles_that_do_other_things_than_building_an_agent(whole, kind):
    before = LinearSchedule.__call__
    with pytest.raises(ValueError, match=r"in '_last_obs'"):
        load_untrusted(with_data(whole, _last_obs=serialized(PICKLES[kind])))
    assert LinearSchedule.__call__ is before


def test_a_type_of_array_elements_is_not_rewritten():
    fields = pickle.dumps((3, "|", None, ("a",), {"a": (np.dtype("i4"), 0)}, 4, 1, 0), 2)[2:-1]
    pickled = b"\x80\x04" + b"cnumpy\ndtype\n" + pickle.dumps(("i4", False, False), 2)[2:-1] + b"R" + fields
    with pytest.raises(ValueError, match="unusual type of array elements"):
        read_object("key", serialized(pickled + b"b."))
    assert np.dtype("i4").fields is None


@pytest.mark.parametrize(
    "value",
    [
        np.float32(1.5),
        np.bool_(True),
        np.arange(6.0).reshape(2, 3).T,
        np.array([[True], [False]]),
        np.array([1, 2], ">i2"),
        np.zeros((0, 3)),
        {"nested": (1, [2, {3}], b"4", None, 5.0, 2**70)},
    ],
)
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_plain_values_come_back_as_they_were(value, protocol):
    pickled = pickle.dumps(value, protocol)
    if b"_codecs" in pickled or b"__builtin__" in pickled:  # older forms of bytes and sets are function calls
        pytest.skip("no agent is saved with this protocol")
    back = read_object("key", serialized(pickled))
    assert type(back) is type(value)
    np.testing.assert_equal(back, value)
    assert getattr(back, "dtype", None) == getattr(pickle.loads(pickled), "dtype", None)


def declare_size(content: bytes, name: str, size: int) -> bytes:
    """The archive with another unpacked size of a member in its table of contents."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        start = archive.start_dir
    changed, at = bytearray(content), start
    while changed[at : at + 4] == b"PK\x01\x02":
        lengths = struct.unpack("<HHH", changed[at + 28 : at + 34])
        if changed[at + 46 : at + 46 + lengths[0]].decode() == name:
            changed[at + 24 : at + 28] = struct.pack("<I", size)
        at += 46 + sum(lengths)
    return bytes(changed)


def linked(content: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, part in members(content).items():
            info = zipfile.ZipInfo(name)
            info.external_attr = (0o120777 if name == "data" else 0o100644) << 16
            archive.writestr(info, part)
    return stream.getvalue()


def twice(content: bytes) -> bytes:
    stream = io.BytesIO(content)
    with warnings.catch_warnings(), zipfile.ZipFile(stream, "a") as archive:
        warnings.simplefilter("ignore")
        archive.writestr("data", members(content)["data"])
    return stream.getvalue()


def flipped(content: bytes) -> bytes:
    at = content.index(b'"gamma"') + 10
    return content[:at] + b"1" + content[at + 1 :]


def without(content: bytes, name: str) -> bytes:
    return packed({key: part for key, part in members(content).items() if key != name})


def nested_bomb(content: bytes) -> bytes:
    bomb = packed({"archive/data/0": bytes(50_000_000)}, zipfile.ZIP_DEFLATED)
    return packed({**members(content), "policy.pth": bomb})


ARCHIVES = {
    "a bomb": (
        lambda whole: packed({**members(whole), "data": bytes(200_000_000)}, zipfile.ZIP_DEFLATED),
        "would unpack to 200",
    ),
    "a bomb in a member": (nested_bomb, r"in 'policy.pth', which would unpack to 50000000"),
    "a huge declared size": (lambda whole: declare_size(whole, "data", 2**32 - 2), "would unpack to 42949"),
    "a wrong declared size": (lambda whole: declare_size(whole, "data", 10), "incomplete or damaged"),
    "a flipped byte": (flipped, "incomplete or damaged: data is damaged"),
    "no data": (lambda whole: without(whole, "data"), "incomplete or damaged: data is missing"),
    "no parameters": (
        lambda whole: without(whole, "policy.pth"),
        "incomplete or damaged: policy.pth is missing",
    ),
    "half of it": (lambda whole: whole[: len(whole) // 2], "incomplete or damaged"),
    "nothing": (lambda whole: b"", "incomplete or damaged"),
    "an absolute name": (lambda whole: packed({**members(whole), "/etc/x": b""}), "holds '/etc/x'"),
    "a name that climbs": (lambda whole: packed({**members(whole), "../x.pth": b""}), "holds '../x.pth'"),
    "a link": (linked, "holds a link, 'data'"),
    "a member twice": (twice, "holds 'data' more than once"),
    "a list as data": (lambda whole: packed({**members(whole), "data": b"[]"}), "data is not a dictionary"),
    "deep data": (
        lambda whole: packed({**members(whole), "data": b"[" * 10**5 + b"]" * 10**5}),
        "incomplete or damaged",
    ),
}


@pytest.mark.parametrize("kind", ARCHIVES)
def test_archives_that_are_not_what_they_should_be(whole, kind, tmp_path):
    build, message = ARCHIVES[kind]
    path = tmp_path / "agent.zip"
    path.write_bytes(build(whole))
    with pytest.raises(ValueError, match=message):
        RecurrentA2C.load(path, device="cpu", trusted=False)
    assert [file.name for file in tmp_path.iterdir()] == ["agent.zip"]


def test_a_compressed_agent_is_still_an_agent(whole):
    assert load_untrusted(packed(members(whole), zipfile.ZIP_DEFLATED)).num_timesteps == 54


def test_a_file_that_is_not_there():
    with pytest.raises(ValueError, match="There is no checkpoint at nowhere"):
        RecurrentA2C.load("nowhere", trusted=False)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gamma": "high"}, "gamma must be a number between 0 and 1"),
        ({"n_steps": -1}, "n_steps must be at least 1"),
        ({"policy_class": "CnnPolicy"}, "does not hold an agent"),
        ({"policy_class": serialized(pickle.dumps(torch.optim.Adam))}, "does not hold an agent"),
        ({"policy_kwargs": {"core": "gru", "core_kwargs": {"hidden_size": 6}}}, "does not hold an agent"),
        ({"policy_kwargs": []}, "policy_kwargs are unreadable"),
        ({"observation_space": 3}, "not a Gymnasium space"),
        ({"_run_state": 7}, "does not hold an agent"),
        ({"env": "antigravity:Env-v0"}, "sets 'env', which no saved agent does"),
        ({"predict": 1}, "sets 'predict'"),
        ({"_setup_model": 1}, "sets '_setup_model'"),
    ],
)
def test_values_that_do_not_fit_are_one_sentence(whole, changes, message):
    with pytest.raises(ValueError, match=message):
        load_untrusted(with_data(whole, **changes))


def test_a_wrapper_takes_no_attributes_from_a_file_but_its_own(whole):
    agent = load_untrusted(whole)
    state = agent._run_state
    state["env"][0][1]["step"] = 1
    with pytest.raises(ValueError, match="A VecNormalize has no state step"):
        load_untrusted(
            with_data(whole, _run_state=serialized(pickle.dumps(state))), env=make_env(), force_reset=False
        )


class OwnExtractor(torch.nn.Identity):
    """A class that is on no list."""


def test_classes_of_ones_own_are_refused_unless_they_are_replaced(whole):
    kwargs = {"core": "gru", "core_kwargs": {"hidden_size": 5}, "activation_fn": OwnExtractor}
    content = with_data(whole, policy_kwargs=serialized(pickle.dumps(kwargs)))
    with pytest.raises(ValueError, match=r"OwnExtractor in 'policy_kwargs'"):
        load_untrusted(content)
    with pytest.raises(ValueError, match=r"OwnExtractor in 'policy_kwargs'"):
        check_checkpoint(io.BytesIO(content))
    assert RecurrentA2C.load(io.BytesIO(content), device="cpu").policy.activation_fn is OwnExtractor
    assert (
        load_untrusted(content, custom_objects={"policy_kwargs": kwargs}).policy.activation_fn is OwnExtractor
    )


def test_events_are_not_written_where_a_file_says(whole):
    agent = load_untrusted(with_data(whole, tensorboard_log="/somewhere"))
    assert agent.tensorboard_log is None
    assert load_untrusted(whole, tensorboard_log="mine").tensorboard_log == "mine"


@pytest.mark.parametrize("trusted", [True, False])
@pytest.mark.parametrize("algorithm", [A2C, PPO])
def test_a_file_of_another_algorithm_is_named(tmp_path, algorithm, trusted):
    algorithm("MlpPolicy", "CartPole-v1", device="cpu").save(tmp_path / "other.zip")
    with pytest.raises(ValueError, match=r"is of another algorithm: .*stable_baselines3.common.policies"):
        RecurrentA2C.load(tmp_path / "other.zip", device="cpu", trusted=trusted)


def test_a_wrong_checksum_with_the_right_size(whole):
    parts = members(whole)
    assert zlib.crc32(parts["data"])
    content = whole.replace(struct.pack("<I", zlib.crc32(parts["data"])), b"\0\0\0\0")
    with pytest.raises(ValueError, match="data is damaged"):
        load_untrusted(content)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_timesteps": -1}, "its num_timesteps must be a whole number that is not negative, got -1"),
        ({"_n_updates": "x"}, "its _n_updates must be a whole number"),
        ({"callback_state": None}, "its callback_state cannot be of the type NoneType"),
        ({"ep_info_buffer": "x"}, "its ep_info_buffer cannot be of the type str"),
        ({"gamma": 7}, "gamma must be a number between 0 and 1"),
    ],
)
def test_values_that_are_taken_as_they_are_are_looked_at(whole, changes, message):
    with pytest.raises(ValueError, match=f"^The checkpoint .* cannot be used: .*{message}"):
        load_untrusted(with_data(whole, **changes))


def test_parameters_that_are_not_finite_are_refused(whole):
    parts = members(whole)
    state = torch.load(io.BytesIO(parts["policy.pth"]), weights_only=True)
    state["value_net.bias"][:] = float("nan")
    stream = io.BytesIO()
    torch.save(state, stream)
    with pytest.raises(ValueError, match=r"its parameters are not finite, in value_net\.bias"):
        load_untrusted(packed({**parts, "policy.pth": stream.getvalue()}))
