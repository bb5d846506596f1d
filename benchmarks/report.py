"""Writes the tables of the README and of docs/, and the plots there, from the committed results.

``python -m benchmarks.report``
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks import norm_act, results, scores, table

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
BEGIN, END = "<!-- {suite}: made by python -m benchmarks.report -->", "<!-- end -->"
TITLES = {
    "step": "A whole training step; images a second are real images.",
    "layers": "Layers of GANs in training: convolution, batch norm, activation.",
    "gradient_penalty": "A critic's step: Wasserstein loss, penalty, all gradients.",
    "spectral_norm": "Spectral norm of all layers in training, without the convolutions.",
    "memory": "MiB kept for backward at the most at one time: all that autograd saves, but for parameters.",
}


# suites of many cases, with what these are, and directions, with what is said of them
LONG = {"layers": "layers", "memory": "cases"}
SPOKEN = {"step": "", "kept for backward": ", kept for backward"}
# what a summary of all suites says before a case
PREFIX = {"spectral_norm": "spectral norm, ", "gradient_penalty": "step of "}
# the ratio from which on two providers count as level
LEVEL = 0.97
# the providers of a model in the default memory format
PLAIN = ("eager", "fastgan_nchw")


def committed() -> list[tuple[Path, dict[str, Any]]]:
    """Result files of ``fastgan bench``."""
    return [(path, results.read(path)) for path in sorted(results.RESULTS.glob("*/*.json"))]


def _cell(row: dict[str, Any] | None) -> str:
    if row is None:
        return ""
    if row["status"] != "ok":
        return row["status"]
    return f"{row['kept_bytes'] / 2**20:.2f}" if "kept_bytes" in row else f"{row['p50_ms']:.2f}"


def _unit(row: dict[str, Any]) -> str:
    return "MiB" if "kept_bytes" in row else "ms"


def suite_table(result: dict[str, Any]) -> str:
    """A Markdown table: a row for each case, a column for each provider, the ratio of the best stock to ours."""
    names = list(dict.fromkeys(row["provider"] for row in result["rows"]))
    ratios = {(each.case, each.direction, each.batch): each.ratio for each in table.best(result["rows"])}
    lines = [f"| case | batch | {' | '.join(names)} | best stock / best fastgan |"]
    lines.append(f"| --- | ---: |{' ---: |' * (len(names) + 1)}")
    for key, rows in table.by_case(result["rows"]).items():
        case, direction, batch = key
        by_name = {row["provider"]: row for row in rows}
        cells = " | ".join(_cell(by_name.get(name)) for name in names)
        what = case if direction in SPOKEN else f"{case}, {direction}"
        lines.append(f"| {what} | {batch or ''} | {cells} | {f'{ratios[key]:.2f}' if key in ratios else ''} |")
    if ratios:
        values = list(ratios.values())
        mean = f"{table.geometric_mean(values):.2f}; {min(values):.2f}"
        lines.append(f"| geometric mean; worst | | {' | '.join('' for _ in names)} | {mean} |")
    return "\n".join([*lines, *_reasons(result["rows"])])


def _reasons(rows: list[dict[str, Any]]) -> list[str]:
    said = dict.fromkeys(f"`{row['provider']}`: {row['reason']}" for row in rows if row["status"] != "ok")
    return ["", "Not measured: " + "; ".join(said) + "."] if said else []


def suites() -> dict[str, str]:
    """What is said of each suite that was measured, by the name of its block."""
    found: dict[str, list[str]] = {}
    for _, result in committed():
        machine = f"{result['device']}, {result['threads']} threads, torch {result['torch']}, {result['date'][:10]}"
        partly = "" if result["complete"] else " Part of the suite."
        head = f"{TITLES[result['suite']]}{partly} {result['dtype']}, {machine}, `{result['command']}`:"
        found.setdefault(f"bench {result['suite']}", []).append(f"{head}\n\n{suite_table(result)}")
    return {"norm_act": norm_act.block(), **{name: "\n\n".join(parts) for name, parts in found.items()}}


def summary(whole: bool) -> str:
    """A Markdown table with a column for each machine: the best stock provider's time or bytes, the best of ours and
    how many times better it is; mean and worst of the long suites, ``whole``: for each direction and batch size."""
    cells: dict[tuple[str, str], dict[str, str]] = {}
    for _, result in sorted(committed(), key=lambda found: list(TITLES).index(found[1]["suite"])):
        for what, cell in _summed_up(result, whole):
            cells.setdefault((what, result["dtype"]), {})[result["device"]] = cell
    machines = sorted({machine for of in cells.values() for machine in of})
    lines = [f"| what | dtype | {' | '.join(machines)} |", f"| --- | --- |{' ---: |' * len(machines)}"]
    whats = [what for what, _ in cells]
    for key in sorted(cells, key=lambda key: whats.index(key[0])):
        lines.append(f"| {' | '.join(key)} | {' | '.join(cells[key].get(each, '') for each in machines)} |")
    return "\n".join(lines)


def _summed_up(result: dict[str, Any], whole: bool) -> Iterator[tuple[str, str]]:
    """What the summary says of a file: what was measured, and how it came out."""
    suite, found = result["suite"], table.best(result["rows"])
    if suite in LONG:
        means = list(_means(result, found))
        yield from means if whole else means[:1]
        if suite == "layers" and whole:
            plain = table.best([row for row in result["rows"] if row["provider"] in PLAIN])
            yield from _means(result, plain, f"{PLAIN[0]} against {PLAIN[1]}, ")
        found = [each for each in found if suite == "memory" and each.case.endswith("step")]
    for each in found:
        what = PREFIX.get(suite, "") + each.case + each.of_batch + SPOKEN.get(each.direction, f", {each.direction}")
        yield what, f"{_cell(each.stock)} to {_cell(each.ours)} {_unit(each.ours)}: {each.ratio:.2f}"


def _means(result: dict[str, Any], found: list[table.Best], which: str = "") -> Iterator[tuple[str, str]]:
    for direction, batch in dict.fromkeys((each.direction, each.batch) for each in found):
        ratios = [each.ratio for each in found if (each.direction, each.batch) == (direction, batch)]
        what = f"{LONG[result['suite']]}, {which}{SPOKEN.get(direction, direction).removeprefix(', ')}, batch {batch}"
        yield what, f"{len(ratios)} rows: {table.geometric_mean(ratios):.2f}; {min(ratios):.2f}"


def lost() -> str:
    """Markdown: a table of how often the best stock provider is better, then the rows below LEVEL of each suite."""
    found = _ratios()
    lines = [f"| table | rows | {LEVEL} to 1 | below {LEVEL} | worst |", "| --- | ---: | ---: | ---: | ---: |"]
    lists = []
    for where, rows in found.items():
        ratios = [round(row[-1], 2) for row in rows]
        below = [row for row, ratio in zip(rows, ratios, strict=True) if ratio < LEVEL]
        level = sum(ratio < 1 for ratio in ratios) - len(below)
        lines.append(f"| {where} | {len(rows)} | {level} | {len(below)} | {min(ratios):.2f} |")
        lists += [f"Below {LEVEL}, {where}:\n\n{_worst_first(below)}"] if below else []
    return "\n\n".join(["\n".join(lines), *lists])


def _ratios() -> dict[str, list[tuple[str, str, str, float]]]:
    """Row, best stock provider, best of ours and their ratio, by suite, dtype and device."""
    found: dict[str, list[tuple[str, str, str, float]]] = {}
    for where, case, stock, ours, ratio in norm_act.ratios():
        found.setdefault(where, []).append((case, stock, ours, ratio))
    for _, result in committed():
        for each in table.best(result["rows"]):
            case = f"{each.case}, {each.direction}{each.of_batch}"
            where = f"{result['suite']}, {result['dtype']}, {result['device']}"
            row = case, each.stock["provider"], each.ours["provider"], each.ratio
            found.setdefault(where, []).append(row)
    return found


def _worst_first(rows: list[tuple[str, str, str, float]]) -> str:
    ordered = sorted(rows, key=lambda row: row[-1])
    lines = [f"| {' | '.join(names)} | {ratio:.2f} |" for *names, ratio in ordered]
    return "\n".join(["| row | best stock | best fastgan | ratio |", "| --- | --- | --- | ---: |", *lines])


def shown_plots() -> str:
    """The plots in docs/, for a page there."""
    return "\n".join(f"![{path.stem}]({path.name})" for path in sorted(DOCS.glob("bench-*.svg")))


# the pages, and what makes the blocks of each by their names
PAGES: dict[Path, Callable[[], dict[str, str]]] = {
    ROOT / "README.md": lambda: {"summary": summary(whole=False)},
    DOCS / "performance.md": lambda: {
        "summary": summary(whole=True),
        "lost": lost(),
        "plots": shown_plots(),
        **suites(),
    },
    DOCS / "training.md": lambda: {"scores": scores.block()},
}


def page(path: Path) -> str:
    """The text of one of PAGES with its blocks made anew; a block that has no place comes after the others."""
    text = path.read_text()
    for name, block in PAGES[path]().items():
        begin = BEGIN.format(suite=name)
        if begin not in text:
            head, tail = text.rsplit(END, 1)
            text = f"{head}{END}\n\n{begin}\n{END}{tail}"
        before, rest = text.split(begin)
        text = before + begin + "\n" + block + "\n" + END + rest.split(END, 1)[1]
    return text


def main() -> None:
    from benchmarks import plots

    for name, svg in plots.drawn(committed()).items():
        (DOCS / name).write_text(svg)
    for path in PAGES:
        path.write_text(page(path))


if __name__ == "__main__":
    main()
