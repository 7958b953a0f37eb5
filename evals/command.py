"""What the command lines of the measurements share: arguments, and figures printed by name."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path

from evals.packs import DATA


def existing(value: str) -> Path:
    """A file or folder named on a command line; for argparse, which tells who mistyped it."""
    if not (path := Path(value)).exists():
        raise argparse.ArgumentTypeError(f"{value} does not exist")
    return path


def add_data(parser: argparse.ArgumentParser) -> None:
    """`--data`, the folder with the packs."""
    # as text, since argparse looks at a default only then
    parser.add_argument("--data", type=existing, default=str(DATA), help="folder of the packs (CITEWELL_EVAL_DATA)")


def pack_arguments(about: str | None, *, sample: int, of: str, seed: int) -> argparse.Namespace:
    """The command line of a measurement over one pack.

    Args:
        about: The module's docstring.
        sample: Default of `--sample`, the most `of` what is asked.
        seed: Default of `--seed`.
    """
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=existing)
    parser.add_argument("queries", type=existing)
    parser.add_argument("qrels", type=existing)
    parser.add_argument("--sample", type=int, default=sample, help=f"most {of}")
    parser.add_argument("--seed", type=int, default=seed)
    parser.add_argument("--index", type=Path, help="keep the index in this folder and use it again")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser.parse_args()


def show(figures: Mapping[str, Mapping[str, float]], *, width: int, as_json: bool) -> None:
    """Print figures by name, a line each."""
    if as_json:
        print(json.dumps(figures, indent=2))
        return
    for name, counted in figures.items():
        print(f"{name:{width}}" + "  ".join(f"{key} {value}" for key, value in counted.items()))
