"""Checks of the settings that an agent is given, and what becomes of those that other algorithms have."""

from __future__ import annotations

import difflib
import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from numbers import Integral, Real
from typing import Any, NamedTuple


class Allowed(NamedTuple):
    """Which numbers a setting may have."""

    words: str
    """Continues the sentence "gamma must be ..."."""
    kind: type
    holds: Callable[[Any], bool]


COUNT = Allowed("at least 1 and a whole number", Integral, lambda value: value >= 1)
FRACTION = Allowed("a number between 0 and 1", Real, lambda value: 0 <= value <= 1)
WEIGHT = Allowed("a finite number that is not negative", Real, lambda value: 0 <= value < math.inf)
LIMIT = Allowed("positive", Real, lambda value: value > 0)
NOT_NEGATIVE = Allowed("a number that is not negative", Real, lambda value: value >= 0)


def check_number(name: str, value: object, allowed: Allowed) -> None:
    """Raise a ValueError that names the setting unless the value is allowed; NaN never is."""
    if isinstance(value, bool) or not isinstance(value, allowed.kind) or not allowed.holds(value):
        raise ValueError(f"{name} must be {allowed.words}, got {value!r}.")


def check_optional_number(name: str, value: object, allowed: Allowed) -> None:
    """The same for a setting that may be ``None``."""
    if value is not None:
        check_number(name, value, Allowed(f"{allowed.words}, or None", allowed.kind, allowed.holds))


def check_learning_rate(value: object) -> None:
    """Raise a ValueError unless the value is a number that is not negative, or a function of one number."""
    check_schedule("learning_rate", value, WEIGHT)


def check_schedule(name: str, value: object, allowed: Allowed) -> None:
    """Raise a ValueError unless the value is a number that is allowed, or a function of one number."""
    what = f"{name} (a number, or a function of the remaining progress)"
    if not callable(value):
        check_number(what, value, allowed)
        return
    try:
        inspect.signature(value).bind(1.0)
    except TypeError as error:
        raise ValueError(f"{what} must be one of one argument, got {value!r}.") from error
    except ValueError:
        return  # some functions written in C do not say what they take


def check_flag(name: str, value: object) -> None:
    """Raise a ValueError unless the value is True or False."""
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be True or False, got {value!r}.")


_FULL_STD = "the noise of state-dependent exploration has a deviation of its own for each feature and number"
_NO_EXPLN = "standard deviations are exponentials of parameters"
_OF_THE_AGENT = "it is an argument of the agent"
_ADAM = (
    "the optimizer is Adam unless policy_kwargs has another optimizer_class, such as torch.optim.RMSprop "
    "with optimizer_kwargs={'alpha': 0.99, 'eps': 1e-5}"
)
_ONE_UPDATE = "there is one update per rollout, from all of it"
_ONE_EXTRACTOR = (
    "policy and value function share the features extractor; separate_critic=True separates the rest"
)

OtherSettings = Mapping[str, tuple[tuple[object, ...], str]]

OTHER_ALGORITHMS: OtherSettings = {
    "use_rms_prop": ((False,), _ADAM),
    "rms_prop_eps": ((1e-5,), _ADAM),
    "batch_size": ((None,), _ONE_UPDATE),
    "n_epochs": ((1,), _ONE_UPDATE),
    "clip_range": ((None,), _ONE_UPDATE),
    "clip_range_vf": ((None,), _ONE_UPDATE),
    "target_kl": ((None,), _ONE_UPDATE),
}
"""Settings of A2C and PPO of Stable-Baselines3: the values that change nothing here, and why others would."""

OTHER_POLICIES: OtherSettings = {
    "use_sde": ((False,), _OF_THE_AGENT),
    "full_std": ((True,), _FULL_STD),
    "use_expln": ((False,), _NO_EXPLN),
    "squash_output": ((False,), "actions are clipped, not squashed"),
    "share_features_extractor": ((True,), _ONE_EXTRACTOR),
    "lstm_kwargs": ((None, {}), "the core's settings are core_kwargs"),
}
"""The same for the policies of Stable-Baselines3 and of sb3-contrib's RecurrentPPO."""


def check_foreign_settings(
    owner: str, given: Mapping[str, object], known: OtherSettings, own: Iterable[str] = ()
) -> None:
    """Accept settings of other algorithms whose value changes nothing here.

    Args:
        owner: whose settings, for messages.
        given: name -> value.
        known: which of others are accepted.
        own: names that are looked at for one that may have been meant.

    Raises:
        TypeError: a setting that nobody has, or another value; the message names it.
    """
    for name, value in given.items():
        if name not in known:
            near = difflib.get_close_matches(name, list(own), n=2, cutoff=0.5)
            hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else "."
            raise TypeError(f"{owner} has no setting {name!r}{hint}")
        harmless, reason = known[name]
        if not any(value is allowed or value == allowed for allowed in harmless):
            raise TypeError(f"{owner} does not take {name}={value!r}: {reason}.")
