"""Every setting of a training run: defaults, validation, presets and the TOML file that a run leaves behind."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch

from fastgan.models.dcgan import IMAGE_SIZES
from fastgan.models.layers import NORMS
from fastgan.train.errors import BadInput, require_extra
from fastgan.train.losses import LOSSES

DEVICES = ("auto", "cpu", "cuda")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
MODELS = ("dcgan",)
OPTIMIZERS = ("adam", "rmsprop")
PENALTIES = ("none", "wgan-gp", "wgan-lp", "dragan", "r1", "r2", "r1+r2")
PRESETS = Path(__file__).with_name("presets")

_CHOICES = {
    "model": MODELS,
    "loss": tuple(LOSSES),
    "norm": tuple(NORMS),
    "penalty": PENALTIES,
    "optimizer": OPTIMIZERS,
    "device": DEVICES,
    "dtype": tuple(DTYPES),
    "image_size": IMAGE_SIZES,
}
_COUNTS = ("latent_dim", "features", "batch_size", "steps", "d_steps", "sample_count", "keep_checkpoints")
_INTERVALS = ("penalty_every", "log_every", "sample_every", "checkpoint_every")


@dataclass(frozen=True)
class TrainConfig:
    """The settings of one run; the defaults are those of the PyTorch DCGAN example.

    Args:
        model: network pair; "dcgan".
        data: data set; see ``fastgan.train.data.load_images``.
        out: directory of the run; empty: nothing is written.
        image_size: side in pixels; 32, 64 or 128.
        latent_dim: length of the latent vector.
        features: width of the layer of each network that is nearest to the image.
        norm: of the discriminator; "batch", "none", or "layer" (over each sample).
        spectral_norm: divide the weights of the discriminator's convolutions by their largest singular value; needs
            norm "none".
        loss: "non-saturating", "minimax", "least-squares", "hinge", "wasserstein" or "relativistic"; that of
            Wasserstein needs a penalty, clip or spectral_norm.
        penalty: of the discriminator's gradient in the image; "none", "wgan-gp", "wgan-lp", "dragan", "r1", "r2" or
            "r1+r2"; not with norm "batch".
        penalty_weight: factor of the penalty, >= 0; half of it for R1 and R2.
        penalty_every: take the penalty on one in so many discriminator steps, as many times as large.
        clip: clamp the discriminator's parameters to [-clip, clip] after each of its steps; 0: leave them.
        batch_size: images a step, real and as many generated.
        steps: generator steps.
        d_steps: discriminator steps for each generator step, each on images of its own.
        optimizer: "adam" or "rmsprop".
        g_lr, d_lr: learning rates, > 0.
        beta1, beta2: Adam's momenta, in [0, 1); RMSprop has none.
        seed: seeds weights, latents and data order, in [0, 2^32).
        device: "auto" (CUDA where there is one), "cpu" or "cuda".
        dtype: "float32", or "bfloat16" or "float16" through autocast; float16 needs CUDA.
        convert: run both networks through ``fastgan.convert``.
        log_every, sample_every, checkpoint_every: in steps.
        sample_count: images in a sample grid.
        keep_checkpoints: how many of the newest checkpoints stay; that of step 0 always does.
    Raises: BadInput (a ValueError) naming the setting.
    """

    model: str = "dcgan"
    data: str = "mnist5k"
    out: str = ""
    image_size: int = 64
    latent_dim: int = 100
    features: int = 64
    norm: str = "batch"
    spectral_norm: bool = False
    loss: str = "non-saturating"
    penalty: str = "none"
    penalty_weight: float = 10.0
    penalty_every: int = 1
    clip: float = 0.0
    batch_size: int = 64
    steps: int = 2000
    d_steps: int = 1
    optimizer: str = "adam"
    g_lr: float = 2e-4
    d_lr: float = 2e-4
    beta1: float = 0.5
    beta2: float = 0.999
    seed: int = 0
    device: str = "auto"
    dtype: str = "float32"
    convert: bool = True
    log_every: int = 20
    sample_every: int = 200
    sample_count: int = 64
    checkpoint_every: int = 500
    keep_checkpoints: int = 2

    def __post_init__(self) -> None:
        for field in fields(self):
            object.__setattr__(self, field.name, _coerce(field.name, str(field.type), getattr(self, field.name)))
        for name, choices in _CHOICES.items():
            _require(
                getattr(self, name) in choices, name, f"one of {', '.join(map(str, choices))}", getattr(self, name)
            )
        for name in _COUNTS + _INTERVALS:
            _require(getattr(self, name) >= 1, name, "at least 1", getattr(self, name))
        for name in ("g_lr", "d_lr"):
            _require(0 < getattr(self, name) < float("inf"), name, "above 0", getattr(self, name))
        for name in ("penalty_weight", "clip"):
            _require(0 <= getattr(self, name) < float("inf"), name, "at least 0 and finite", getattr(self, name))
        for name in ("beta1", "beta2"):
            _require(0 <= getattr(self, name) < 1, name, "at least 0 and below 1", getattr(self, name))
        _require(0 <= self.seed < 2**32, "seed", "at least 0 and below 2^32", self.seed)
        self._check_discriminator()

    def _check_discriminator(self) -> None:
        penalised = self.penalty != "none"
        if penalised:
            _require(self.norm != "batch", "norm", "none or layer with a penalty, which is per sample", self.norm)
        if self.spectral_norm:
            _require(self.norm == "none", "norm", "none with spectral_norm, which any norm undoes", self.norm)
        if self.spectral_norm or penalised:
            taker = "spectral_norm" if self.spectral_norm else "a penalty"
            _require(self.clip == 0, "clip", f"0 with {taker}, which takes its place", self.clip)
        if self.loss == "wasserstein" and not (penalised or self.spectral_norm or self.clip):
            raise BadInput("loss wasserstein needs a penalty, spectral_norm or clip, without which it has no bound")

    @classmethod
    def preset(cls, name: str, **overrides: Any) -> TrainConfig:
        """The settings of a preset that comes with fastgan, some of them overridden."""
        known = sorted(path.stem for path in PRESETS.glob("*.toml"))
        if name not in known:
            raise BadInput(f"unknown preset {name!r}, the known ones are: {', '.join(known)}")
        return cls.read(PRESETS / f"{name}.toml", **overrides)

    @classmethod
    def read(cls, path: str | os.PathLike[str], **overrides: Any) -> TrainConfig:
        """Settings from a TOML file, some of them overridden; what the file leaves out keeps its default."""
        settings = _read_toml(Path(path))
        unknown = sorted(settings.keys() - {field.name for field in fields(cls)})
        if unknown:
            raise BadInput(f"{path} has settings that fastgan does not know: {', '.join(unknown)}")
        return cls(**{**settings, **overrides})

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write every setting to a TOML file; replaces the file in one move."""
        import tomli_w

        temporary = Path(f"{path}.tmp")
        temporary.write_text(tomli_w.dumps(asdict(self)))
        os.replace(temporary, path)

    def replace(self, **overrides: Any) -> TrainConfig:
        """A copy with some settings changed, validated again."""
        return replace(self, **overrides)

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


def _require(holds: bool, name: str, contract: str, got: object) -> None:
    if not holds:
        raise BadInput(f"{name} must be {contract}, got {got!r}")


def _coerce(name: str, kind: str, value: Any) -> Any:
    # TOML writes 1 for 1.0, and True is an int to Python
    if kind == "float" and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    _require(type(value).__name__ == kind, name, {"str": "a string", "int": "an integer"}.get(kind, f"a {kind}"), value)
    return value


def _read_toml(path: Path) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        require_extra("tomli")
        import tomli as tomllib
    try:
        return tomllib.loads(path.read_text())
    except FileNotFoundError:
        raise BadInput(f"there is no file {path}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} is not valid TOML: {error}") from None
