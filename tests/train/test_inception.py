"""The standard FID up to its weights, which cannot be had here: what is asked of torch-fidelity, and each refusal."""

import importlib.util
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

import pytest
import torch

from fastgan.train import BadInput
from fastgan.train.inception import InceptionScores, inception_scores

WRONG = "does not hold the weights of FID's Inception, which are in weights-inception-2015-12-05-6726825d.pth"


@pytest.fixture
def fidelity(monkeypatch):
    """A stand-in for torch-fidelity; keeps what it was called with."""
    for name in ("torch_fidelity", "torchvision"):
        module = ModuleType(name)
        module.__spec__ = ModuleSpec(name, None)
        monkeypatch.setitem(sys.modules, name, module)

    def calculate_metrics(**settings):
        sys.modules["torch_fidelity"].settings = settings
        return {"frechet_inception_distance": 3.5, "inception_score_mean": 2.0, "inception_score_std": 0.25}

    sys.modules["torch_fidelity"].calculate_metrics = calculate_metrics
    return sys.modules["torch_fidelity"]


@pytest.fixture
def weights(tmp_path):
    def save(content, name="inception.pth"):
        torch.save(content, tmp_path / name)
        return tmp_path / name

    return save


def images(count=12, channels=1):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, channels, 4, 4), dtype=torch.uint8, generator=generator)


def test_it_asks_torch_fidelity_for_both_with_the_weights_on_disk(fidelity, weights):
    path = weights({"fc.weight": torch.zeros(1008, 2048)})
    real, fake = images(), images(6, 3)
    assert inception_scores(real, fake, path, seed=4) == InceptionScores(3.5, (2.0, 0.25))
    settings = fidelity.settings
    assert settings["feature_extractor_weights_path"] == str(path)
    assert settings["fid"] and settings["isc"] and settings["isc_splits"] == 6 and settings["rng_seed"] == 4
    assert not (settings["cuda"] or settings["cache"] or settings["verbose"])
    # the first is scored, the second is what it is compared with
    for given, wanted in ((settings["input1"], fake), (settings["input2"], real.expand(-1, 3, -1, -1))):
        assert torch.equal(torch.stack([given[index] for index in range(len(given))]), wanted)


def test_it_runs_on_the_gpu_that_is_asked_for(fidelity, weights):
    inception_scores(images(), images(), weights({"fc.weight": torch.zeros(1008, 2048)}), device="cuda:0")
    assert fidelity.settings["cuda"] is True


class Malicious:
    def __reduce__(self):
        return pytest.fail, ("code in the file was run",)


REFUSED = [
    ({"fc.weight": torch.zeros(1000, 2048)}, WRONG),
    ({"fc.bias": torch.zeros(1008)}, WRONG),
    (torch.zeros(1008, 2048), WRONG),
    ({"fc.weight": None}, WRONG),
    ({"fc.weight": Malicious()}, "inception.pth cannot be read"),
]


@pytest.mark.parametrize(("content", "message"), REFUSED, ids=["torchvision", "others", "tensor", "none", "malicious"])
def test_it_refuses_other_weights(fidelity, weights, content, message):
    with pytest.raises(BadInput, match=message) as refusal:
        inception_scores(images(), images(), weights(content))
    assert len(str(refusal.value).splitlines()) == 1
    assert not hasattr(fidelity, "settings")


def test_it_refuses_files_that_hold_no_weights(fidelity, tmp_path):
    with pytest.raises(BadInput, match=r"there is no file .*absent\.pth, FID needs weights-inception-2015-12-05"):
        inception_scores(images(), images(), tmp_path / "absent.pth")
    (tmp_path / "page.pth").write_text("<html>Not Found</html>")
    with pytest.raises(BadInput, match=r"page\.pth cannot be read"):
        inception_scores(images(), images(), tmp_path / "page.pth")


@pytest.mark.parametrize("missing", ["torch_fidelity", "torchvision"])
def test_it_names_the_extra(fidelity, weights, monkeypatch, missing):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == missing else find(name, *rest))
    with pytest.raises(BadInput, match=r'FID needs torch-fidelity and torchvision.*`pip install "fastgan\[fid\]"`'):
        inception_scores(images(), images(), weights({"fc.weight": torch.zeros(1008, 2048)}))


def test_it_refuses_what_are_no_images(fidelity, weights):
    path = weights({"fc.weight": torch.zeros(1008, 2048)})
    for real, fake in ((images().float(), images()), (images(), images(4, 2))):
        with pytest.raises(BadInput, match="images must be uint8"):
            inception_scores(real, fake, path)
