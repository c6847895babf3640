"""Settings per environment from YAML files in RL Zoo's format; the package's own are in ``hyperparams/``.

A file has one entry per environment, ``CartPole-v1``, and more for other cores, ``CartPole-v1/lstm``; the
head of ``hyperparams/ppo.yml`` tells what is in an entry. RL Zoo's reader takes the entry of the environment,
uses the keys that it knows and passes all others to the constructor of the algorithm.
"""

from __future__ import annotations

import ast
import dataclasses
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from mnm_rl.cores import core_config
from mnm_rl.field_types import check_field_types
from mnm_rl.training.folder import RunKind
from mnm_rl.training.options import plain
from mnm_rl.training.rl.config import CONFIGS, AgentConfig
from mnm_rl.training.rl.environments import ids_of

PACKAGE, NONE = "package", "none"
"""Where settings come from, if not from a file of the user's own: the package's file, or nowhere."""
DEFAULT_CORE = "mnm-p"
POLICIES = ("MlpPolicy", "CnnPolicy", "MultiInputPolicy")
POLICY_FIELDS = {
    "net_arch": "net_arch",
    "separate_critic": "separate_critic",
    "encoder": "encoder_arch",
    "core_layers": "core_layers",
}
"""Settings of the run that are arguments of the policy -> how the policy, and RL Zoo with it, calls them."""
ELSEWHERE = (
    *("env", "core", "core_settings", "adam_epsilon", "wrapper", *POLICY_FIELDS),
    *("timesteps", "schedule", "episodes", "seed", "subprocesses"),
    *("log_every", "checkpoint_minutes", "watch_every"),
)
"""Settings of the run that are not keys of an entry: RL Zoo has another form for them, or they are not of the
environment."""


class Entry(NamedTuple):
    """Settings of an environment and a core."""

    file: Path
    key: str
    core: str
    settings: dict[str, Any]
    """Fields of the run's config."""

    def __str__(self) -> str:
        """What is said when they are used."""
        return (
            f"Settings of {self.key.removesuffix(f'/{self.core}')} for {self.core} from {self.file.name}; "
            "what is given on the command line goes before them, --settings none leaves them out."
        )


def package_file(kind: RunKind) -> Path:
    """The package's own file for a kind of run."""
    return Path(__file__).parent / "hyperparams" / f"{kind.name}.yml"


def find_entry(kind: RunKind, env: str, core: str | None = None, source: str = PACKAGE) -> Entry | None:
    """The settings that a file has for an environment and a core.

    Args:
        kind: of the run, which says whose settings there can be.
        env: id of the environment.
        core: name of the core; if not given, the one that the entry of the environment names, or mnm-p.
        source: ``"package"``, ``"none"``, or the path of a file.

    Returns:
        ``None`` if nothing is looked for, or the package's file has nothing.

    Raises:
        ValueError: the file cannot be read, has nothing for the environment and the core, or has settings in
            it that are not allowed; the message names the file and the key.
    """
    if source == NONE:
        return None
    file = package_file(kind) if source == PACKAGE else Path(source)
    entries = read_entries(file)
    found = _find(file, entries, env, core)
    if found is None:
        if source == PACKAGE:
            return None
        has = ", ".join(list(entries)[:10]) + (", ..." if len(entries) > 10 else "")
        raise ValueError(
            f"{file} has no settings of {env} for {core or DEFAULT_CORE}; it has entries for: "
            f"{has or 'nothing'}."
        )
    key, core = found
    settings = read_entry(entries[key], CONFIGS[kind.name], f"{file}, {key}")
    settings["core"] = core
    try:
        CONFIGS[kind.name](env=env, **settings).check()
    except (ValueError, TypeError) as error:
        raise ValueError(f"{file}, {key}: {error}") from error
    return Entry(file, key, core, settings)


def config_for(kind: RunKind, env: str, core: str | None = None, source: str = PACKAGE) -> AgentConfig:
    """A run with the settings of its environment, as ``train-a2c`` and ``train-ppo`` make it.

    Args:
        kind: of the run.
        env: id of the environment.
        core: name of the core, as for :func:`find_entry`.
        source: as for :func:`find_entry`.

    Raises:
        ValueError: as for :func:`find_entry`.
    """
    entry = find_entry(kind, env, core, source)
    settings: dict[str, Any] = {"core": core or DEFAULT_CORE} if entry is None else entry.settings
    return CONFIGS[kind.name](env=env, **settings)


