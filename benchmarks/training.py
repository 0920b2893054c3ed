"""Groups of training: one step of each stage, ours and written plainly.

The aligner's step draws its pairs from the generator, ours or the textbook's. The encoder's step
(CLCAE section 3.3) has two images and the squared error of the three pictures alone: ours as the
trainer takes it, against three whole syntheses with gradients of the generator's weights. Both ways
share networks and images. The optimizer is the plainest: Ranger would add the same time and three
numbers a parameter to both.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from benchmarks.measurement import Group, Ratio, Variant
from benchmarks.network_cache import PORTRAITS, NetworkCache
from benchmarks.timing import Call
from benchmarks.yardstick.training_step import PlainStep
from clcae.data.sources import TensorImages
from clcae.images import to_uint8
from clcae.stylegan2 import Generator, NoiseMode
from training.iteration import Iteration
from training.task import Task
from training.tasks.aligner import AlignerTask
from training.tasks.clcae import CLCAETask

BATCH = 2  # images
LR = 1e-6  # so small that many steps leave the network as it is
NEEDS = {PORTRAITS: 1.0, 256: 9.0, 1024: 20.0}  # GiB, by the resolution of the generator
WEIGHTS = {"l2": 1.0, "perceptual": 0.0, "identity": 0.0, "feature": 0.0}


class NoJudges:
    """Stub of the judges, whose terms have no weight here: all zeros."""

    identity_name = distance_name = "none"
    identity_trunk = None

    def features(self, images: Tensor) -> list[Tensor]:
        """Returns zeros [N, 1]."""
        return [images.new_zeros(len(images), 1)]

    def embed(self, features: Sequence[Tensor]) -> Tensor:
        """Returns zeros [N, 1]."""
        return features[0]

    def distance(self, features: Sequence[Tensor], others: Sequence[Tensor]) -> Tensor:
        """Returns zeros [N]."""
        return features[0][:, 0]


def training_groups(networks: NetworkCache, *, quick: bool) -> Iterator[Group]:
    """Measures a step of the aligner and one of the encoder, with generators of 64 and 256."""
    for resolution in (PORTRAITS,) if quick else (PORTRAITS, 256):
        yield from _groups(networks, resolution)


def large_training_groups(networks: NetworkCache, *, quick: bool) -> Iterator[Group]:
    """Measures the same with a generator of 1024, in minutes and 20 GiB; with quick, of 256."""
    yield from _groups(networks, 256 if quick else 1024)


def _groups(networks: NetworkCache, resolution: int) -> Iterator[Group]:
    time = Ratio(["clcae"], ["textbook"])
    memory = [Ratio(["clcae"], ["textbook"], "peak memory")]
    memory += [Ratio(["clcae"], ["textbook"], "peak memory in all")]

    def variants(ours: Callable[..., Call], textbook: Callable[..., Call]) -> dict[str, Variant]:
        ways = {"clcae": ours, "textbook": textbook}
        return {
            name: Variant(prepare=partial(way, networks, resolution), images=BATCH)
            for name, way in ways.items()
        }

    networks.clear()  # those of the group before are as large
    yield Group(
        name=f"aligner, {resolution} px, batch {BATCH}",
        variants=variants(aligner_step, textbook_aligner_step),
        ratios=[time],
        needs=NEEDS[resolution],
    )
    yield Group(
        name=f"CLCAE, {resolution} px, L2 alone, batch {BATCH}",
        variants=variants(encoder_step, textbook_encoder_step),
        ratios=[time, *memory],
        peaks=["clcae", "textbook"],
        needs=NEEDS[resolution],
    )


def aligner_step(
    networks: NetworkCache, resolution: int, generator: Generator | None = None
) -> Call:
    """Makes the trainer's step of stage 1; `generator` draws the pairs, by default ours."""
    aligner = networks.aligner(resolution)
    generator = generator or networks.generator(resolution)
    task = AlignerTask(aligner=aligner, generator=generator, start="random")
    optimizer = torch.optim.SGD(aligner.parameters(), lr=LR)
    return _iteration(task, "aligner", optimizer, networks.device)


def textbook_aligner_step(networks: NetworkCache, resolution: int) -> Call:
    """Makes the step of stage 1 with pairs of our mapping and the textbook's synthesis."""
    textbook = networks.textbook(resolution)
    generator = copy.copy(networks.generator(resolution))

    def synthesize(codes: Tensor, *, noise: NoiseMode = "const") -> Tensor:
        pictures: Tensor = textbook(codes, noise=noise)
        return pictures

    generator.synthesize = synthesize  # type: ignore[method-assign, assignment]
    return aligner_step(networks, resolution, generator)


def encoder_step(networks: NetworkCache, resolution: int) -> Call:
    """Makes the trainer's step of stage 2."""
    images = TensorImages(pixels=to_uint8(networks.images(resolution, BATCH).cpu()))
    task = CLCAETask(
        method=networks.method(resolution),
        images=images,
        validation_images=images,
        judges=NoJudges(),
        weights=WEIGHTS,
        start="random",
    )
    return _iteration(task, "encoder", _encoder_optimizer(networks, resolution), networks.device)


def textbook_encoder_step(networks: NetworkCache, resolution: int) -> Call:
    """Makes the step of stage 2 as three whole syntheses."""
    step = PlainStep(
        method=networks.method(resolution),
        textbook=networks.textbook(resolution),
        optimizer=_encoder_optimizer(networks, resolution),
    )
    images = networks.images(resolution, BATCH)
    return lambda: step.run(images)


def _encoder_optimizer(networks: NetworkCache, resolution: int) -> torch.optim.Optimizer:
    modules = networks.method(resolution).encoder_modules()
    return torch.optim.SGD([p for module in modules.values() for p in module.parameters()], lr=LR)


def _iteration(
    task: Task, name: str, optimizer: torch.optim.Optimizer, device: torch.device
) -> Call:
    task.prepare()
    iteration = Iteration(
        task=task,
        optimizers={next(iter(task.parameters())): optimizer},
        stage=name,
        device=device,
        seed=0,
        total_steps=1000,
        batch_size=BATCH,
        accumulate=1,
        precision="float32",
        clip_norm=None,
    )
    return lambda: iteration.run(0)
