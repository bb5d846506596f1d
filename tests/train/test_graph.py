"""A step as one CUDA graph: what is refused, and, with a stand-in for CUDA on the CPU, what is copied where."""

import contextlib
import re

import pytest
import torch

from fastgan.train import BadInput, Trainer, graph

from .runs import losses_of

CUDA = torch.device("cuda")
REFUSED = [
    ({"dtype": "float16"}, "dtype must be float32 or bfloat16 with graph, got 'float16'"),
    ({"penalty": "r1", "norm": "none", "penalty_every": 4}, "penalty_every must be 1 with graph, got 4"),
    ({"instance_noise": 0.1, "instance_noise_steps": 9}, "instance_noise_steps must be 0 with graph, got 9"),
    ({"lr_schedule": "linear", "lr_decay_end": 9}, "lr_schedule must be constant with graph, got 'linear'"),
    ({"model": "progressive"}, "model must be one that does not grow with graph, got 'progressive'"),
]


@pytest.mark.parametrize(("settings", "sentence"), REFUSED, ids=str)
def test_refused(tiny, settings, sentence):
    config = tiny(graph=True, **settings)
    with pytest.raises(BadInput, match=re.escape(sentence)):
        graph.check_graph(config, CUDA, 1)
    graph.check_graph(tiny(graph=True), CUDA, 1)


def test_refused_on_a_cpu_and_in_several_processes(tiny):
    with pytest.raises(BadInput, match="device must be cuda with graph, got 'cpu'"):
        Trainer(tiny(graph=True))
    with pytest.raises(BadInput, match="graph is for one process, got 2"):
        graph.check_graph(tiny(graph=True), CUDA, 2)


class Recorder:
    """Records which step to take, and takes it again at each replay: as a CUDA graph, it reads the same buffers."""

    def __init__(self):
        self.generators, self.replays = [], 0

    def register_generator_state(self, generator):
        self.generators.append(generator)

    def replay(self):
        self.replays += 1
        self.step()


@pytest.fixture
def stand_in(monkeypatch):
    """Replaces CUDA's streams and graphs: what is recorded is not executed, as with CUDA."""
    recorders, running = [], []

    def record(recorder, stream):
        recorders.append(recorder)
        return contextlib.nullcontext()

    class Stream:
        def __init__(self, device=None):
            pass

        def wait_stream(self, other):
            running.append(other)

    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Recorder)
    monkeypatch.setattr(torch.cuda, "graph", record)
    return recorders


class Lazy(graph.GraphedStep):
    """With the stand-in, recording must not step: the recorded step is kept for the replays."""

    def _record(self, batches):
        step, players = self.players.step, self.players

        def keep(buffers):
            recorder_step = lambda: measured.update(step(buffers))  # noqa: E731
            kept.append(recorder_step)
            return measured

        measured, kept = {}, []
        players.step = keep
        super()._record(batches)
        players.step = step
        self._graph.step = kept[0]


@pytest.mark.parametrize("settings", [{}, {"d_steps": 2, "norm": "none", "penalty": "r1"}], ids=["plain", "penalised"])
def test_replayed_steps_are_the_steps(tiny, stand_in, settings):
    plain, graphed = (Trainer(tiny(steps=6, **settings)) for _ in range(2))
    graphed._play = Lazy(graphed.players)
    expected, got = plain.fit(progress=False), graphed.fit(progress=False)
    assert losses_of(got) == losses_of(expected)
    (recorder,) = stand_in
    assert recorder.replays == 3
    assert recorder.generators == graphed.players.device_generators()


@pytest.mark.gpu
@pytest.mark.parametrize("settings", [{}, {"d_steps": 2, "norm": "none", "penalty": "r1"}], ids=["plain", "penalised"])
def test_graphed_training_is_training(tiny, settings):
    runs = [
        Trainer(tiny(device="cuda", steps=8, graph=graphed, **settings)).fit(progress=False)
        for graphed in (False, True)
    ]
    plain, graphed = (torch.tensor(losses_of(run)) for run in runs)
    torch.testing.assert_close(graphed, plain, rtol=1e-3, atol=1e-4)
