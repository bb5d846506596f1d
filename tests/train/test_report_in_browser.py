"""A report opened from disk in Chromium: it shows its curves and pictures, and nothing is asked of a network."""

import json
import shutil

import pytest

from fastgan.train import Trainer
from fastgan.train.film import write_film
from fastgan.train.report import write_report

COMMAND = "fastgan train --preset dcgan --data mnist5k --out 'runs/a b'"
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --disable-dev-shm-usage --no-first-run"
    " --disable-background-networking --disable-component-update --disable-sync --window-size=1200,900"
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    names = ("chromium", "chromium-browser", "google-chrome")
    program = next(filter(None, map(shutil.which, names)), None)
    driver = shutil.which("chromedriver")
    if not (program and driver):
        pytest.skip("no Chromium here with its chromedriver (Debian: apt-get install chromium chromium-driver)")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = program
    for flag in [*FLAGS.split(), f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    with webdriver.Chrome(options, webdriver.ChromeService(driver)) as chrome:
        yield chrome


@pytest.fixture
def page(browser, tiny, tmp_path):
    """The report of a run that was trained just now, open in the browser."""
    trainer = Trainer(tiny(out=str(tmp_path / "run")))
    trainer.fit(progress=False)
    trainer.run.write_json("run.json", {"command": COMMAND})
    write_film(trainer.run)
    browser.get(write_report(trainer.run).as_uri())
    return browser


def test_curves_pictures_and_command_are_seen(page):
    boxes = page.execute_script(
        "return [...document.querySelectorAll('svg')].map(e => e.getBoundingClientRect().toJSON())"
    )
    assert len(boxes) >= 2
    assert all(box["width"] > 300 and box["height"] > 100 for box in boxes)
    lines = "[...document.querySelectorAll('#losses-axes_1 path[style*=line-]')]"
    script = f"return {lines}.map(path => [path.getTotalLength(), getComputedStyle(path).stroke])"
    strokes = [stroke for length, stroke in page.execute_script(script) if length > 50]
    assert len(set(strokes)) == 2 and "none" not in strokes
    widths = page.execute_script("return [...document.images].map(image => image.complete && image.naturalWidth)")
    assert len(widths) >= 4 and all(width > 90 for width in widths)
    assert page.execute_script("return document.getElementById('newest').getBoundingClientRect().width") > 300
    assert page.find_element("id", "command").text == COMMAND


@pytest.mark.parametrize("scheme, darker", [("light", "ink"), ("dark", "page")])
def test_the_page_follows_the_reader_s_colours(page, scheme, darker):
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    script = """
        const text = getComputedStyle(document.querySelector('svg text')).fill;
        return [text, getComputedStyle(document.body).backgroundColor].map(c => +c.match(/\\d+/)[0]);"""
    ink, paper = page.execute_script(script)
    assert abs(ink - paper) > 150
    assert (ink < paper) == (darker == "ink")


def test_nothing_is_asked_of_a_network(page):
    events = [json.loads(entry["message"])["message"] for entry in page.get_log("performance")]
    sent = [event["params"] for event in events if event["method"] == "Network.requestWillBeSent"]
    # the browser's own first page asks too
    asked = [request["request"]["url"] for request in sent if request["documentURL"] == page.current_url]
    assert page.current_url in asked
    assert [url for url in asked if not url.startswith(("data:", "file:"))] == []
    assert [entry for entry in page.get_log("browser") if entry["level"] == "SEVERE"] == []


def test_the_page_forbids_what_it_does_not_need(page):
    script = """
        const [done] = arguments;
        document.addEventListener('securitypolicyviolation', event => done(event.effectiveDirective));
        document.images[0].src = 'http://127.0.0.1:9/picture.png';"""
    page.set_script_timeout(20)
    assert page.execute_async_script(script) == "img-src"
