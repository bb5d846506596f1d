"""What settings may be, alone and together; each refusal is one sentence naming the setting."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import torch

from fastgan.models import MODELS
from fastgan.models.layers import NORMS
from fastgan.nn.gradient_penalty import KINDS
from fastgan.train.augment import POLICIES
from fastgan.train.errors import BadInput
from fastgan.train.losses import LOSSES

if TYPE_CHECKING:
    from fastgan.train.config import TrainConfig

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# below it nearly all latents would have to be drawn again and again
LEAST_TRUNCATION = 0.01
_CHOICES = {
    "loss": tuple(LOSSES),
    "norm": tuple(NORMS),
    "penalty": ("none", *KINDS, "r1+r2"),
    "optimizer": ("adam", "rmsprop"),
    "lr_schedule": ("constant", "linear", "cosine"),
    "device": ("auto", "cpu", "cuda"),
    "dtype": tuple(DTYPES),
}
_COUNTS = ("latent_dim", "features", "batch_size", "steps", "d_steps", "sample_count", "keep_checkpoints")
_INTERVALS = ("penalty_every", "log_every", "sample_every", "checkpoint_every")
_FROM_ZERO = ("crop", "instance_noise_steps", "lr_decay_start", "lr_decay_end", "score_every")
_FACTORS = ("penalty_weight", "clip", "clip_grad", "instance_noise", "truncation")


def check_settings(config: TrainConfig) -> None:
    """Raise BadInput for the first setting that cannot be used, by itself or with the others."""
    # models may be added to those that come with fastgan
    for name, choices in {"model": tuple(MODELS), **_CHOICES}.items():
        _check(config, name, getattr(config, name) in choices, f"one of {', '.join(choices)}")
    for name in _COUNTS + _INTERVALS:
        _check(config, name, getattr(config, name) >= 1, "at least 1")
    for name in _FROM_ZERO:
        _check(config, name, getattr(config, name) >= 0, "at least 0")
    for name in ("g_lr", "d_lr"):
        _check(config, name, 0 < getattr(config, name) < float("inf"), "above 0")
    for name in _FACTORS:
        _check(config, name, 0 <= getattr(config, name) < float("inf"), "at least 0 and finite")
    for name in ("beta1", "beta2", "ema"):
        _check(config, name, 0 <= getattr(config, name) < 1, "at least 0 and below 1")
    drawn = config.truncation == 0 or config.truncation >= LEAST_TRUNCATION
    _check(config, "truncation", drawn, f"0 or at least {LEAST_TRUNCATION}")
    _check(config, "label_smoothing", 0 <= config.label_smoothing < 0.5, "at least 0 and below 0.5")
    _check(config, "score_count", config.score_count >= 4, "at least 4")
    _check(config, "seed", 0 <= config.seed < 2**32, "at least 0 and below 2^32")
    _check(config, "crop", config.crop < config.image_size // 2, "below half of image_size")
    _check_discriminator(config)
    _check_course(config)
    _check_model(config)


def coerce(name: str, kind: str, value: Any) -> Any:
    """The value of a setting in its type; TOML writes 1 for 1.0. Raises BadInput for another type."""
    if kind == "float" and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    kind = kind.partition("[")[0]
    if type(value).__name__ != kind:
        wanted = {"str": "a string", "int": "an integer", "dict": "a table"}.get(kind, f"a {kind}")
        raise BadInput(f"{name} must be {wanted}, got {value!r}")
    return value


def _check_discriminator(config: TrainConfig) -> None:
    penalised = config.penalty != "none"
    if penalised:
        _check(config, "norm", config.norm != "batch", "none or layer with a penalty, which is per sample")
    if config.spectral_norm:
        _check(config, "norm", config.norm == "none", "none with spectral_norm, which any norm undoes")
    if config.spectral_norm or penalised:
        taker = "spectral_norm" if config.spectral_norm else "a penalty"
        _check(config, "clip", config.clip == 0, f"0 with {taker}, which takes its place")
    if config.loss == "wasserstein" and not (penalised or config.spectral_norm or config.clip):
        raise BadInput("loss wasserstein needs a penalty, spectral_norm or clip, without which it has no bound")
    if config.loss not in ("non-saturating", "minimax"):
        _check(config, "label_smoothing", config.label_smoothing == 0, f"0 with loss {config.loss}")


def _check_course(config: TrainConfig) -> None:
    if config.lr_schedule != "constant":
        later = config.lr_decay_end > config.lr_decay_start
        _check(config, "lr_decay_end", later, f"above lr_decay_start ({config.lr_decay_start})")
    known = all(name.strip() in POLICIES for name in config.augment.split(",")) or not config.augment
    _check(config, "augment", known, f"a comma-separated list of {', '.join(POLICIES)}")
    _check(config, "data", bool(config.data), "the name of a data set")


def _check_model(config: TrainConfig) -> None:
    model = MODELS[config.model]
    defaults = {name: option.default for name, option in inspect.signature(model).parameters.items() if name != "setup"}
    for name, value in config.options.items():
        if name not in defaults:
            has = f"its options are: {', '.join(defaults)}" if defaults else "it has none"
            raise BadInput(f"model {config.model} has no option {name!r}, {has}")
        kind = type(defaults[name]).__name__
        if kind in ("str", "bool", "int", "float"):
            coerce(f"options.{name}", kind, value)
    config.recipe()
    if model.needs_second_set:
        _check(config, "data_b", bool(config.data_b), f"a data set for model {config.model}, which needs two")
    else:
        _check(config, "data_b", not config.data_b, f"empty for model {config.model}, which takes one data set")


def _check(config: TrainConfig, name: str, holds: bool, contract: str) -> None:
    if not holds:
        raise BadInput(f"{name} must be {contract}, got {getattr(config, name)!r}")
