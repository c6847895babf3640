"""Checks of the settings of a policy, before it is built."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from numbers import Integral, Real
from typing import Any

import torch
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, CombinedExtractor, NatureCNN
from torch import nn

from mnm_rl.agents.arguments import check_dictionary, check_keywords, one_line
from mnm_rl.agents.settings import (
    COUNT,
    OTHER_POLICIES,
    Allowed,
    check_flag,
    check_foreign_settings,
    check_number,
)
from mnm_rl.sizes import check_fits

FINITE = Allowed("a finite number", Real, math.isfinite)
BYTES_PER_WEIGHT = 4
RENAMED = ("n_lstm_layers", "lstm_hidden_size")
"""Settings of sb3-contrib's RecurrentPPO that have another name here."""


def check_policy_settings(
    net_arch: Any,
    activation_fn: Any,
    ortho_init: Any,
    log_std_init: Any,
    features_extractor_class: Any,
    features_extractor_kwargs: Any,
    normalize_images: Any,
    optimizer_class: Any,
    optimizer_kwargs: Any,
) -> None:
    """Make sure that a policy can be built with its settings, other than its core.

    Raises:
        ValueError: a setting has a value that is not allowed; the message names it.
        TypeError: one is of another type.
    """
    check_net_arch(net_arch)
    is_module = isinstance(activation_fn, type) and issubclass(activation_fn, nn.Module)
    makes_one = callable(activation_fn) and not isinstance(activation_fn, nn.Module | type)
    if not (is_module or makes_one):
        raise TypeError(f"activation_fn must be a class of torch.nn, such as nn.Tanh, got {activation_fn!r}.")
    check_flag("ortho_init", ortho_init)
    check_flag("normalize_images", normalize_images)
    check_number("log_std_init", log_std_init, FINITE)
    _check_extractor_settings(features_extractor_class, features_extractor_kwargs)
    _check_optimizer(optimizer_class, optimizer_kwargs)


def check_sde(use_sde: Any, action_space: spaces.Space | None) -> None:
    """Make sure that there can be state-dependent exploration, if it is wanted.

    Raises:
        ValueError: ``use_sde`` is not True or False, or the actions are no numbers.
    """
    check_flag("use_sde", use_sde)
    if use_sde and not isinstance(action_space, spaces.Box | None):
        raise ValueError(
            f"use_sde is for Box actions, whose noise it changes; these are {one_line(action_space)}."
        )


OWN = (
    *("core", "core_kwargs", "core_layers", "encoder_arch", "separate_critic", "net_arch", "activation_fn"),
    *("ortho_init", "log_std_init", "features_extractor_class", "features_extractor_kwargs"),
    *("normalize_images", "optimizer_class", "optimizer_kwargs"),
)
"""Settings of our policies."""


def renamed(other: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of the core of a policy, those included that sb3-contrib has under other names.

    Args:
        other: settings that are not of our policies.
        own: ``core_kwargs``, ``core_layers`` and ``separate_critic``.

    Raises:
        TypeError: a setting that nobody has or that is not available, or two that contradict each other.
    """
    rest, found = dict(other), dict(own)
    shared, critic = rest.pop("shared_lstm", None), rest.pop("enable_critic_lstm", None)
    foreign = {key: rest[key] for key in rest if key not in RENAMED}
    check_foreign_settings("The policy", foreign, OTHER_POLICIES, (*OWN, *RENAMED))
    if shared is not None or critic is not None:
        check_flag("shared_lstm", shared is True if shared is None else shared)
        check_flag("enable_critic_lstm", critic is True if critic is None else critic)
        if shared is critic:
            what = "one LSTM that is shared and two" if shared else "a value function without memory"
            raise TypeError(f"shared_lstm={shared} and enable_critic_lstm={critic} would be {what}.")
        found["separate_critic"] = own["separate_critic"] or critic is True or shared is False
    if "n_lstm_layers" in rest:
        if own["core_layers"] not in (1, rest["n_lstm_layers"]):
            raise TypeError("Give either core_layers or n_lstm_layers, which mean the same.")
        found["core_layers"] = rest["n_lstm_layers"]
    if "lstm_hidden_size" in rest:
        check_dictionary("core_kwargs", own["core_kwargs"])
        if "hidden_size" in own["core_kwargs"]:
            raise TypeError("Give either lstm_hidden_size or hidden_size in core_kwargs.")
        found["core_kwargs"] = {**own["core_kwargs"], "hidden_size": rest["lstm_hidden_size"]}
    return found


def check_net_arch(net_arch: Any) -> None:
    """Make sure that layers can be built.

    Raises:
        ValueError: they are not sizes of at least 1, for both heads or for each, or do not fit into memory.
    """
    # Stable-Baselines3 takes a dictionary in a list, too, as in its former versions.
    former = isinstance(net_arch, list) and len(net_arch) == 1 and isinstance(net_arch[0], Mapping)
    layers = net_arch[0] if former else net_arch
    if layers is None:
        return
    parts = list(layers.values()) if isinstance(layers, Mapping) else [layers]
    heads_known = not isinstance(layers, Mapping) or set(layers) <= {"pi", "vf"}
    if not heads_known or not all(are_sizes(part) for part in parts):
        raise ValueError(
            "net_arch must be a list of sizes of at least 1, such as [64], or such lists for pi and vf, "
            f"got {one_line(repr(net_arch))}."
        )
    weights = sum(one * other for part in parts for one, other in pairwise((1, *map(int, part))))
    check_fits(weights * BYTES_PER_WEIGHT, f"a policy with net_arch {one_line(repr(net_arch))}")


def are_sizes(part: object) -> bool:
    """Whether something is a list of whole numbers of at least 1, which may be empty."""
    return isinstance(part, list | tuple) and all(map(_is_size, part))


def _is_size(size: Any) -> bool:
    return isinstance(size, Integral) and not isinstance(size, bool) and int(size) >= 1


def _check_extractor_settings(extractor: Any, keywords: Any) -> None:
    if not (isinstance(extractor, type) and issubclass(extractor, BaseFeaturesExtractor)):
        raise TypeError(
            "features_extractor_class must be a class derived from BaseFeaturesExtractor of "
            f"Stable-Baselines3, got {extractor!r}."
        )
    check_keywords("features_extractor_kwargs", keywords, extractor, given=["observation_space"])
    for owner, name in ((NatureCNN, "features_dim"), (CombinedExtractor, "cnn_output_dim")):
        if extractor is owner and keywords and name in keywords:
            check_number(f"{name} of features_extractor_kwargs", keywords[name], COUNT)


def _check_optimizer(optimizer: Any, keywords: Any) -> None:
    if not callable(optimizer) or (
        isinstance(optimizer, type) and not issubclass(optimizer, torch.optim.Optimizer)
    ):
        raise TypeError(
            f"optimizer_class must be an optimizer of torch, such as torch.optim.Adam, got {optimizer!r}."
        )
    if keywords is None:
        return
    check_dictionary("optimizer_kwargs", keywords)
    name = getattr(optimizer, "__name__", repr(optimizer))
    make: Any = optimizer
    try:
        make([nn.Parameter(torch.zeros(1, 1))], lr=1e-3, **keywords)
    # Which errors an optimizer raises is its own affair.
    except Exception as error:
        raise ValueError(
            f"optimizer_kwargs {one_line(repr(keywords))} are not what {name} takes: {one_line(error)}."
        ) from error
