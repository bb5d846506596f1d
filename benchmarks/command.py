"""The command ``fastgan bench``."""

from __future__ import annotations

from argparse import Namespace

from benchmarks import results, run, table


def main(args: Namespace) -> int:
    """Run suites, or compare two result files; 1 where a row is worse or a provider of ours is wrong or failed.

    Raises: ValueError, in one sentence, for what cannot be done.
    """
    if args.compare:
        before, after = (results.read(path) for path in args.compare)
        lines, worse = results.compare(before, after)
        print("\n".join(lines) or "the two files have no row in common")
        return int(worse)
    settings = run.settings(args)
    if args.tune:
        from benchmarks import tune

        print("\n".join(tune.tune(settings)))
    paths = run.run(settings)
    found = [results.read(path) for path in paths]
    print("\n\n".join(table.text(result) for result in found))
    print("\n" + "\n".join(f"written: {path}" for path in paths))
    rows = [row for result in found for row in result["rows"]]
    return int(any(row["ours"] and row["status"] in ("wrong", "failed") for row in rows))
