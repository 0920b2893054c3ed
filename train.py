"""Trains an inversion method: python train.py [+experiment=NAME] [key=value ...]; see --help."""

from clcae.command import begin

if __name__ == "__main__":
    begin()  # before the imports that take seconds

from pathlib import Path

from omegaconf import DictConfig

from training.commandline import run_program
from training.run import train


def run(cfg: DictConfig) -> None:
    """Trains the composed configuration."""
    train(cfg)


if __name__ == "__main__":
    configs = Path(__file__).resolve().parent / "configs"
    run_program(run, name="train.py", configs=configs, primary="train")