class _UniqueKeys(yaml.SafeLoader):
    """Refuses a key that stands twice in a mapping, of which YAML readers take the last."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """See base class."""
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<"]
        if repeated := next((key for key in keys if keys.count(key) > 1), None):
            line = node.start_mark.line + 1
            raise yaml.YAMLError(f"{repeated} is there twice in what begins at line {line}")
        return super().construct_mapping(node, deep)


def read_entries(file: Path) -> dict[str, dict[str, Any]]:
    """All entries of a file, as they are written there.

    Raises:
        ValueError: the file cannot be read, or is something else.
    """
    try:
        found = yaml.load(file.read_text(encoding="utf-8"), _UniqueKeys)
    except OSError as error:
        raise ValueError(f"The settings {file} cannot be read: {error.strerror or error}.") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"The settings {file} are not YAML: {reason[:300]}.") from error
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise ValueError(
            f"The settings {file} must have entries by ids of environments, got {repr(found)[:80]}."
        )
    for key, entry in found.items():
        if not isinstance(key, str):
            raise ValueError(f"{file}: the id of an environment must be a text, got {key!r}.")
        if not isinstance(entry, dict):
            raise ValueError(
                f"{file}, {key}: an entry must have settings by their names, got {repr(entry)[:80]}."
            )
    return found


def read_entry(entry: Mapping[Any, Any], config_class: type[AgentConfig], where: str) -> dict[str, Any]:
    """Fields of a run's config from an entry in the format of RL Zoo.

    Args:
        entry: as it is written.
        config_class: of the run.
        where: file and key, for messages.

    Raises:
        ValueError: a key that is not known, or a value of a wrong type.
    """
    allowed = allowed_keys(config_class)
    fields: dict[str, Any] = {}
    for key, value in entry.items():
        if key not in allowed:
            raise ValueError(f"{where}: unknown setting {key!r}; allowed are {', '.join(allowed)}.")
        try:
            found = CONVERTERS[key](value) if key in CONVERTERS else {key: value}
            fields |= {name: _fitting(config_class, name, each) for name, each in found.items()}
        except (ValueError, TypeError) as error:
            raise ValueError(f"{where}: {_under_its_key(str(error), key)}") from error
    return fields


def allowed_keys(config_class: type[AgentConfig]) -> list[str]:
    """What may stand in an entry: keys of RL Zoo, then settings of the agent and of the run."""
    names = [each.name for each in dataclasses.fields(config_class)]
    needs = {"env_wrapper": "wrapper", "normalize": "normalize"}
    of_zoo = [key for key in CONVERTERS if needs.get(key, "env") in names]
    return [*of_zoo, *(name for name in names if name not in (*ELSEWHERE, *of_zoo))]


def write_entry(config: AgentConfig) -> dict[str, Any]:
    """The entry that :func:`read_entry` reads as this config, but for what is not of the environment.

    Settings that only some runs have stand in it where they differ from their default. Core settings do where
    they differ from the core's own default.
    """
    values = {each.name: getattr(config, each.name) for each in dataclasses.fields(config)}
    values |= {"n_steps": config.rollout_steps, "gamma": config.discount}
    values["bootstrap_time_limit"] = config.bootstraps
    rate = float(config.learning_rate)
    entry: dict[str, Any] = {
        "n_timesteps": config.total_timesteps,
        "policy": "MlpPolicy",
        "policy_kwargs": _policy_arguments(config),
        "learning_rate": f"lin_{rate!r}" if config.schedule == "linear" else rate,
    }
    for each in dataclasses.fields(config):
        name, value = each.name, values[each.name]
        if name in ELSEWHERE or name in entry or value is None:
            continue
        if name in ALWAYS or value != config.default(name):
            entry[name] = value
    if "env_kwargs" in entry:
        entry["env_kwargs"] = json.loads(config.env_kwargs)
    if "normalize" in entry:
        entry["normalize"] = _normalize_arguments(entry["normalize"])
    if values.get("wrapper"):
        entry["env_wrapper"] = list(values["wrapper"])
    return plain(entry)


def entry_key(env: str, core: str) -> str:
    """Under which an entry stands: the id of the environment for the default core, ``id/core`` for others."""
    return env if core == DEFAULT_CORE else f"{env}/{core}"


ALWAYS = (
    *(
        "normalize",
        "n_envs",
        "n_steps",
        "batch_size",
        "n_epochs",
        "gamma",
        "gae_lambda",
        "ent_coef",
        "vf_coef",
    ),
    *("max_grad_norm", "clip_range", "normalize_advantage", "meta_coef", "entropy_kind"),
    *("bootstrap_time_limit", "bptt_steps"),
)
"""Settings that :func:`write_entry` writes even if they are defaults, which may change."""


def _policy_arguments(config: AgentConfig) -> dict[str, Any]:
    """The core, its settings other than its defaults, and what else the policy has."""
    _, own = core_config(config.core, **_required(config))
    chosen = config.all_core_settings()
    kwargs = {name: value for name, value in chosen.items() if value != getattr(own, name)}
    arguments: dict[str, Any] = {"core": config.core, "core_kwargs": {**kwargs, **_required(config)}}
    for each in dataclasses.fields(config):
        if each.name in POLICY_FIELDS and (value := getattr(config, each.name)) != each.default:
            arguments[POLICY_FIELDS[each.name]] = value
    if config.adam_epsilon != config.default("adam_epsilon"):
        arguments["optimizer_kwargs"] = {"eps": config.adam_epsilon}
    return arguments


def _required(config: AgentConfig) -> dict[str, Any]:
    """Settings without which the core has no defaults."""
    try:
        core_config(config.core)
    except TypeError:
        return config.all_core_settings()
    return {}


def _find(
    file: Path, entries: Mapping[str, dict[str, Any]], env: str, core: str | None
) -> tuple[str, str] | None:
    """Key and core of the entry for an environment and a core."""
    for name in (*ids_of(env), "default"):
        named = _core_of(file, name, entries[name]) if name in entries else None
        wanted = core or named or DEFAULT_CORE
        if (key := f"{name}/{wanted}") in entries:
            if (other := _core_of(file, key, entries[key])) not in (None, wanted):
                raise ValueError(f"{file}, {key}: the core must be {wanted}, as in its key, got {other!r}.")
            return key, wanted
        if name in entries and named in (None, wanted):
            return name, wanted
    return None


def _core_of(file: Path, key: str, entry: Mapping[str, Any]) -> str | None:
    """The core that an entry names, if it names one."""
    try:
        core = _mapping("policy_kwargs", entry.get("policy_kwargs", {})).get("core")
    except ValueError as error:
        raise ValueError(f"{file}, {key}: {error}") from error
    if core is not None and not isinstance(core, str):
        raise ValueError(f"{file}, {key}: the core in policy_kwargs must be a text, got {core!r}.")
    return core


def _under_its_key(sentence: str, key: str) -> str:
    """A sentence about a field, under the name that the field has in the file."""
    former = {"n_timesteps": "timesteps", "env_wrapper": "wrapper"}.get(key)
    return f"{key}{sentence.removeprefix(former)}" if former and sentence.startswith(former) else sentence


def _number(value: Any) -> Any:
    """YAML takes 1e-3 for a text."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _fitting(config_class: type[AgentConfig], name: str, value: Any) -> Any:
    """The value as the field's type wants it: 1e6 may be a whole number, a list a tuple.

    Raises:
        TypeError: it is of another type.
        ValueError: it is not among the few that are allowed.
    """
    if isinstance(value, list):
        value = tuple(value)
    meanings = [value, _number(value)]
    if isinstance(meanings[1], float) and meanings[1].is_integer():
        meanings.append(int(meanings[1]))
    for meaning in meanings:
        with suppress(TypeError, ValueError):
            check_field_types(config_class, {name: meaning})
            return meaning
    check_field_types(config_class, {name: value})
    return value


