"""Reading a saved agent without running what is in it.

A file of Stable-Baselines3 is a zip archive: ``data`` is JSON in which everything but plain values is
pickled, and ``*.pth`` are files of torch. Unpickling runs what the file says. Here it can only build
objects of the few kinds that an agent of this package is saved with; anything else is refused by name.
Parameters are read by torch's ``weights_only`` loader.
"""

from __future__ import annotations

import base64
import collections
import io
import json
import os
import pickle
import stat
import zipfile
from collections.abc import Mapping
from functools import cache
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

MEMBERS = ("data", "policy.pth", "policy.optimizer.pth")
"""What every saved agent has."""
OTHER_MEMBERS = ("pytorch_variables.pth", "_stable_baselines3_version", "system_info.txt")
NEVER_SAVED = (
    "env",
    "policy",
    "device",
    "guard",
    "core_state",
    "rollout_buffer",
    "_logger",
    "_vec_normalize_env",
)
"""Attributes that an agent does not save, and that a file must therefore not set."""
OWN_ATTRIBUTES = {"_run_state", "entropy_kind"}
"""What the agents of this package save, and other algorithms do not."""
PPO_ATTRIBUTE = "clip_range"
"""What RecurrentPPO saves, and RecurrentA2C does not."""
REPLACED = {"lr_schedule": None, "tensorboard_log": None}
"""Attributes that are not taken from the file: the first is made from the learning rate, and a folder that a
stranger chose is not written to."""
MOST_EXPANSION, FREE_SIZE = 20, 2**20
"""An archive may unpack to so many times its size, and this many bytes more."""


class UntrustedAgent(NamedTuple):
    """A file whose objects have been read safely."""

    content: io.BytesIO
    """The whole archive: what was checked is what is loaded."""
    objects: dict[str, Any]
    """For ``custom_objects``: replaces everything in ``data`` that is pickled."""
    policy_kwargs: Any
    """The policy's keyword arguments, of any type."""


def read_untrusted(
    path: Any,
    own: tuple[str, ...] = (),
    replaced: Mapping[str, Any] | None = None,
    algorithm: str | None = None,
) -> UntrustedAgent:
    """Read an agent of this package from a file that nobody vouches for.

    Args:
        path: file, or file-like object.
        own: names that no attribute of the file may have, such as those of methods.
        replaced: attributes that take the place of those in the file, which are not read.
        algorithm: ``"RecurrentA2C"`` or ``"RecurrentPPO"``, if it has to be of that one.

    Raises:
        ValueError: the file is missing or damaged, of another algorithm, would unpack to far more than its
            size, or holds something other than what an agent is saved with; the message names it.
    """
    content = _read_whole(path)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            check_members(archive, len(content))
            for name in archive.namelist():
                if name.endswith(".pth"):
                    _check_torch_file(name, archive.read(name))
            data = json.loads(archive.read("data"))
    except _Refused as error:
        raise ValueError(f"The checkpoint {path} {error}.") from error
    except DAMAGE as error:
        raise ValueError(f"The checkpoint {path} is incomplete or damaged: {error}.") from error
    replaced = {**REPLACED, **(replaced or {})}
    check_algorithm(path, data, algorithm)
    try:
        objects = {**_read_objects(data, {*own, *NEVER_SAVED}, set(replaced)), **replaced}
    except _Refused as error:
        raise ValueError(f"The checkpoint {path} {error}.") from error
    return UntrustedAgent(
        io.BytesIO(content), objects, objects.get("policy_kwargs", data.get("policy_kwargs"))
    )


def check_algorithm(path: Any, data: Any, algorithm: str | None = None) -> None:
    """Raise an AnotherAlgorithmError if ``data`` is that of another algorithm.

    Args:
        path: where it is from.
        data: attributes of the agent.
        algorithm: of the two of this package, if only one will do.
    """
    if isinstance(data, dict) and "policy_class" in data and not OWN_ATTRIBUTES & data.keys():
        policy = data["policy_class"]
        module = policy.get("__module__") if isinstance(policy, dict) else policy
        raise AnotherAlgorithmError(
            f"The checkpoint {path} is of another algorithm: it has none of "
            f"{', '.join(sorted(OWN_ATTRIBUTES))}, and its policy is of {module}."
        )
    found = "RecurrentPPO" if isinstance(data, dict) and PPO_ATTRIBUTE in data else "RecurrentA2C"
    if algorithm not in (None, found):
        raise AnotherAlgorithmError(
            f"The checkpoint {path} is one of {found}; load it with {found}.load, not with {algorithm}.load."
        )


