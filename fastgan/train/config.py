"""Every setting of a training run: defaults, presets and the TOML file that a run leaves behind."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch

from fastgan.models import MODELS, Recipe, Setup
from fastgan.train.checks import check_settings, coerce
from fastgan.train.errors import BadInput, require_extra
from fastgan.train.files import write_text

PRESETS = Path(__file__).with_name("presets")


@dataclass(frozen=True)
class TrainConfig:
    """The settings of one run; the defaults are those of the PyTorch DCGAN example.

    Args:
        name: of the run, for the record; a preset's is its own.
        model: one of ``fastgan.models.MODELS``.
        options: what the model takes beside the settings below, by name.
        data: data set; see ``fastgan.train.data.load_images``.
        data_b: second data set, for models that translate between two.
        out: directory of the run; empty: nothing is written.
        image_size: side in pixels; which ones depends on the model.
        latent_dim: length of the latent vector.
        features: width of the layer of each network that is nearest to the image.
        norm: of the discriminator; "batch", "none", or "layer" (over each sample).
        spectral_norm: divide the weights of the discriminator's convolutions by their largest singular value; needs
            norm "none".
        loss: "non-saturating", "minimax", "least-squares", "hinge", "wasserstein" or "relativistic"; that of
            Wasserstein needs a penalty, clip or spectral_norm.
        label_smoothing: real images count as 1 - label_smoothing, in [0, 0.5); for non-saturating and minimax.
        penalty: of the discriminator's gradient in the image; "none", "wgan-gp", "wgan-lp", "dragan", "r1", "r2" or
            "r1+r2"; not with norm "batch".
        penalty_weight: factor of the penalty, >= 0; half of it for R1 and R2.
        penalty_every: take the penalty on one in so many discriminator steps, as many times as large.
        clip: clamp the discriminator's parameters to [-clip, clip] after each of its steps; 0: leave them.
        clip_grad: largest norm of each network's gradient, scaled down to it; 0: leave it.
        augment: what the discriminator's images go through, real and generated: any of "color,translation,cutout".
        flip: mirror real images at random.
        crop: shift real images by up to so many pixels at random.
        instance_noise: standard deviation of the noise on the discriminator's images; images are in [-1, 1].
        instance_noise_steps: the noise falls to 0 linearly over so many steps; 0: it stays.
        batch_size: images a step, real and as many generated, over all processes.
        steps: generator steps.
        d_steps: discriminator steps for each generator step, each on images of its own.
        optimizer: "adam" or "rmsprop".
        g_lr, d_lr: learning rates, > 0.
        lr_schedule: "constant", "linear" or "cosine"; the last two fall to 0 between the next two settings.
        lr_decay_start, lr_decay_end: in steps from the beginning of the run.
        beta1, beta2: Adam's momenta, in [0, 1); RMSprop has none.
        ema: decay a step of the moving average of the generator that samples are drawn from, in [0, 1); 0: none.
        seed: seeds weights, latents and data order, in [0, 2^32).
        device: "auto" (CUDA where there is one), "cpu" or "cuda".
        dtype: "float32", or "bfloat16" or "float16" through autocast; float16 needs CUDA.
        convert: run both networks through ``fastgan.convert``.
        graph: record the whole step of both players as a CUDA graph and replay it; CUDA only, one process.
        log_every, sample_every, checkpoint_every: in steps.
        sample_count: images in a sample grid.
        truncation: latents of sample grids beyond it are drawn again; 0: none are.
        score_every: take the KID every so many steps and keep the checkpoint with the best; 0: never.
        score_count: real and as many generated images for it.
        tensorboard: write TensorBoard events, too.
        keep_checkpoints: how many of the newest checkpoints stay; that of step 0 and the best always do.
    Raises: BadInput (a ValueError) naming the setting.
    """

    name: str = ""
    model: str = "dcgan"
    options: dict[str, Any] = field(default_factory=dict)
    data: str = "mnist5k"
    data_b: str = ""
    out: str = ""
    image_size: int = 64
    latent_dim: int = 100
    features: int = 64
    norm: str = "batch"
    spectral_norm: bool = False
    loss: str = "non-saturating"
    label_smoothing: float = 0.0
    penalty: str = "none"
    penalty_weight: float = 10.0
    penalty_every: int = 1
    clip: float = 0.0
    clip_grad: float = 0.0
    augment: str = ""
    flip: bool = False
    crop: int = 0
    instance_noise: float = 0.0
    instance_noise_steps: int = 0
    batch_size: int = 64
    steps: int = 2000
    d_steps: int = 1
    optimizer: str = "adam"
    g_lr: float = 2e-4
    d_lr: float = 2e-4
    lr_schedule: str = "constant"
    lr_decay_start: int = 0
    lr_decay_end: int = 0
    beta1: float = 0.5
    beta2: float = 0.999
    ema: float = 0.0
    seed: int = 0
    device: str = "auto"
    dtype: str = "float32"
    convert: bool = True
    graph: bool = False
    log_every: int = 20
    sample_every: int = 200
    sample_count: int = 64
    truncation: float = 0.0
    checkpoint_every: int = 500
    score_every: int = 0
    score_count: int = 500
    tensorboard: bool = False
    keep_checkpoints: int = 2

    def __post_init__(self) -> None:
        for setting in fields(self):
            value = coerce(setting.name, str(setting.type), getattr(self, setting.name))
            object.__setattr__(self, setting.name, value)
        check_settings(self)

    @classmethod
    def preset_names(cls) -> list[str]:
        """The presets that come with fastgan."""
        return sorted(path.stem for path in PRESETS.glob("*.toml"))

    @classmethod
    def preset(cls, name: str, **overrides: Any) -> TrainConfig:
        """The settings of a preset that comes with fastgan, some of them overridden, ``options`` one by one."""
        known = cls.preset_names()
        if name not in known:
            raise BadInput(f"unknown preset {name!r}, the known ones are: {', '.join(known)}")
        return cls.read(PRESETS / f"{name}.toml", **{"name": name, **overrides})

    @classmethod
    def read(cls, path: str | os.PathLike[str], **overrides: Any) -> TrainConfig:
        """Settings from a TOML file, some of them overridden; what the file leaves out keeps its default."""
        settings = read_toml(Path(path))
        unknown = sorted(settings.keys() - {setting.name for setting in fields(cls)})
        if unknown:
            raise BadInput(f"{path} has settings that fastgan does not know: {', '.join(unknown)}")
        return cls(**merge(settings, overrides))

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write every setting to a TOML file; replaces the file in one move. Raises BadInput when it cannot."""
        write_text(path, self.to_toml())

    def to_toml(self) -> str:
        """Every setting, as ``read`` takes it."""
        import tomli_w

        # a table goes behind plain values
        return tomli_w.dumps(dict(sorted(asdict(self).items(), key=lambda item: item[0] == "options")))

    def replace(self, **overrides: Any) -> TrainConfig:
        """A copy with some settings changed, validated again."""
        return replace(self, **overrides)

    def recipe(self, channels: int = 1, classes: int = 1) -> Recipe:
        """The model's recipe for data of so many colour channels and classes. Raises BadInput naming the setting."""
        size: dict[str, Any] = {name: getattr(self, name) for name in ("image_size", "latent_dim", "features")}
        setup = Setup(channels=channels, classes=classes, norm=self.norm, spectral_norm=self.spectral_norm, **size)
        try:
            return MODELS[self.model](setup, **self.options)
        except ValueError as error:
            raise BadInput(str(error)) from None

    def resolve_device(self) -> torch.device:
        """The device to train on. Raises BadInput when it is not there or cannot compute in ``dtype``."""
        available = torch.cuda.is_available()
        if self.device == "cuda" and not available:
            raise BadInput("device cuda was asked for, but torch finds no CUDA device here")
        device = torch.device("cpu" if self.device == "cpu" or not available else "cuda")
        if self.dtype == "float16" and device.type == "cpu":
            raise BadInput("dtype float16 needs a CUDA device, on a CPU use float32 or bfloat16")
        if self.dtype == "bfloat16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
            raise BadInput(f"dtype bfloat16 is not supported by {torch.cuda.get_device_name()}, use float16 or float32")
        return device