def _mapping(key: str, value: Any) -> dict[str, Any]:
    """Settings by their names, written in YAML or, as often in RL Zoo, as a text of Python's."""
    if isinstance(value, str):
        value = _from_python(key, value)
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        raise ValueError(f"{key} must be settings by their names, got {repr(value)[:80]}.")
    return value


def _from_python(key: str, text: str) -> Any:
    """What ``dict(a=1)`` or ``{'a': 1}`` stands for; nothing is run.

    Raises:
        ValueError: it is something else.
    """
    try:
        node = ast.parse(text.strip(), mode="eval").body
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict":
            if node.args or any(each.arg is None for each in node.keywords):
                raise ValueError("only dict(name=value)")
            return {str(each.arg): ast.literal_eval(each.value) for each in node.keywords}
        return ast.literal_eval(node)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise ValueError(
            f"{key} must be settings by their names, such as dict(name=1), got {repr(text)[:80]}."
        ) from error


def _policy(value: Any) -> dict[str, Any]:
    """Which policy it is depends on the observations; RL Zoo wants to be told."""
    if value not in POLICIES:
        raise ValueError(f"policy must be one of {', '.join(POLICIES)}, got {value!r}.")
    return {}


def _policy_kwargs(value: Any) -> dict[str, Any]:
    arguments = dict(_mapping("policy_kwargs", value))
    fields: dict[str, Any] = {}
    if (core := arguments.pop("core", None)) is not None:
        fields["core"] = core
    fields["core_settings"] = _mapping("core_kwargs", arguments.pop("core_kwargs", {}))
    optimizer = _mapping("optimizer_kwargs", arguments.pop("optimizer_kwargs", {}))
    if unknown := sorted(optimizer.keys() - {"eps"}):
        raise ValueError(f"optimizer_kwargs in policy_kwargs may have eps alone, got {unknown[0]!r}.")
    if "eps" in optimizer:
        fields["adam_epsilon"] = optimizer["eps"]
    names = {argument: name for name, argument in POLICY_FIELDS.items()}
    if unknown := sorted(arguments.keys() - names.keys()):
        allowed = ", ".join(("core", "core_kwargs", "optimizer_kwargs", *sorted(names)))
        raise ValueError(f"policy_kwargs has an unknown setting {unknown[0]!r}; allowed are {allowed}.")
    return {**fields, **{names[argument]: value for argument, value in arguments.items()}}


