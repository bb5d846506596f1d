"""The documentation: public names, links, and the blocks of docs/migration.md, which run."""

import functools
import importlib
import inspect
import re
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from nn.parallel import in_two_processes

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("csrc/*.md")])
MODULES = (
    *("fastgan", "fastgan.nn", "fastgan.nn.functional", "fastgan.nn.utils", "fastgan.train", "fastgan.train.losses"),
    *("fastgan.models", "fastgan.testing"),
)
SETUP, *BLOCKS = re.findall(r"^```python\n(.*?)^```$", (ROOT / "docs/migration.md").read_text(), re.M | re.S)


def public(module):
    """Return the names of ``__all__``, or those of its own that have no underscore."""
    if hasattr(module, "__all__"):
        return module.__all__
    own = {n: v for n, v in vars(module).items() if getattr(v, "__module__", module.__name__) == module.__name__}
    return [name for name, value in own.items() if not name.startswith("_") and not inspect.ismodule(value)]


def sections():
    """Return the text of docs/api.md below each heading, by heading."""
    _, *parts = re.split(r"^#+ (.*)$", (ROOT / "docs/api.md").read_text(), flags=re.M)
    return dict(zip(parts[::2], parts[1::2], strict=True))


@pytest.mark.parametrize("name", MODULES)
def test_every_public_name_is_in_the_reference(name):
    module, text = importlib.import_module(name), sections()
    assert inspect.getdoc(module), name
    for each in public(module):
        value = getattr(module, each)
        if inspect.ismodule(value):
            assert f"{name}.{each}" in text and inspect.getdoc(value), each
            continue
        documented = inspect.isclass(value) or inspect.isfunction(value)
        assert not documented or value.__doc__, f"{name}.{each} has no docstring"
        whole = f"automodule:: {name}\n   :members:" in text[name]
        assert (whole and documented) or re.search(rf"\b{each}\b", text[name]), f"{name}.{each} is not in docs/api.md"


def test_the_reference_has_no_other_names():
    for name, text in sections().items():
        for each in re.findall(r"^\.\. auto(?!module)\w+:: (\S+)$", text, re.M):
            path, _, last = (each if each.startswith("fastgan.") else f"{name}.{each}").rpartition(".")
            assert hasattr(importlib.import_module(path), last), each


def anchors(path):
    """Return what a link may name in a page, as GitHub has it."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists() and target.is_relative_to(ROOT), link
        assert not anchor or anchor in anchors(target), link


def test_every_page_is_in_the_contents():
    contents = re.search(r"toctree}(.*?)```", (ROOT / "docs/index.md").read_text(), re.S)[1].split()
    assert {path.stem for path in PAGES if path.parent == ROOT / "docs"} - {"index"} <= set(contents)


def run(block, part=slice(None)):
    """Run a block of docs/migration.md after the first one, on a part of its batch; return the names it leaves."""
    torch.manual_seed(0)
    names = {}
    exec(compile(SETUP, "docs/migration.md", "exec"), names)
    names["real"], names["latents"] = names["real"][part], names["latents"][part]
    exec(compile(block, "docs/migration.md", "exec"), names)
    return names


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.splitlines()[0][:40])
def test_migration(block, monkeypatch, capsys):
    if block.startswith("#"):
        assert block.startswith(("# needs several processes\n", "# needs a GPU\n"))
        compile(block, "docs/migration.md", "exec")
        return
    # inductor would take a minute; tests/nn/test_compile_training.py has it
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    run(block)
    torch.compiler.reset()
    assert "print(" not in block or "fused" in capsys.readouterr().out


PARALLEL = [block for block in BLOCKS if block.startswith("# needs several processes")]
HALVES = slice(0, 2), slice(2, 4)


def gradients(block, part):
    return [p.grad for p in run(block, part)["critic"].parameters()]


def process(rank):
    # there is a process group already
    dist.init_process_group = lambda backend: None
    return [gradients(block, HALVES[rank]) for block in PARALLEL]


def test_migration_to_two_processes(tmp_path):
    """Each has the mean of the gradients that one process has for each half."""
    found = in_two_processes(process, tmp_path)
    assert len(PARALLEL) == 2
    for i, block in enumerate(PARALLEL):
        alone = re.sub(r"DistributedDataParallel(?=\()|^dist.init.*|^for (.*\n)+", "", block, flags=re.M)
        for got, *halves in zip(found[0][i], *(gradients(alone, half) for half in HALVES), strict=True):
            torch.testing.assert_close(got, sum(halves) / 2)
        assert all(map(torch.equal, found[0][i], found[1][i]))
