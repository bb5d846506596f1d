"""Runs suites: builds each case's providers, checks them, times them, and writes what is known after every case."""

from __future__ import annotations

import gc
import importlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from benchmarks import cases, machine, peers, results, timing, work
from benchmarks.peers.peer import Peer, Refused
from benchmarks.progress import Progress

# seconds, so that --quick ends within ten minutes: the last case begun by then is finished
QUICK = 460.0
# seconds that a slow provider wants, or it is not begun
SLOW = 90.0
# of the time that is left, for each suite in turn
SHARES = {"step": 0.4, "layers": 0.45, "gradient_penalty": 0.6, "spectral_norm": 0.5, "memory": 1.0}


@dataclass
class Settings:
    """What is run.

    Args:
        budget: seconds for all suites together; what is not begun by then is left out.
        batch: instead of each case's own, for tests.
        limit: only the first so many cases of each suite.
        resume: leave out the cases that the files in ``out`` have already.
    """

    suites: list[str]
    device: str = "cpu"
    dtype: torch.dtype = torch.float32
    peers: list[Peer] = field(default_factory=list)
    quick: bool = False
    out: Path = results.RESULTS
    budget: float = float("inf")
    batch: int | None = None
    limit: int | None = None
    resume: bool = False

    @property
    def repeats(self) -> int:
        """How often each provider is timed."""
        usual, quick = (51, 11) if self.device == "cuda" else (7, 3)
        return quick if self.quick else usual


def run(settings: Settings) -> list[Path]:
    """Run the suites in turn; the files that were written.

    Raises: ValueError, before any work, where a file cannot be gone on with.
    """
    end, written = time.monotonic() + settings.budget, []
    suites = sorted(settings.suites, key=cases.SUITES.index)
    begun = {suite: _begin(settings, suite) for suite in suites}
    for suite in suites:
        left = max(end - time.monotonic(), 0.0)
        share = SHARES[suite] if len(settings.suites) > 1 else 1.0
        written.append(_suite(settings, suite, begun[suite], time.monotonic() + share * left))
    return written


def _path(settings: Settings, suite: str) -> Path:
    return settings.out / machine.folder(settings.device) / f"{suite}.{cases.name(settings.dtype)}.json"


def _begin(settings: Settings, suite: str) -> dict[str, Any]:
    """The result so far: a head without rows, or what an earlier run has left."""
    path, head = _path(settings, suite), machine.header(suite, settings.dtype, settings.device)
    if settings.resume and path.exists():
        return results.resumed(path, head)
    return head | {"ceilings": {}, "complete": False, "rows": []}


def _suite(settings: Settings, suite: str, result: dict[str, Any], deadline: float) -> Path:
    path, names = _path(settings, suite), {peer.name for peer in _of_suite(settings, suite)}
    if suite != "memory" and not result["ceilings"]:
        result["ceilings"] = machine.ceilings(settings.dtype, settings.device, settings.quick)
    todo, result["complete"] = cases.of(suite, settings.quick)[: settings.limit], False
    with Progress(suite, len(todo)) as progress:
        for number, case in enumerate(todo):
            if settings.batch:
                case = case._replace(batch=min(case.batch, settings.batch))
            of_case, others = results.split(result["rows"], case.name, case.batch, case.direction)
            if names <= {row["provider"] for row in of_case if row["status"] != "skipped"}:
                progress.done([])
            elif time.monotonic() > deadline:
                break
            else:
                result["rows"] = others + CaseRun(settings, case, result["ceilings"], deadline, progress).rows()
                # partial results are worth having
                results.write(path, result)
            result["complete"] = number + 1 == len(todo)
    results.write(path, result)
    return path


def _of_suite(settings: Settings, suite: str) -> list[Peer]:
    """The peers that take part in a suite."""
    return [p for p in settings.peers if (not p.suites or suite in p.suites) and not (settings.quick and p.slow)]


