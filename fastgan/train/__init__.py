"""Training: ``Trainer(TrainConfig.preset("dcgan", out="runs/digits")).fit()``."""

from fastgan.train import losses
from fastgan.train.callbacks import Callback
from fastgan.train.config import TrainConfig
from fastgan.train.errors import BadInput, TrainingFailed
from fastgan.train.trainer import FitResult, Trainer

__all__ = ["BadInput", "Callback", "FitResult", "TrainConfig", "Trainer", "TrainingFailed", "losses"]
