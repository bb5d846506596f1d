"""The commands ``fastgan train``, ``presets``, ``sample``, ``evaluate`` and ``report``; they return an exit code."""

from __future__ import annotations

import signal
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastgan.train.best import best_step
from fastgan.train.checks import LEAST_TRUNCATION
from fastgan.train.command import resume_command
from fastgan.train.config import PRESETS, TrainConfig, merge, parse_settings
from fastgan.train.distributed import speaks
from fastgan.train.errors import BadInput, TrainingFailed, require_extra
from fastgan.train.evaluate import evaluate_run, inputs_of
from fastgan.train.film import sample_grids, write_film
from fastgan.train.images import make_grid, save_png
from fastgan.train.report import write_report
from fastgan.train.run_dir import RunDir
from fastgan.train.sampling import generate, load_generator
from fastgan.train.trainer import FitResult, Trainer

_SETTINGS = ("data", "out", "steps", "seed", "device", "dtype", "batch_size", "image_size", "convert")
_RESUME_SETTINGS = ("steps", "device")


def guarded(command: Callable[[Namespace], int], args: Namespace) -> int:
    """Run a command; what the user can mend becomes one sentence on stderr and exit code 2, divergence exit code 1.

    Of several processes, which all fail when one does, the first speaks.
    """
    try:
        return command(args)
    except (BadInput, TrainingFailed) as error:
        sentence, code = str(error), 1 if isinstance(error, TrainingFailed) else 2
    except OSError as error:
        sentence, code = f"{error.filename or 'a file'} cannot be used: {error.strerror or error}", 2
    if speaks():
        print(f"fastgan: {sentence}", file=sys.stderr)
    return code


def train(args: Namespace) -> int:
    """Start or resume a run; 0 when it is done, 128 + the signal's number when a signal stopped it."""
    given = {name: getattr(args, name) for name in _SETTINGS if getattr(args, name) is not None}
    trainer = _resume(args, given) if args.resume is not None else _start(args, given)
    if trainer.world.first:
        _say_what_begins(trainer)
    result = trainer.fit()
    if trainer.world.first:
        _say_what_is_there(Path(trainer.config.out), result)
    # torchrun ends the others as soon as one process ends with a signal's exit code
    trainer.world.gather(None)
    return 128 + result.signum if result.signum else 0


def presets(args: Namespace) -> int:
    """Print the names of all presets with what they are, or every setting of one."""
    if args.name is None:
        for name in TrainConfig.preset_names():
            print(f"{name:<14} {(PRESETS / f'{name}.toml').read_text().splitlines()[0].lstrip('# ')}")
        return 0
    require_extra("tomli_w")
    print(TrainConfig.preset(args.name).to_toml(), end="")
    return 0


def sample(args: Namespace) -> int:
    """Write one grid of images of a checkpoint."""
    require_extra("PIL", "tomli_w")
    if args.n < 1:
        raise BadInput(f"--n must be at least 1, got {args.n}")
    if not (args.truncation == 0 or args.truncation >= LEAST_TRUNCATION):
        raise BadInput(f"--truncation must be 0 or at least {LEAST_TRUNCATION}, got {args.truncation}")
    if args.out.suffix.lower() != ".png" or args.out.is_dir():
        raise BadInput(f"--out must be a .png file, got {args.out}")
    if not args.out.parent.is_dir():
        raise BadInput(f"there is no directory {args.out.parent} to write {args.out.name} to")
    trained = load_generator(args.run, _step(args))
    inputs = inputs_of(trained, args.n, _seed(args, trained.config.seed), args.truncation)
    images = generate(trained.generator, inputs)
    save_png(make_grid(trained.recipe.picture(inputs, images)), args.out)
    print(f"{len(images)} images of step {trained.step} in {args.out}")
    return 0


def evaluate(args: Namespace) -> int:
    """Print the scores of the first and a later checkpoint, and those of real images against other real images."""
    require_extra("PIL", "tomli_w")
    seed = None if args.seed is None else _seed(args, args.seed)
    print(evaluate_run(args.run, args.n, seed, _step(args), args.inception_weights))
    return 0


def report(args: Namespace) -> int:
    """Write report.html and the film of a run's samples anew."""
    run = RunDir(args.run)
    run.check_there()
    film = write_film(run, args.film)
    print(f"the report is {write_report(run)}" + (f", the film of its samples {film}" if film else ""))
    return 0


def _start(args: Namespace, given: dict[str, Any]) -> Trainer:
    name = args.preset or "dcgan"
    settings = merge(parse_settings(args.set), given)
    config = TrainConfig.preset(name, **{"out": f"runs/{name}", **settings})
    if not config.out:
        raise BadInput("--out must name a directory")
    return Trainer(config)


def _resume(args: Namespace, given: dict[str, Any]) -> Trainer:
    fixed = [name for name in given if name not in _RESUME_SETTINGS]
    fixed += [name for name in ("preset", "set") if getattr(args, name)]
    if fixed:
        option = "--" + fixed[0].replace("_", "-")
        raise BadInput(f"{option} cannot be changed with --resume, which takes the settings from config.toml")
    if not args.resume:
        raise BadInput("--resume must name a directory")
    return Trainer.resume(args.resume, **given)


def _say_what_begins(trainer: Trainer) -> None:
    config, unreadable = trainer.config, trainer.data.unreadable
    if unreadable:
        names = ", ".join(map(str, unreadable[:10])) + (", ..." if len(unreadable) > 10 else "")
        print(f"{len(unreadable)} images cannot be read and are left out: {names}", file=sys.stderr)
    data = config.data + (f" and {config.data_b}" if config.data_b else "")
    size = f"{config.image_size}x{config.image_size}"
    work = f"{config.steps} steps on {trainer.device} in {config.dtype}"
    print(f"{len(trainer.data)} images of {data} at {size}, {work}", flush=True)


def _say_what_is_there(out: Path, result: FitResult) -> None:
    if result.signum:
        name = signal.Signals(result.signum).name
        print(f"stopped by {name} after step {result.step} and saved; go on with: {resume_command(out)}")
    else:
        print(f"done, {result.step} steps; measurements are in {RunDir(out).metrics}")
    _, last = sample_grids(RunDir(out))[-1]
    print(f"pictures are in {RunDir(out).samples}, the last one is {last}")


def _step(args: Namespace) -> int | None:
    if args.step in (None, "last"):
        return None
    if args.step == "best":
        best = best_step(RunDir(args.run))
        if best is None:
            raise BadInput(f"{args.run} has no best step, scores are taken with --set score_every=N")
        return best
    if not args.step.isdecimal():
        raise BadInput(f"--step must be a number, best or last, got {args.step!r}")
    return int(args.step)


def _seed(args: Namespace, default: int) -> int:
    seed = default if args.seed is None else args.seed
    if not 0 <= seed < 2**32:
        raise BadInput(f"--seed must be at least 0 and below 2^32, got {seed}")
    return seed
