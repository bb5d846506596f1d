"""The events that TensorBoard reads: scalars, grids, and a resumed run that goes on in the same directory."""

import io
import struct
from types import SimpleNamespace

import pytest
from PIL import Image
from tensorboardX.proto.event_pb2 import Event, SessionLog

from fastgan.train import BadInput, Trainer, tensorboard
from fastgan.train.tensorboard import TensorBoard

from .past_runs import add_grid, make_run


def events_of(directory):
    """Events of all files in the order in which TensorBoard reads them, as records: length, crc, data, crc."""
    events = []
    for path in sorted(directory.iterdir()):
        content = io.BytesIO(path.read_bytes())
        while head := content.read(12):
            events.append(Event.FromString(content.read(struct.unpack("<Q", head[:8])[0])))
            content.read(4)
    return events


def shown(directory):
    """What TensorBoard shows: (tag, step, value), without those that a later start says to hide."""
    points = []
    for event in events_of(directory):
        if event.session_log.status == SessionLog.START:
            points = [point for point in points if point[1] < event.step]
        points += [(value.tag, event.step, value) for value in event.summary.value]
    return points


def scalars(directory):
    return [(tag, step, round(value.simple_value, 4)) for tag, step, value in shown(directory) if tag != "samples"]


def play(callback, run, start, steps):
    """Call the callback as a trainer does that logs each step; one that is killed does not call ``ended``."""
    trainer = SimpleNamespace(run=run, step=start)
    callback.started(trainer)
    for trainer.step in steps:
        callback.logged(trainer, {"step": trainer.step, "d_loss": trainer.step / 10, "note": "kept out"})
    return trainer


def test_rows_become_scalars_and_grids_images(tmp_path):
    run = make_run(tmp_path / "run", grids=[2], channels=3)
    callback = TensorBoard()
    trainer = play(callback, run, 0, [1, 2])
    callback.sampled(trainer, run.samples / "step_000002.png")
    callback.ended(trainer, None)
    directory = run.root / "tensorboard"
    assert scalars(directory) == [("d_loss", 1, 0.1), ("d_loss", 2, 0.2)]
    [(step, image)] = [(step, value.image) for tag, step, value in shown(directory) if tag == "samples"]
    pixels = Image.open(io.BytesIO(image.encoded_image_string))
    assert step == 2 and pixels.tobytes() == Image.open(run.samples / "step_000002.png").tobytes()


def test_grey_grids_become_images(tmp_path):
    run = make_run(tmp_path / "run")
    add_grid(run, 0, side=30)
    callback = TensorBoard(tmp_path / "elsewhere")
    trainer = play(callback, run, 0, [])
    callback.sampled(trainer, run.samples / "step_000000.png")
    callback.ended(trainer, None)
    [(_, _, value)] = shown(tmp_path / "elsewhere")
    assert (value.image.width, value.image.height) == (30, 30)
    assert not (run.root / "tensorboard").exists()


@pytest.mark.parametrize("checkpoint", [0, 2])
def test_a_resumed_run_hides_what_came_after_its_checkpoint(tmp_path, checkpoint):
    run = make_run(tmp_path / "run")
    killed = TensorBoard()
    play(killed, run, 0, [1, 2, 3, 4])
    # its writer is closed at exit, which a test does not wait for
    killed._writer.close()
    resumed = TensorBoard()
    trainer = play(resumed, run, checkpoint, range(checkpoint + 1, 6))
    resumed.ended(trainer, None)
    assert scalars(run.root / "tensorboard") == [("d_loss", step, step / 10) for step in range(1, 6)]


def test_a_trainer_calls_it(tiny, tmp_path):
    trainer = Trainer(tiny(out=str(tmp_path / "run")), callbacks=[TensorBoard()])
    result = trainer.fit(progress=False)
    directory = trainer.run.root / "tensorboard"
    losses = [(step, value.simple_value) for tag, step, value in shown(directory) if tag == "d_loss"]
    assert losses == [(row["step"], pytest.approx(row["d_loss"])) for row in result.metrics]
    assert [step for tag, step, _ in shown(directory) if tag == "samples"] == [0, 2, 4]


def test_one_callback_serves_two_fits(tmp_path):
    run = make_run(tmp_path / "run")
    callback = TensorBoard()
    callback.ended(play(callback, run, 0, [1]), None)
    callback.ended(play(callback, run, 1, [2]), None)
    assert scalars(run.root / "tensorboard") == [("d_loss", 1, 0.1), ("d_loss", 2, 0.2)]


def test_what_cannot_serve_is_one_sentence(tmp_path, monkeypatch):
    with pytest.raises(BadInput, match="TensorBoard needs a directory"):
        TensorBoard().started(SimpleNamespace(run=None, step=0))
    monkeypatch.setattr(tensorboard, "find_package", lambda name: False)
    with pytest.raises(BadInput, match=r'pip install "fastgan\[tensorboard\]"'):
        TensorBoard()
