"""The report of a run: what is in it, that it asks for nothing, and that it is whole or not there."""

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from fastgan.train import BadInput, Trainer, curves, report
from fastgan.train.curves import Chart, draw, metric_charts, thin
from fastgan.train.film import write_film
from fastgan.train.report import write_report

from .past_runs import make_run

COMMAND = "fastgan train --preset dcgan --out 'runs/<b>a & b</b>'"
ROWS = [{"step": step, "d_loss": 1 / step, "g_loss": 2.0, "images_per_second": 900.0} for step in (10, 20, 30)]
SCORES = [
    {"name": "floor", "kid": [0.0003, 0.0012], "precision": 0.8},
    {"name": "before", "step": 0, "kid": [0.35, 0.002], "precision": 0.0},
    {"name": "after", "step": 30, "kid": [0.021, 0.0011]},
]


class Page(HTMLParser):
    """Elements with their attributes, and the text, of a page."""

    def __init__(self, path):
        super().__init__()
        self.elements, self.words = [], []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.text = re.sub(r"\s+", " ", " ".join(self.words))

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture
def full(tmp_path):
    """A run that has left everything that a report can show."""
    run = make_run(tmp_path / "run", ROWS, grids=range(0, 31, 2), data="digits", beta2=0.99999)
    run.write_json(
        "run.json",
        {"command": COMMAND, "torch": "2.13.0", "images": 5000, "parameters": {"generator": 1234567}},
    )
    run.write_json(
        "scores.json",
        {"network": "EfficientNet-lite0", "n": 2000, "data": "digits", "seed": 0, "rows": SCORES},
    )
    (run.root / "scores.jsonl").write_text('{"step": 0, "kid": 0.35}\n{"step": 30, "kid": [0.021, 0.001]}\n')
    write_film(run)
    return run


def test_a_report_holds_what_the_run_left(full):
    path = write_report(full)
    assert path == full.root / "report.html"
    page = Page(path)
    assert "dcgan on digits" in page.text and "step 30 of 100" in page.text
    assert COMMAND in page.text and "<b>a" not in page.source
    assert "1,234,567" in page.text and "5,000" in page.text
    assert "beta2 0.99999" in page.text and "spectral_norm false" in page.text
    assert [attributes["aria-labelledby"] for attributes in page.all("svg")] == [
        "title-losses",
        "title-speed",
        "title-kid",
    ]
    assert "discriminator 0.03333, generator 2 at step 30" in page.text
    assert "real images (floor)" in page.text


def test_pictures_are_the_newest_the_course_and_the_film(full):
    images = Page(write_report(full)).all("img")
    newest, film, *course = (base64.b64decode(image["src"].partition(",")[2]) for image in images)
    assert newest == (full.samples / "step_000030.png").read_bytes() == course[-1]
    assert film == (full.root / "course.gif").read_bytes()
    assert len(course) == 12 and course[0] == (full.samples / "step_000000.png").read_bytes()
    assert all(image["alt"] for image in images)


def test_a_large_film_stays_beside_the_report(full, monkeypatch):
    monkeypatch.setattr(report, "_FILM", 100)
    page = Page(write_report(full))
    assert len(page.all("img")) == 13
    assert "course.gif, beside it" in page.text


def test_large_grids_are_small_in_the_course_only(tmp_path):
    run = make_run(tmp_path / "run", grids=[0, 1], side=700)
    images = Page(write_report(run)).all("img")
    sizes = [Image.open(io.BytesIO(base64.b64decode(image["src"].partition(",")[2]))).size for image in images]
    assert sizes == [(700, 700), (320, 320), (320, 320)]


def test_scores_stand_beside_their_floor(full):
    text = Page(write_report(full)).text
    assert "In the features of EfficientNet-lite0" in text and "2,000 images of digits, seed 0." in text
    assert "images KID precision real against real (floor) 0.00030 ± 0.00120 0.8" in text
    assert "before training 0.35000 ± 0.00200 0 after training, step 30 0.02100 ± 0.00110 -" in text


