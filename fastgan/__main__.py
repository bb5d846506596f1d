"""The command line: ``fastgan info | presets | train | sample | evaluate | report | bench``, or ``-m fastgan``."""

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from fastgan.config import first_process, several_processes

Command = Callable[[argparse.Namespace], int]


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence; argparse would print the usage first."""

    def error(self, message: str) -> NoReturn:
        if first_process():
            print(f"{self.prog}: {message}", file=sys.stderr)
        raise SystemExit(2)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: arguments without the program's name; default: those of the process.
    Returns: exit code; 0 for success, 1 where training diverged, 2 for bad input, 128 + n after signal n.
    """
    args = build_parser().parse_args(argv)
    try:
        return args.command(args)
    except KeyboardInterrupt:
        if first_process():
            print("fastgan: stopped, only what was saved before is there", file=sys.stderr)
        return 128 + signal.SIGINT


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands; imports nothing but the standard library."""
    parser = _Parser(
        prog="fastgan", description="Fused kernels that make GAN training in PyTorch fast.", allow_abbrev=False
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=_Parser)
    _add_info(
        commands.add_parser("info", help="versions, devices and which backends are available", allow_abbrev=False)
    )
    _add_presets(
        commands.add_parser("presets", help="what can be trained, and with which settings", allow_abbrev=False)
    )
    _add_train(commands.add_parser("train", help="train a GAN", allow_abbrev=False))
    _add_sample(commands.add_parser("sample", help="images from a trained run", allow_abbrev=False))
    _add_evaluate(commands.add_parser("evaluate", help="scores of a run before and after training", allow_abbrev=False))
    _add_report(commands.add_parser("report", help="write a run's report.html and film anew", allow_abbrev=False))
    _add_bench(commands.add_parser("bench", help="times against stock PyTorch, from a clone", allow_abbrev=False))
    return parser


def _add_info(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="as one JSON object")
    parser.set_defaults(command=_info)


def _add_presets(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", metavar="NAME", help="print every setting of this preset, as TOML")
    parser.set_defaults(command=_training("presets"))


def _add_train(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--preset", help="settings to start from (default: dcgan)")
    parser.add_argument(
        "--data", help="mnist5k, emoji, fashion-mnist, digits, idx:DIR, folder:DIR, ... (default: the preset's)"
    )
    parser.add_argument("--out", metavar="DIR", help="directory of the run, new or empty (default: runs/PRESET)")
    parser.add_argument("--steps", type=int, metavar="N", help="generator steps")
    parser.add_argument("--seed", type=int, metavar="S", help="the same seed gives the same run on a CPU")
    parser.add_argument("--device", metavar="auto|cpu|cuda", help="auto takes CUDA where there is one")
    parser.add_argument("--dtype", metavar="float32|bfloat16|float16", help="the last two through autocast")
    parser.add_argument("--batch-size", type=int, metavar="N", help="images a step")
    parser.add_argument("--image-size", type=int, metavar="N", help="side in pixels; which ones depends on the model")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="any setting of `fastgan presets`, repeatable"
    )
    parser.add_argument(
        "--convert", action=argparse.BooleanOptionalAction, help="run through fastgan's kernels (default)"
    )
    parser.add_argument("--resume", metavar="DIR", help="go on with a run; only --steps and --device may be changed")
    parser.set_defaults(command=_training("train"))


def _add_sample(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="directory of a run")
    parser.add_argument("--n", type=int, default=64, metavar="N", help="number of images (default: 64)")
    parser.add_argument(
        "--out", type=Path, default=Path("grid.png"), metavar="FILE", help="PNG to write (default: grid.png)"
    )
    parser.add_argument("--seed", type=int, metavar="S", help="of the latents (default: the run's)")
    parser.add_argument("--step", metavar="N|best|last", help="checkpoint to take (default: last)")
    parser.add_argument(
        "--truncation", type=float, default=0.0, metavar="T", help="draw latents beyond T again; 0: none (default)"
    )
    parser.set_defaults(command=_training("sample"))


def _add_evaluate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="directory of a run")
    parser.add_argument(
        "--n", type=int, default=1000, metavar="N", help="real and as many generated images (default: 1000)"
    )
    parser.add_argument("--seed", type=int, metavar="S", help="of latents and subsets (default: the run's)")
    parser.add_argument("--step", metavar="N|best|last", help="checkpoint to take (default: last)")
    parser.add_argument(
        "--inception-weights", type=Path, metavar="FILE", help="torch-fidelity's file, for the standard FID, too"
    )
    parser.set_defaults(command=_training("evaluate"))


def _add_report(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="directory of a run")
    parser.add_argument("--film", type=Path, metavar="FILE", help=".gif or .mp4 to write (default: RUN/course.gif)")
    parser.set_defaults(command=_training("report"))


def _add_bench(parser: argparse.ArgumentParser) -> None:
    suites = ("layers", "spectral_norm", "gradient_penalty", "step", "memory", "all")
    parser.add_argument("--suite", choices=suites, default="all", help="what is measured (default: all)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="(default: cpu)")
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16", "float16"), default="float32", help="the last two through autocast"
    )
    parser.add_argument("--providers", metavar="A,B", help="files of benchmarks/peers (default: all)")
    parser.add_argument("--quick", action="store_true", help="few cases and repeats, within ten minutes")
    parser.add_argument("--budget", type=float, metavar="SECONDS", help="most important cases first, then stop")
    parser.add_argument("--resume", action="store_true", help="leave out cases that the files in --out have already")
    parser.add_argument("--out", type=Path, metavar="DIR", help="directory of results (default: benchmarks/results)")
    parser.add_argument("--tune", action="store_true", help="first choose block sizes for this GPU")
    parser.add_argument(
        "--compare", nargs=2, type=Path, metavar="JSON", help="two result files; exit code 1 where the second is worse"
    )
    parser.set_defaults(command=_bench)


def _info(args: argparse.Namespace) -> int:
    import fastgan.info

    found = fastgan.info.collect()
    print(json.dumps(found, indent=1) if args.json else fastgan.info.render(found))
    return 0


def _bench(args: argparse.Namespace) -> int:
    from fastgan.bench import bench

    return bench(args)


def _training(name: str) -> Command:
    def command(args: argparse.Namespace) -> int:
        from fastgan.train import cli

        return cli.guarded(getattr(cli, name), args)

    return command


if __name__ == "__main__":
    code = main()
    if several_processes():
        # threads of gloo have been seen to abort a process that is done while Python takes it down
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
