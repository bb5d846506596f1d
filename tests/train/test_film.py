"""The film of a run: which grids it shows, for how long, and that it is whole or not there."""

import itertools

import pytest
import torch
from PIL import Image, ImageSequence

from fastgan.train import BadInput, film
from fastgan.train.film import sample_grids, spread, write_film
from fastgan.train.images import save_png

from .past_runs import add_grid, make_run


def frames_of(path):
    with Image.open(path) as gif:
        return [(frame.convert("L").copy(), frame.info["duration"]) for frame in ImageSequence.Iterator(gif)]


def test_grids_are_in_the_order_of_their_steps(tmp_path):
    run = make_run(tmp_path / "run", grids=[5, 1_000_000, 999_999])
    (run.samples / "step_000007.png.tmp").touch()
    (run.samples / "step_best.png").touch()
    assert [step for step, _ in sample_grids(run)] == [5, 999_999, 1_000_000]


@pytest.mark.parametrize("count, most", [(1, 3), (3, 3), (4, 3), (100, 60), (61, 60), (1000, 2)])
def test_spread_keeps_both_ends_and_even_gaps(count, most):
    kept = spread(range(count), most)
    assert len(kept) == min(count, most)
    assert kept[0] == 0 and kept[-1] == count - 1
    gaps = {after - before for before, after in itertools.pairwise(kept)}
    assert not gaps or max(gaps) - min(gaps) <= 1


def test_a_gif_shows_each_grid_and_holds_the_last(tmp_path):
    run = make_run(tmp_path / "run", grids=[0, 10, 20])
    path = write_film(run)
    assert path == run.root / "course.gif"
    frames = frames_of(path)
    assert [duration for _, duration in frames] == [400, 400, 2000]
    for (frame, _), (_, grid) in zip(frames, sample_grids(run), strict=True):
        assert frame.crop((0, 0, 20, 20)).tobytes() == Image.open(grid).tobytes()
    assert not list(run.root.glob("*.tmp"))


def test_a_long_run_gives_at_most_so_many_frames_in_six_seconds(tmp_path):
    run = make_run(tmp_path / "run", grids=range(70))
    frames = frames_of(write_film(run))
    assert len(frames) == 60
    assert sum(duration for _, duration in frames[:-1]) <= 6000
    assert len(frames_of(write_film(run, frames=2))) == 2


@pytest.mark.parametrize("channels", [1, 3])
def test_grids_are_scaled_down_and_brought_to_the_size_of_the_last(tmp_path, channels):
    run = make_run(tmp_path / "run", grids=[0], side=10, channels=channels)
    add_grid(run, 1, side=601, channels=channels)
    frames = frames_of(write_film(run, side=300))
    assert {frame.size for frame, _ in frames} == {(300, 300 + 18)}
    # the small one fills the frame
    assert frames[0][0].crop((0, 150, 300, 300)).getextrema()[0] < 100


def test_the_colours_of_a_gif_are_those_of_the_grids(tmp_path):
    run = make_run(tmp_path / "run")
    colours = torch.tensor([[255, 0, 0], [0, 160, 0], [20, 20, 255]], dtype=torch.uint8)
    for step, colour in enumerate(colours):
        save_png(colour.view(3, 1, 1).expand(3, 30, 30), run.samples / f"step_{step:06d}.png")
    with Image.open(write_film(run)) as gif:
        shown = [frame.convert("RGB").getpixel((15, 15)) for frame in ImageSequence.Iterator(gif)]
    assert (torch.tensor(shown) - colours.int()).abs().max() <= 8


def test_an_mp4_has_even_sides_and_holds_the_last_grid(tmp_path):
    import imageio_ffmpeg

    run = make_run(tmp_path / "run", grids=[0, 10, 20], side=33, channels=3)
    path = write_film(run, tmp_path / "course.mp4")
    about = next(imageio_ffmpeg.read_frames(str(path)))
    assert about["codec"] == "h264" and about["source_size"] == (34, 52)
    assert about["duration"] == pytest.approx(2 * 0.4 + 2.0, abs=0.1)
    assert not list(tmp_path.glob("*.tmp"))


def test_a_run_without_a_course_has_no_film(tmp_path):
    run = make_run(tmp_path / "run", grids=[0])
    assert write_film(run) is None
    assert not (run.root / "course.gif").exists()


def test_a_film_that_fails_leaves_the_one_before(tmp_path, monkeypatch):
    run = make_run(tmp_path / "run", grids=[0, 1])
    before = write_film(run).read_bytes()

    def fail(frames, path, milliseconds):
        path.write_text("half")
        raise OSError("disk full")

    monkeypatch.setattr(film, "_write_gif", fail)
    with pytest.raises(OSError, match="disk full"):
        write_film(run)
    assert (run.root / "course.gif").read_bytes() == before
    assert not list(run.root.glob("*.tmp"))


def test_what_cannot_serve_is_one_sentence(tmp_path, monkeypatch):
    run = make_run(tmp_path / "run", grids=[0, 1])
    with pytest.raises(BadInput, match=r"a film must be a \.gif or \.mp4 file, got .*film\.avi"):
        write_film(run, tmp_path / "film.avi")
    with pytest.raises(BadInput, match="frames must be at least 2, got 1"):
        write_film(run, frames=1)
    with pytest.raises(BadInput, match="side must be at least 1, got 0"):
        write_film(run, side=0)
    monkeypatch.setattr(film, "find_package", lambda name: False)
    with pytest.raises(BadInput, match=r'pip install "fastgan\[video\]"'):
        write_film(run, tmp_path / "film.mp4")
    assert not list(tmp_path.glob("film*"))