class AnotherAlgorithmError(ValueError):
    """The file is a whole one, of another algorithm."""


def check_members(archive: zipfile.ZipFile, size: int) -> None:
    """Make sure that an archive is whole and of its declared size, and has the members of an agent only.

    Raises:
        ValueError: if not.
        zipfile.BadZipFile: it is damaged.
    """
    names = archive.namelist()
    if MEMBERS[0] not in names:
        # Of a file that was cut off, an archive inside of it is found.
        raise zipfile.BadZipFile(f"{MEMBERS[0]} is missing")
    for info in archive.infolist():
        if info.filename not in (*MEMBERS, *OTHER_MEMBERS):
            raise _Refused(f"holds {info.filename!r}, which no saved agent has")
        if stat.S_ISLNK(info.external_attr >> 16):
            raise _Refused(f"holds a link, {info.filename!r}")
        if names.count(info.filename) > 1:
            raise _Refused(f"holds {info.filename!r} more than once")
    _check_expansion(archive, size, "")
    check_whole(archive)


def check_whole(archive: zipfile.ZipFile) -> None:
    """Raise a BadZipFile unless everything that an agent needs is there and undamaged."""
    damaged = archive.testzip()
    missing = [name for name in MEMBERS if name not in archive.namelist()]
    if damaged or missing:
        raise zipfile.BadZipFile(f"{damaged} is damaged" if damaged else f"{missing[0]} is missing")


def read_object(key: str, item: Any) -> Any:
    """The value of an attribute in ``data``: plain JSON, or an object of a known kind.

    Raises:
        ValueError: it holds something of another kind.
    """
    if not (isinstance(item, dict) and ":serialized:" in item):
        return item
    try:
        pickled = base64.b64decode(item[":serialized:"], validate=True)
        return _KnownUnpickler(io.BytesIO(pickled)).load()
    except _Refused as error:
        raise _Refused(f"holds {error} in {key!r}, which is not what an agent is saved with") from error
    # A pickle that is not well formed can fail in any way; a program that does not stop, in none of them.
    except Exception as error:
        raise _Refused(
            f"holds a damaged object in {key!r}: {str(error)[:200] or type(error).__name__}"
        ) from error


class _Refused(ValueError):
    """Continues the sentence "The checkpoint PATH ..."."""


DAMAGE = (
    *(zipfile.BadZipFile, OSError, EOFError, KeyError, ValueError, TypeError),
    *(RuntimeError, NotImplementedError, RecursionError, MemoryError, UnicodeError),
)
"""What reading a damaged archive may raise."""


def _read_whole(path: Any) -> bytes:
    if hasattr(path, "read"):
        start = path.tell()
        content = path.read()
        path.seek(start)
        return content
    try:
        with open(with_suffix(path), "rb") as file:
            return file.read()
    except FileNotFoundError as error:
        raise ValueError(f"There is no checkpoint at {path}.") from error
    except OSError as error:
        raise ValueError(f"The checkpoint {path} cannot be read: {error.strerror or error}.") from error


def with_suffix(path: Any) -> Any:
    """Stable-Baselines3 finds ``agent.zip`` under the name ``agent``."""
    if isinstance(path, str | os.PathLike) and not os.path.exists(path) and os.path.exists(f"{path}.zip"):
        return f"{path}.zip"
    return path


def _check_expansion(archive: zipfile.ZipFile, size: int, where: str) -> None:
    unpacked = sum(info.file_size for info in archive.infolist())
    if unpacked > MOST_EXPANSION * size + FREE_SIZE:
        raise _Refused(
            f"has {size} bytes{where}, which would unpack to {unpacked}; no saved agent shrinks that much"
        )