def test_nothing_is_asked_of_a_network(full):
    page = Page(write_report(full))
    assert not re.search(r"https?:|@import|<script|<link|url\((?!#)", page.source)
    links = [
        value for _, attributes in page.elements for name, value in attributes.items() if name.endswith(("src", "href"))
    ]
    assert links and all(link.startswith(("data:image/", "#")) for link in links)
    policy = next(meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'unsafe-inline'")


def test_names_in_the_page_are_unique_and_lead_somewhere(full):
    page = Page(write_report(full))
    names = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(names) == len(set(names))
    used = set(re.findall(r'(?:url\(#|href="#|aria-labelledby=")([^)"]+)', page.source))
    assert used and used <= set(names)


def test_the_same_run_gives_the_same_file(full):
    assert write_report(full).read_bytes() == write_report(full).read_bytes()


def test_a_run_that_has_only_begun_says_what_is_missing(tmp_path):
    run = make_run(tmp_path / "run")
    text = Page(write_report(run)).text
    for sentence in ("There are no samples yet.", "Nothing has been measured yet.", "The command is not known"):
        assert sentence in text
    assert "Scores" not in text and "Course of training" not in text and "step 0 of 100" in text


def test_a_last_line_that_was_cut_off_is_left_out(tmp_path):
    run = make_run(tmp_path / "run", ROWS)
    with run.metrics.open("a") as file:
        file.write('{"step": 40, "d_lo')
    assert "generator 2 at step 30" in Page(write_report(run)).text


@pytest.mark.parametrize("name", ["metrics.jsonl", "scores.jsonl", "run.json", "scores.json"])
def test_a_broken_file_is_named(tmp_path, name):
    run = make_run(tmp_path / "run", ROWS[:1])
    with (run.root / name).open("a") as file:
        file.write('{"step": 1\n')
    with pytest.raises(BadInput, match=name):
        write_report(run)


def test_a_directory_without_a_run_is_one_sentence(tmp_path):
    with pytest.raises(BadInput, match=r"there is no file .*config\.toml"):
        write_report(report.RunDir(tmp_path))
    assert not list(tmp_path.iterdir())


def test_a_report_that_fails_leaves_the_one_before(full, monkeypatch):
    before = write_report(full).read_bytes()

    def fail(chart):
        raise RuntimeError("no ink")

    monkeypatch.setattr(curves, "draw", fail)
    with pytest.raises(RuntimeError, match="no ink"):
        write_report(full)
    assert (full.root / "report.html").read_bytes() == before
    assert not list(full.root.glob("*.tmp"))


def test_warnings_stand_before_all_else(tmp_path):
    rows = [{"step": 1}, {"step": 20, "warning": "samples look <alike>"}, {"step": 3000, "warning": "always right"}]
    text = Page(write_report(make_run(tmp_path / "run", rows))).text
    assert "Step 20: samples look <alike>. Step 3,000: always right." in text
    assert text.index("Take note") < text.index("Samples")


def test_what_a_model_measures_beside_the_game_has_a_chart():
    rows = [
        {"step": 1, "cycle_loss": 3, "d_loss": float("nan"), "g_loss": 1.0, "note": "kept out", "warning": "kept out"}
    ]
    charts = metric_charts(rows)
    assert [(chart.title, chart.curves) for chart in charts] == [
        ("Losses", {"generator": ([1], [1.0])}),
        ("Cycle loss", {"cycle loss": ([1], [3.0])}),
    ]


def test_thinning_keeps_ends_and_spikes():
    values = np.random.default_rng(0).normal(size=54321)
    values[[1234, 40000]] = 99, -99
    kept = thin(values)
    assert len(kept) <= 1000 and kept == sorted(set(kept))
    assert {0, 1234, 40000, 54320} <= set(kept)
    assert thin(values[:1000]) == list(range(1000))


def test_a_long_curve_is_thinned_and_has_a_moving_average():
    def points(svg):
        paths = re.findall(r'<path d="([^"]*)"[^>]*clip-path', svg)
        # a line of the grid has two
        return [count for path in paths if (count := path.count("L") + 1) > 2]

    steps = list(range(5000))
    noise = np.random.default_rng(0).normal(size=5000).tolist()
    drawn = points(draw(Chart("chart", "Noise", {"noise": (steps, noise)})))
    assert len(drawn) == 2 and all(50 < count <= 1000 for count in drawn)
    assert len(points(draw(Chart("chart", "Noise", {"noise": (steps[:100], noise[:100])})))) == 1


def test_the_colours_are_the_page_s():
    svg = draw(Chart("chart", "Losses", {"one": ([1, 2], [1.0, 2.0]), "two": ([1, 2], [2.0, 1.0])}))
    assert "var(--line-1)" in svg and "var(--line-2)" in svg and "var(--ink)" in svg
    assert not re.search("#[0-9a-f]{6}", svg)


def test_a_trained_run_has_a_report(tiny, tmp_path):
    trainer = Trainer(tiny(out=str(tmp_path / "run")))
    trainer.fit(progress=False)
    page = Page(write_report(trainer.run))
    assert "step 4 of 4" in page.text
    assert len(page.all("svg")) >= 2 and page.all("img")