def merge(settings: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    """Settings with some overridden; those of ``options`` one by one."""
    merged = {**settings, **overrides}
    if "options" in settings and isinstance(overrides.get("options"), dict):
        merged["options"] = {**settings["options"], **overrides["options"]}
    return merged


def parse_settings(assignments: list[str]) -> dict[str, Any]:
    """Settings from ``name=value`` texts; the value as in TOML, or a plain word; ``options.name`` for options."""
    found: dict[str, Any] = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals or not name:
            raise BadInput(f"--set must be NAME=VALUE, got {assignment!r}")
        table, dot, option = name.partition(".")
        if dot and (table != "options" or not option):
            raise BadInput(f"--set knows options.NAME=VALUE, got {assignment!r}")
        if not dot and name not in {setting.name for setting in fields(TrainConfig)} - {"options"}:
            raise BadInput(f"--set knows no setting {name!r}, `fastgan presets NAME` prints them all")
        target = found.setdefault("options", {}) if dot else found
        target[option or name] = _parse_value(text)
    return found


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file. Raises BadInput when there is none or it is damaged."""
    try:
        return _toml().loads(path.read_text())
    except FileNotFoundError:
        raise BadInput(f"there is no file {path}") from None
    except (_toml().TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} is not valid TOML: {error}") from None


def _parse_value(text: str) -> Any:
    try:
        return _toml().loads(f"value = {text}")["value"]
    except _toml().TOMLDecodeError:
        return text


def _toml() -> Any:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        require_extra("tomli")
        import tomli as tomllib
    return tomllib
