"""How the backend of a call is chosen, and what is said when it cannot serve."""

import logging
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

import fastgan
from fastgan import BackendUnavailable, backends
from fastgan.backends import native, reference
from fastgan.nn.functional import bias_act

X = torch.ones(1, 2)
REASON = "the moon is full"


@pytest.fixture
def native_cannot_serve(monkeypatch):
    """Let the native backend refuse every call, and forget what was decided before and after."""

    def forget():
        backends.unavailable.cache_clear()
        backends.automatic.cache_clear()

    monkeypatch.setattr(backends, "_asked", "auto")
    monkeypatch.setattr(native, "unavailable", lambda *_: REASON)
    forget()
    yield
    monkeypatch.undo()
    forget()


def _run(code, **environment):
    kept = {name: value for name, value in os.environ.items() if name not in ("FASTGAN_BACKEND", "TRITON_INTERPRET")}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=kept | environment, capture_output=True, text=True, timeout=120, check=False)


def test_use_backend_chooses_for_the_block_and_restores():
    before = backends._asked
    with fastgan.use_backend("reference"):
        assert backends.choose("bias_act", X) == "reference"
        with fastgan.use_backend("auto"):
            assert backends._asked == "auto"
        assert backends._asked == "reference"
    assert backends._asked == before


def test_use_backend_restores_after_an_error():
    before = backends._asked
    with pytest.raises(KeyError), fastgan.use_backend("reference"):
        raise KeyError
    assert backends._asked == before


def test_an_unknown_name_is_rejected():
    message = "use_backend: name must be one of auto, reference, native, triton, got 'cuda'"
    with pytest.raises(ValueError, match=f"^{message}$"), fastgan.use_backend("cuda"):
        pass


def test_a_backend_asked_for_by_name_that_cannot_serve_raises_with_the_reason(native_cannot_serve):
    message = f"^bias_act: the native backend was asked for but cannot serve: {REASON}$"
    with fastgan.use_backend("native"), pytest.raises(BackendUnavailable, match=message):
        bias_act(X)


def test_backend_unavailable_is_a_runtime_error():
    assert issubclass(BackendUnavailable, RuntimeError) and fastgan.BackendUnavailable is BackendUnavailable


def test_an_automatic_fallback_logs_the_reason_once(native_cannot_serve, caplog):
    with caplog.at_level(logging.WARNING, logger="fastgan"):
        for _ in range(3):
            bias_act(X)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    message = caplog.records[0].getMessage()
    assert all(word in message for word in ("bias_act", "native", "torch.float32", "cpu", REASON)), message


def test_an_automatic_choice_that_serves_logs_nothing(native_cannot_serve, caplog, monkeypatch):
    monkeypatch.setattr(native, "unavailable", lambda *_: "")
    assert backends.choose("bias_act", X) == "native"
    assert not caplog.records


def test_the_chosen_backend_is_the_one_that_runs(native_cannot_serve, monkeypatch):
    called = []
    monkeypatch.setattr(backends.load("reference", "bias_act"), "bias_act", lambda x, *_: called.append(1) or x.clone())
    bias_act(X)
    assert called == [1]


def test_the_reference_serves_everything():
    assert reference.unavailable("bias_act", "xpu", torch.float8_e5m2) == ""


def test_the_backend_holds_in_other_threads():
    with fastgan.use_backend("reference"), ThreadPoolExecutor(1) as pool:
        assert pool.submit(backends.choose, "bias_act", X).result() == "reference"


@pytest.mark.parametrize("name", ["reference", "auto"])
def test_the_environment_chooses_the_backend(name):
    done = _run("from fastgan import backends; print(backends._asked)", FASTGAN_BACKEND=name)
    assert done.stdout == f"{name}\n", done.stderr


def test_an_unknown_name_in_the_environment_is_rejected():
    done = _run("import fastgan", FASTGAN_BACKEND="cuda")
    message = "ValueError: FASTGAN_BACKEND must be one of auto, reference, native, triton, got 'cuda'"
    assert done.returncode and done.stderr.splitlines()[-1] == message


def test_triton_on_the_cpu_says_how_to_interpret():
    code = "import torch; from fastgan.nn.functional import bias_act; bias_act(torch.ones(1, 2))"
    done = _run(code, FASTGAN_BACKEND="triton")
    assert done.stderr.splitlines()[-1] == (
        "fastgan.backends.BackendUnavailable: bias_act: the triton backend was asked for but cannot serve: "
        "on cpu tensors Triton kernels run only interpreted: set TRITON_INTERPRET=1 before Python starts"
    )


def test_bfloat16_in_the_interpreter_is_refused():
    code = "import torch; from fastgan.nn.functional import bias_act; bias_act(torch.ones(1, 2, dtype=torch.bfloat16))"
    done = _run(code, FASTGAN_BACKEND="triton", TRITON_INTERPRET="1")
    assert done.stderr.splitlines()[-1].endswith("cannot serve: Triton's interpreter is wrong for bfloat16")
