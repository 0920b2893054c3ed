"""Groups beside another program: what steps and a synthesis take while it keeps a core busy.

OpenMP's threads meet at the end of every operation. One that waits spins at first, which is fastest
on a quiet machine; beside another program it takes time from the thread that it waits for. Commands
bound the spinning (`clcae.command.begin`); a variant of one thread says what waiting costs.
Trainings follow the load as well (`clcae.openmp.LoadFollower`): their steps are measured with one
thread, with all, and with as many as it finds room for, alone and beside the program. The follower
goes on from call to call, as in a training; what it learns first is in the untimed round.
"""

import subprocess
from collections.abc import Callable, Iterator
from functools import partial

import torch

from benchmarks.generator import synthesis, with_threads
from benchmarks.measurement import Group, Ratio, Variant
from benchmarks.network_cache import PORTRAITS, NetworkCache
from benchmarks.timing import Call
from benchmarks.training import aligner_step, encoder_step
from clcae.openmp import LoadFollower

BUSY = ["sh", "-c", "while :; do :; done"]  # one core
STEPS, QUICK_STEPS = 5, 2  # of a training, in one call


def neighbour_groups(networks: NetworkCache, *, quick: bool) -> Iterator[Group]:
    """Compares a synthesis and steps of trainings alone and beside a busy program."""
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
    if threads > 1:
        for name, step in {"aligner": aligner_step, "encoder": encoder_step}.items():
            for place in ("alone", "beside"):
                prepare = partial(step, networks, PORTRAITS)
                yield _training_group(name, place, prepare, QUICK_STEPS if quick else STEPS)


def _training_group(name: str, place: str, prepare: Callable[[], Call], count: int) -> Group:
    """Compares steps by their threads: one, all, and as many as the load leaves room for."""
    every = f"{torch.get_num_threads()} threads"
    steps = partial(_steps, prepare, count)
    ways = {
        "one thread": partial(_alone, steps),
        every: steps,
        "threads by load": partial(_by_load, prepare, count),
    }
    if place == "beside":
        ways = {key: partial(_beside, way) for key, way in ways.items()}
    return Group(
        name=f"{count} training steps of the {name} {place}, {PORTRAITS} px, {every}",
        variants={key: Variant(prepare=way) for key, way in ways.items()},
        ratios=[
            Ratio(["threads by load"], ["one thread"]),
            Ratio(["threads by load"], [every]),
            Ratio([every], ["one thread"]),
        ],
    )


def _steps(prepare: Callable[[], Call], count: int) -> Call:
    step = prepare()

    def steps() -> None:
        for _ in range(count):
            step()

    return steps


def _by_load(prepare: Callable[[], Call], count: int) -> Call:
    """Makes steps as a training does, which looks at the load before each of them."""
    step, most = prepare(), torch.get_num_threads()
    follower = LoadFollower(most=most, set_threads=torch.set_num_threads)

    def followed() -> None:
        torch.set_num_threads(follower.threads)
        try:
            for _ in range(count):
                follower.follow()
                step()
        finally:
            torch.set_num_threads(most)

    return followed


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