def _check_torch_file(name: str, content: bytes) -> None:
    """Old forms of files, and unpacking without a limit: torch allows both, and neither is needed."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            _check_expansion(archive, len(content), f" in {name!r}")
    except zipfile.BadZipFile as error:
        raise zipfile.BadZipFile(f"{name} is not a file of torch") from error


def _read_objects(data: Any, forbidden: set[str], replaced: set[str]) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise _Refused("is incomplete or damaged: its data is not a dictionary")
    for key in data:
        if key in forbidden:
            raise _Refused(f"sets {key!r}, which no saved agent does")
    return {
        key: read_object(key, item)
        for key, item in data.items()
        if key not in replaced and isinstance(item, dict) and ":serialized:" in item
    }


_Interpreter: Any = pickle._Unpickler  # pyright: ignore[reportAttributeAccessIssue]
"""The unpickler of the standard library that is written in Python."""


class _KnownUnpickler(_Interpreter):
    """Builds objects of known kinds only.

    The interpreter of the standard library in Python, whose operations can be replaced: here a class may be
    named, but only the few of :func:`_called` are called and those of :func:`_instantiated` instantiated,
    nothing is written into a class or a function, and no length is believed that the data does not have.
    """

    def find_class(self, module: str, name: str) -> Any:
        """See base class."""
        known = {**_values(), **_instantiated(), **_called()}
        if (module, name) not in known:
            raise _Refused(f"{module}.{name}")
        return known[module, name]

    def _call(self) -> None:
        arguments = self.stack.pop()
        function = self.stack[-1]
        if not any(function is known for known in _called().values()):
            raise _Refused(f"a call of {_name(function)}")
        self.stack[-1] = function(*arguments)

    def _instantiate(self) -> None:
        arguments = self.stack.pop()
        kind = self.stack.pop()
        if arguments or not any(kind is known for known in _instantiated().values()):
            raise _Refused(f"an instance of {_name(kind)}")
        self.append(kind.__new__(kind))

    def _fill(self) -> None:
        state, target = self.stack[-1], self.stack[-2]
        if isinstance(target, np.dtype):
            # (3, byte order, and five defaults): fields, sub-arrays and sizes are of no use here.
            if len(state) != 8 or state[2:] != (None, None, None, -1, -1, 0):
                raise _Refused("an unusual type of array elements")
        elif type(target) not in {*_instantiated().values(), *_filled()}:
            raise _Refused(f"a state for {_name(target)}")
        self._original[pickle.BUILD[0]](self)

    def _byte_array(self) -> None:
        # Takes what is there; the original first makes room for as much as the file says.
        self.append(bytearray(self.read(int.from_bytes(self.read(8), "little"))))

    def _refuse(self) -> None:
        raise _Refused("an operation of pickle that no saved agent needs")

    _original = _Interpreter.dispatch
    dispatch: ClassVar[dict[int, Any]] = {
        **_original,
        pickle.REDUCE[0]: _call,
        pickle.NEWOBJ[0]: _instantiate,
        pickle.BUILD[0]: _fill,
        pickle.BYTEARRAY8[0]: _byte_array,
        **dict.fromkeys(
            (
                *(pickle.PERSID[0], pickle.BINPERSID[0], pickle.INST[0], pickle.OBJ[0]),
                *(pickle.NEWOBJ_EX[0], pickle.EXT1[0], pickle.EXT2[0], pickle.EXT4[0]),
            ),
            _refuse,
        ),
    }


def _name(thing: object) -> str:
    """A name, and never the text of a value, which a file can make as long as it likes."""
    return f"{getattr(thing, '__module__', '')}.{getattr(thing, '__name__', type(thing).__name__)}"


Names = dict[tuple[str, str], Any]
"""(module, name) as a pickle gives them -> the object. Nothing is imported because a file names it."""


@cache
def _values() -> Names:
    """Classes that may be an attribute's value, or part of it."""
    from stable_baselines3.common import torch_layers
    from stable_baselines3.common.sb2_compat.rmsprop_tf_like import RMSpropTFLike
    from torch import nn, optim

    from mnm_rl.agents import buffers, policies

    own = [
        policies.RecurrentActorCriticPolicy,
        policies.RecurrentActorCriticCnnPolicy,
        policies.RecurrentMultiInputActorCriticPolicy,
        buffers.SequenceRolloutBuffer,
    ]
    extractors = [torch_layers.FlattenExtractor, torch_layers.NatureCNN, torch_layers.CombinedExtractor]
    activations = [nn.Tanh, nn.ReLU, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Sigmoid, nn.Softplus]
    optimizers = [optim.Adam, optim.AdamW, optim.NAdam, optim.RAdam, optim.SGD, optim.RMSprop, RMSpropTFLike]
    named = _by_name([*own, *extractors, *activations, *optimizers])
    # What numpy gives to its functions below.
    return {
        **named,
        ("numpy", "ndarray"): np.ndarray,
        ("numpy.random._pcg64", "PCG64"): np.random.PCG64,
        ("numpy.random.bit_generator", "SeedSequence"): np.random.SeedSequence,
    }


