"""Trains an inversion method: python train.py [+experiment=NAME] [key=value ...]; see --help."""

import logging
import os
import sys
import traceback
from pathlib import Path
from typing import NoReturn

import hydra
from omegaconf import DictConfig

from clcae.ops.memory import keep_freed_memory
from training.run import train
from training.usage import explain

CONFIGS = Path(__file__).resolve().parent / "configs"
TRACE = os.environ.get("HYDRA_FULL_ERROR") == "1"


def fail(error: BaseException, *, trace: bool) -> NoReturn:
    """Ends the program with one line, or with the stack trace where it is asked for or deserved."""
    line, status = explain(error, configs=CONFIGS, arguments=sys.argv[1:]) or (None, 1)
    if trace or line is None:
        traceback.print_exception(error)
    elif line:
        print(f"train.py: {line}", file=sys.stderr)
    sys.exit(status)


@hydra.main(version_base="1.3", config_path="configs", config_name="train")
def run(cfg: DictConfig) -> None:
    """Runs the composed configuration."""
    first = os.environ.get("RANK", "0") == "0"  # one process of several is enough to read
    logging.basicConfig(level=logging.INFO if first else logging.WARNING, format="%(message)s")
    try:
        train(cfg)
    except (Exception, KeyboardInterrupt) as error:
        fail(error, trace=TRACE or bool(cfg.get("trainer", {}).get("debug")))
    if not first:
        # Rank 0 holds every open file. In the others gloo's threads sometimes abort the exit of the
        # interpreter (torch 2.15), which torchrun would report as a failed run.
        sys.stdout.flush()
        os._exit(0)


if __name__ == "__main__":
    os.environ["HYDRA_FULL_ERROR"] = (
        "1"  # Hydra raises its own errors instead of printing many lines
    )
    keep_freed_memory()
    try:
        run()
    except Exception as error:
        fail(error, trace=TRACE)
