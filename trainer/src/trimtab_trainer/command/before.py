"""Commands for people that need no torch: `check` and `estimate` before anything is started, `import` of what was made
elsewhere, `suite` for rows of our own. What they need is loaded when they run."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from ..errors import TrainerError

ABOUT_A_RUN = ("check", "estimate")
COMMANDS = (*ABOUT_A_RUN, "import", "suite")


def count(text: str) -> int:
    """Return a whole number from 1, as an option has it.

    Raises:
        ArgumentTypeError: it is none.
    """
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1")
    return int(text)


def add_parsers(stages: Any) -> None:
    """Add them to the subcommands of `trimtab-trainer`."""
    check = stages.add_parser("check", help="say in seconds what a run would refuse; starts nothing, needs no torch")
    check.add_argument("--config", type=Path, required=True, help="configuration of the run, YAML or JSON")
    check.add_argument("--rows", type=count, default=5_000, help="rows of each side to look at (%(default)s)")
    estimate = stages.add_parser("estimate", help="memory, time and accelerator seconds of a run, by accelerator")
    estimate.add_argument("--config", type=Path, required=True, help="configuration of the run, YAML or JSON")
    estimate.add_argument(
        "--model-config", type=Path, metavar="FILE", help="a config.json to go by, instead of the base model's files"
    )
    estimate.add_argument("--accelerator", action="append", metavar="NAME", help="such as H100-80GB; all if absent")
    estimate.add_argument("--accelerators", type=count, default=1, help="how many of them train together; 1 if absent")
    estimate.add_argument("--nodes", type=count, default=1, help="how many pods, each with so many; 1 if absent")
    estimate.add_argument("--tokens", type=count, help="tokens of the training rows, as `prepare` counts them")
    estimate.add_argument("--json", action="store_true", help="for programs")
    for each in (check, estimate):
        each.add_argument("--mirrored", help="what mirror found: JSON, or a file that holds it")

    imported = stages.add_parser("import", help="publish an adapter that was made elsewhere (peft, TRL, Unsloth, ...)")
    imported.add_argument("folder", type=Path, metavar="FOLDER", help="with adapter_config.json and its weights")
    imported.add_argument("--base-model", required=True, metavar="URI", help="base model that it was trained on")
    imported.add_argument("--to", required=True, metavar="URI", help="output to publish it in: <to>/adapters/<digest>")
    imported.add_argument("--secret-directory", metavar="FOLDER", help="one file per access key; else environment")
    imported.add_argument("--json", action="store_true", help="for programs")

    suite = stages.add_parser("suite", help="write rows of our own for Evaluations into a bucket or folder")
    suite.add_argument("name", choices=("forgetting",), metavar="NAME", help="forgetting: what a model knew before")
    suite.add_argument("--to", required=True, metavar="URI", help="where to: <to>/<name>.jsonl")
    suite.add_argument("--secret-directory", metavar="FOLDER", help="one file per access key; else environment")


def run(options: argparse.Namespace) -> int:
    """Run one of them for a person; return the exit code."""
    try:
        if options.stage == "check":
            from . import check

            return check.run(options)
        if options.stage == "suite":
            from . import suite

            return suite.run(options)
        if options.stage == "import":
            from ..publishing import importing

            return importing.run(options)
        from ..estimating import command

        return command.run(options)
    except TrainerError as error:
        print(f"{error.reason.value}: {error.message}", file=sys.stderr)
        return int(error.exit_code)