def known_classes(base: type) -> dict[str, type]:
    """By their names, the classes of a kind that a setting of a policy may be without anybody's trust."""
    return {
        name: kind
        for (_, name), kind in _values().items()
        if isinstance(kind, type) and issubclass(kind, base) and "mnm_rl" not in kind.__module__
    }


@cache
def _instantiated() -> Names:
    """Classes that may be instantiated, without arguments, and whose instances are filled in afterwards."""
    from gymnasium import spaces
    from stable_baselines3.common.running_mean_std import RunningMeanStd
    from stable_baselines3.common.utils import ConstantSchedule, FloatSchedule, LinearSchedule

    kinds = [spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary, spaces.Dict]
    return _by_name([*kinds, RunningMeanStd, ConstantSchedule, FloatSchedule, LinearSchedule])


@cache
def _called() -> Names:
    """Functions that may be called, safe for any arguments."""
    from numpy._core.numeric import _frombuffer  # pyright: ignore[reportAttributeAccessIssue]

    # Before version 2, numpy._core was called numpy.core.
    arrays = {
        (f"numpy.{core}.{module}", name): function
        for core in ("_core", "core")
        for module, name, function in (
            ("numeric", "_frombuffer", _frombuffer),
            ("multiarray", "_reconstruct", _empty_array),
            ("multiarray", "scalar", _scalar),
        )
    }
    return {
        **arrays,
        ("numpy", "dtype"): _dtype,
        ("numpy.random._pickle", "__generator_ctor"): _generator,
        ("numpy.random._pickle", "__bit_generator_ctor"): _bit_generator,
        ("numpy.random.bit_generator", "__pyx_unpickle_SeedSequence"): _seed_sequence,
        ("collections", "deque"): collections.deque,
        ("collections", "OrderedDict"): collections.OrderedDict,
    }


def _dtype(name: object, *_: object) -> np.dtype:
    """Of plain numbers; a copy, because pickles write into it."""
    dtype = np.dtype(name, copy=True) if isinstance(name, str) else None
    if dtype is None or dtype.kind not in "biufc":
        raise _Refused("an array of something other than numbers")
    return dtype


def _empty_array(kind: object, shape: object, _: object) -> NDArray[Any]:
    """How numpy makes an array that is filled in afterwards."""
    if kind is not np.ndarray or shape != (0,):
        raise _Refused("an unusual array")
    return np.empty(0, np.int8)


def _scalar(dtype: object, raw: object) -> Any:
    if not isinstance(dtype, np.dtype) or not isinstance(raw, bytes) or len(raw) != dtype.itemsize:
        raise _Refused("an unusual number of numpy")
    return np.frombuffer(raw, dtype)[0]


def _bit_generator(kind: object) -> np.random.PCG64:
    if kind not in ("PCG64", np.random.PCG64):
        raise _Refused("an unusual random generator")
    return np.random.PCG64()


def _generator(bits: object, *_: object) -> np.random.Generator:
    return np.random.Generator(bits if isinstance(bits, np.random.PCG64) else _bit_generator(bits))


def _seed_sequence(kind: object, checksum: object, state: object) -> Any:
    from numpy.random import bit_generator

    if kind is not np.random.SeedSequence:
        raise _Refused("an unusual seed")
    return bit_generator.__pyx_unpickle_SeedSequence(kind, checksum, state)  # pyright: ignore


def _filled() -> tuple[type, ...]:
    """Types, besides those of :func:`_instantiated`, whose instances restore a state from a pickle."""
    return (np.ndarray, np.random.Generator, np.random.PCG64, np.random.SeedSequence)


def _by_name(kinds: list[type]) -> Names:
    return {(kind.__module__, kind.__name__): kind for kind in kinds}
