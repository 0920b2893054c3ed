"""Groups beside another program: what a step and a synthesis take while it keeps a core busy.

OpenMP's threads meet at the end of every operation. One that waits spins at first, which is fastest
on a quiet machine; beside another program it takes time from the thread that it waits for. Commands
bound the spinning (`clcae.command.begin`); a variant of one thread says what waiting costs.
"""

import subprocess
from collections.abc import Callable, Iterator
from functools import partial

import torch

from benchmarks.generator import synthesis, with_threads
from benchmarks.measurement import Group, Ratio, Variant
from benchmarks.network_cache import PORTRAITS, NetworkCache
from benchmarks.timing import Call
from benchmarks.training import encoder_step

BUSY = ["sh", "-c", "while :; do :; done"]  # one core


def neighbour_groups(networks: NetworkCache, *, quick: bool) -> Iterator[Group]:
    """Compares a training step and a synthesis alone and beside a busy program."""
    if networks.device.type != "cpu":
        return
    threads = torch.get_num_threads()
    resolution = PORTRAITS if quick else 256
    works: dict[str, Callable[[], Call]] = {
        "synthesis": partial(synthesis, networks, resolution, 1),
    }
    if not quick:
        works["training step of the encoder"] = partial(encoder_step, networks, resolution)
    for name, prepare in works.items():
        variants: dict[str, Callable[[], Call]] = {
            "alone": prepare,
            "beside": partial(_beside, prepare),
        }
        ratios = [Ratio(["beside"], ["alone"])]
        if threads > 1:
            variants["one thread beside"] = partial(_beside, partial(_alone, prepare))
            ratios.append(Ratio(["beside"], ["one thread beside"]))
        yield Group(
            name=f"{name}, {resolution} px, {threads} threads",
            variants={key: Variant(prepare=way) for key, way in variants.items()},
            ratios=ratios,
            needs=0.0 if quick else 9.0,
        )


def _alone(prepare: Callable[[], Call]) -> Call:
    return with_threads(1, prepare())


def _beside(prepare: Callable[[], Call]) -> Call:
    call = prepare()

    def beside() -> None:
        program = subprocess.Popen(BUSY)
        try:
            call()
        finally:
            program.kill()
            program.wait()

    return beside
