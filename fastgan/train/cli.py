"""The commands ``fastgan train``, ``sample`` and ``evaluate``; they take parsed arguments and return an exit code."""

import shlex
import shutil
import signal
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from fastgan.train.config import TrainConfig
from fastgan.train.data import load_images
from fastgan.train.errors import BadInput, TrainingFailed, require_extra
from fastgan.train.images import make_grid, save_png, to_uint8
from fastgan.train.run_dir import RunDir
from fastgan.train.sampling import draw_latents, generate, load_generator, seeded_generator
from fastgan.train.scores import NETWORK, KidScore, check_packages
from fastgan.train.trainer import FitResult, Trainer

_SETTINGS = ("data", "out", "steps", "seed", "device", "dtype", "batch_size", "image_size", "convert")
_RESUME_SETTINGS = ("steps", "device")
_SAMPLES = 4  # stream of random numbers; the trainer has 1 to 3 and 5


def guarded(command: Callable[[Namespace], int], args: Namespace) -> int:
    """Run a command; what the user can mend becomes one sentence on stderr and exit code 2, divergence exit code 1."""
    try:
        return command(args)
    except (BadInput, TrainingFailed) as error:
        print(f"fastgan: {error}", file=sys.stderr)
        return 2 if isinstance(error, BadInput) else 1
    except OSError as error:
        print(f"fastgan: {error.filename or 'a file'} cannot be used: {error.strerror or error}", file=sys.stderr)
        return 2


def train(args: Namespace) -> int:
    """Start or resume a run; 0 when it is done, 128 + the signal's number when a signal stopped it."""
    require_extra("PIL", "tqdm", "tomli_w")
    given = {name: getattr(args, name) for name in _SETTINGS if getattr(args, name) is not None}
    trainer = _resume(args, given) if args.resume is not None else _start(args, given)
    config, unreadable = trainer.config, trainer.data.unreadable
    if unreadable:
        names = ", ".join(map(str, unreadable[:10])) + (", ..." if len(unreadable) > 10 else "")
        print(f"{len(unreadable)} images cannot be read and are left out: {names}", file=sys.stderr)
    size = f"{config.image_size}x{config.image_size}"
    work = f"{config.steps} steps on {trainer.device} in {config.dtype}"
    print(f"{len(trainer.data)} images of {config.data} at {size}, {work}")
    result = trainer.fit()
    _say_what_is_there(Path(config.out), result)
    return 128 + result.signum if result.signum else 0


def sample(args: Namespace) -> int:
    """Write one grid of images of the newest checkpoint."""
    require_extra("PIL", "tomli_w")
    if args.n < 1:
        raise BadInput(f"--n must be at least 1, got {args.n}")
    if args.out.suffix.lower() != ".png":
        raise BadInput(f"--out must be a .png file, got {args.out}")
    if not args.out.parent.is_dir():
        raise BadInput(f"there is no directory {args.out.parent} to write {args.out.name} to")
    generator, config, step = load_generator(args.run)
    latents = draw_latents(args.n, config.latent_dim, seeded_generator(_seed(args, config), _SAMPLES))
    save_png(make_grid(generate(generator, latents)), args.out)
    print(f"{args.n} images of step {step} in {args.out}")
    return 0


def evaluate(args: Namespace) -> int:
    """Print the KID of the first and the newest checkpoint, and that of real images against other real images."""
    require_extra("PIL", "tomli_w")
    check_packages()
    if args.n < 4:
        raise BadInput(f"--n must be at least 4, got {args.n}")
    generator, config, step = load_generator(args.run)
    before, _, _ = load_generator(args.run, 0)
    seed = _seed(args, config)
    real, other = load_images(config.data, config.image_size).halves(seed)
    if min(len(real), len(other)) < 4:
        raise BadInput(f"the data set {config.data} has too few images for a score")
    n = min(args.n, len(real), len(other))
    latents = draw_latents(n, config.latent_dim, seeded_generator(seed, _SAMPLES))
    score = KidScore(_pick(real, n, seed), seed)
    print(f"KID in the features of {NETWORK} (not Inception: compare with nothing else), {config.data}, n = {n}")
    print(f"real against other real images (floor)  {score(_pick(other, n, seed))}")
    print(f"before, step 0                          {score(to_uint8(generate(before, latents)))}")
    print(f"after, step {step:<6}                      {score(to_uint8(generate(generator, latents)))}")
    return 0


def _start(args: Namespace, given: dict[str, Any]) -> Trainer:
    config = TrainConfig.preset(args.preset or "dcgan", **{"out": f"runs/{args.preset or 'dcgan'}", **given})
    if not config.out:
        raise BadInput("--out must name a directory")
    return Trainer(config)


def _resume(args: Namespace, given: dict[str, Any]) -> Trainer:
    fixed = [name for name in given if name not in _RESUME_SETTINGS] + (["preset"] if args.preset else [])
    if fixed:
        option = "--" + fixed[0].replace("_", "-")
        raise BadInput(f"{option} cannot be changed with --resume, which takes the settings from config.toml")
    return Trainer.resume(args.resume, **given)


def _say_what_is_there(out: Path, result: FitResult) -> None:
    if result.signum:
        name = signal.Signals(result.signum).name
        print(f"stopped by {name} after step {result.step} and saved; go on with: {_resume_command(out)}")
    else:
        print(f"done, {result.step} steps; measurements are in {RunDir(out).metrics}")
    pictures = sorted(RunDir(out).samples.glob("*.png"))
    print(f"pictures are in {RunDir(out).samples}, the last one is {pictures[-1]}")


def _resume_command(out: Path) -> str:
    # under `python -m fastgan` there may be no fastgan on the path, or that of another environment
    ours = shutil.which("fastgan") is not None and Path(sys.argv[0]).name == "fastgan"
    command = ["fastgan"] if ours else [sys.executable, "-m", "fastgan"]
    return shlex.join([*command, "train", "--resume", str(out)])


def _seed(args: Namespace, config: TrainConfig) -> int:
    seed = config.seed if args.seed is None else args.seed
    if not 0 <= seed < 2**32:
        raise BadInput(f"--seed must be at least 0 and below 2^32, got {seed}")
    return seed


def _pick(images: torch.Tensor, n: int, seed: int) -> torch.Tensor:
    return images[torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))[:n]]