class CaseRun:
    """One case: a row for each provider."""

    def __init__(
        self, settings: Settings, case: cases.Case, ceiling: dict[str, float], deadline: float, progress: Progress
    ) -> None:
        self.settings, self.case, self.ceiling = settings, case, ceiling
        self.deadline, self.progress = deadline, progress
        suite = importlib.import_module(f"benchmarks.suites.{case.suite}")
        self.work: work.Work = suite.WORK(case, settings.dtype, settings.device)
        self.exact: work.Results = {}
        # errors of eager PyTorch
        self.plain: dict[str, float] = {}

    def rows(self) -> list[dict[str, Any]]:
        """Build and check all providers, then time those that are right."""
        found: list[dict[str, Any]] = []
        runs: dict[str, work.Run] = {}
        for peer in _of_suite(self.settings, self.case.suite):
            self.progress.say(f"{self.case.name}, {self.case.direction}: {peer.name}")
            row, run = self._checked(peer)
            found.append(self._about(peer) | row)
            if run is not None:
                runs[peer.name] = run
        measured = self._kept(runs) if self.case.suite == "memory" else self._timed(runs)
        for row in found:
            row |= measured.get(row["provider"], {})
        runs.clear()
        _forget(self.settings.device)
        self.progress.done(found)
        return found

    def _about(self, peer: Peer) -> dict[str, Any]:
        case = self.case
        return {
            "case": case.name,
            "shape": self.work.shape(),
            "batch": case.batch,
            "dtype": cases.name(self.settings.dtype),
            "direction": case.direction,
            "provider": peer.name,
            "ours": peer.ours,
        }

    def _checked(self, peer: Peer) -> tuple[dict[str, Any], work.Run | None]:
        if time.monotonic() + (SLOW if peer.slow else 0.0) > self.deadline:
            return {"status": "skipped", "reason": "the time budget was spent"}, None
        try:
            run = self.work.build(peer)
            run.step = _flagged(run.step, peer)
            found = run.checked()
            self.exact = self.exact or work.exact(self.work)
            errors = self.work.errors(found, self.exact)
            self.plain = errors if peer.name == "eager" else self.plain
            reason = self.work.wrong(errors, self.plain)
        except Refused as why:
            return {"status": "refused", "reason": str(why)}, None
        except Exception as problem:  # any failure of a provider is a result
            return {"status": "failed", "reason": _sentence(problem)}, None
        error = max(errors.values())
        known = {"error": error if error < float("inf") else None}
        if reason:
            return known | {"status": "wrong", "reason": reason}, None
        return known | {"status": "ok"}, run

    def _timed(self, runs: dict[str, work.Run]) -> dict[str, dict[str, Any]]:
        steps = {name: run.step for name, run in runs.items()}
        device = self.settings.device
        # what takes less than a millisecond wants more repeats
        seconds = 0.0 if device == "cuda" or self.settings.quick else 0.5
        measured = timing.interleaved(steps, self.settings.repeats, 3 if device == "cuda" else 0, device, seconds)
        size, flops = self.work.ideal()
        for name, row in measured.items():
            row |= {"bytes": size, "flops": flops}
            row["roofline_percent"] = machine.roofline_percent(row["p50_ms"], size, flops, self.ceiling)
            if runs[name].images:
                row["images_per_s"] = round(1e3 * runs[name].images / row["p50_ms"], 1)
            if runs[name].in_torch:
                row |= self._memory(steps[name])
        return measured

    def _memory(self, step: Callable[[], object]) -> dict[str, Any]:
        if self.settings.device == "cuda":
            return timing.on_gpu(step)
        return timing.on_cpu(step) if self.case.suite == "step" else {}

    def _kept(self, runs: dict[str, work.Run]) -> dict[str, dict[str, Any]]:
        return {name: {"kept_bytes": run.step()} for name, run in runs.items()}


def _flagged(step: Callable[[], Any], peer: Peer) -> Callable[[], Any]:
    def run() -> Any:
        # each for itself, since they are timed in turn
        torch.backends.cudnn.benchmark = peer.tuned
        return step()

    return run


def _sentence(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"[:400]


def _forget(device: str) -> None:
    torch._dynamo.reset()
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()


def settings(args: Any) -> Settings:
    """Settings from the command line. Raises ValueError naming the option."""
    if args.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda was asked for, but torch finds no CUDA device here")
    if args.dtype == "float16" and args.device == "cpu":
        raise ValueError("--dtype float16 needs --device cuda, on a CPU use float32 or bfloat16")
    budget = args.budget if args.budget is not None else QUICK if args.quick else float("inf")
    if not budget > 0:
        raise ValueError(f"--budget must be above 0 seconds, got {budget}")
    return Settings(
        suites=list(cases.SUITES) if args.suite == "all" else [args.suite],
        device=args.device,
        dtype=getattr(torch, args.dtype),
        peers=peers.load(args.providers.split(",") if args.providers else None),
        quick=args.quick,
        out=args.out or results.RESULTS,
        budget=budget,
        resume=args.resume,
    )