def _learning_rate(value: Any) -> dict[str, Any]:
    """A number stays as it is during the run, ``lin_1e-3`` falls to zero."""
    if isinstance(value, str) and value.startswith("lin_"):
        rate, schedule = _number(value.removeprefix("lin_")), "linear"
    else:
        rate, schedule = _number(value), "constant"
    if isinstance(rate, str):
        raise ValueError(f"learning_rate must be a number, or one after lin_, got {value!r}.")
    return {"learning_rate": rate, "schedule": schedule}


def _normalize(value: Any) -> dict[str, Any]:
    """RL Zoo's true, or arguments of ``VecNormalize``, of which two can be chosen here."""
    if isinstance(value, bool):
        return {"normalize": "both" if value else "none"}
    flags = _mapping("normalize", value)
    for name, flag in flags.items():
        if name not in ("norm_obs", "norm_reward") or not isinstance(flag, bool):
            raise ValueError(
                f"normalize must be true, false, or norm_obs and norm_reward as true or false, got {name}: "
                f"{flag!r}."
            )
    chosen = (flags.get("norm_obs", True), flags.get("norm_reward", True))
    words = {(True, True): "both", (True, False): "observations", (False, True): "rewards"}
    return {"normalize": words.get(chosen, "none")}


def _normalize_arguments(word: str) -> bool | dict[str, bool]:
    """The inverse of :func:`_normalize`."""
    if word in ("both", "none"):
        return word == "both"
    return {"norm_obs": word == "observations", "norm_reward": word == "rewards"}


def _env_wrapper(value: Any) -> dict[str, Any]:
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(each, str) for each in names):
        raise ValueError(
            f"env_wrapper must be a class by its name, or several in a list, got {repr(value)[:80]}."
        )
    return {"wrapper": tuple(names)}


CONVERTERS = {
    "n_timesteps": lambda value: {"timesteps": value},
    "policy": _policy,
    "policy_kwargs": _policy_kwargs,
    "learning_rate": _learning_rate,
    "normalize": _normalize,
    "env_wrapper": _env_wrapper,
    "env_kwargs": lambda value: {"env_kwargs": json.dumps(_mapping("env_kwargs", value))},
}
"""Keys of RL Zoo -> the fields of a run's config that their values stand for."""
