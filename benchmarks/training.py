"""Cases of `scripts/benchmark.py`: one training step of each stage, ours and written plainly.

The aligner's step with its pairs drawn from the generator, ours or the textbook's. The encoder's
step (CLCAE section 3.3) on two images with the squared error of the three pictures alone: ours as
the trainer takes it, against three whole syntheses with gradients of the generator's weights. Both
ways share encoder, optimizer and images, so that they differ in what is measured. The optimizer
is the plainest: Ranger would add the same time and three numbers a parameter to both.
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from types import ModuleType

import torch
from torch import Tensor

from benchmarks.case import Case, Ratio, Variant
from benchmarks.networks import IMAGE_SIZE, PORTRAITS, Networks
from benchmarks.timing import Call
from clcae.aligner import Aligner
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
    """Judges that look at nothing, where their terms weigh nothing."""

    identity_name = distance_name = "none"

    def features(self, images: Tensor) -> list[Tensor]:
        """[N, 1] for each picture."""
        return [images.new_zeros(len(images), 1)]

    def embed(self, features: Sequence[Tensor]) -> Tensor:
        """Zeros [N, 1]."""
        return features[0]

    def distance(self, features: Sequence[Tensor], others: Sequence[Tensor]) -> Tensor:
        """Zeros [N]."""
        return features[0][:, 0]

    def embed_images(self, images: Tensor) -> Tensor:
        """Zeros [N, 1]."""
        return self.features(images)[0]

    def distance_of_images(self, images: Tensor, others: Tensor) -> Tensor:
        """Zeros [N]."""
        return self.embed_images(images)[:, 0]


def training_cases(
    networks: Networks,
    *,
    quick: bool,
    plain_step: ModuleType | None,  # the yardstick's; None: not there
) -> Iterator[Case]:
    """A step of the aligner, then of the encoder, with the portraits' and a 256 generator."""
    for resolution in (PORTRAITS,) if quick else (PORTRAITS, 256):
        yield from _both(networks, resolution, plain_step)


def large_training_cases(
    networks: Networks, *, quick: bool, plain_step: ModuleType | None
) -> Iterator[Case]:
    """The same with a 1024 generator, which takes minutes and 20 GiB; never in a hurry."""
    yield from _both(networks, 256 if quick else 1024, plain_step)


def _both(networks: Networks, resolution: int, plain_step: ModuleType | None) -> Iterator[Case]:
    networks.clear()  # of the case before, which is as large
    needs = NEEDS[resolution]
    yield _case(f"aligner, {resolution} px", _AlignerStep(networks, resolution), needs, [])
    step = _EncoderStep(networks, resolution, plain_step)
    yield _case(f"CLCAE, {resolution} px, L2 alone", step, needs, ["clcae", "textbook"])


def _case(name: str, step: "_Step", needs: float, peaks: Sequence[str]) -> Case:
    ways: dict[str, Callable[[], Call]] = {"clcae": step.ours}
    ratios = []
    if step.has_plain:
        ways["textbook"] = step.plain
        ratios = [Ratio(["clcae"], ["textbook"])]
        if peaks:
            ratios.append(Ratio(["clcae"], ["textbook"], "peak memory"))
            ratios.append(Ratio(["clcae"], ["textbook"], "peak memory in all"))
    return Case(
        name=f"{name}, batch {BATCH}",
        variants={way: Variant(prepare=prepare, images=BATCH) for way, prepare in ways.items()},
        ratios=ratios,
        peaks=[name for name in peaks if name in ways],
        needs=needs,
    )


class _Step(ABC):
    """A step of a stage in two ways, around one network and its optimizer."""

    has_plain: bool

    @property
    @abstractmethod
    def optimizer(self) -> torch.optim.Optimizer:
        """Of what is trained, built once."""

    @abstractmethod
    def ours(self) -> Call:
        """The trainer's step."""

    @abstractmethod
    def plain(self) -> Call:
        """The textbook's."""


class _AlignerStep(_Step):
    """Stage 1."""

    def __init__(self, networks: Networks, resolution: int) -> None:
        self.networks, self.resolution = networks, resolution
        self.has_plain = networks.textbook is not None

    @cached_property
    def aligner(self) -> Aligner:
        generator = self.networks.generator(self.resolution)
        if self.resolution == PORTRAITS:  # configs/aligner/portraits.yaml
            aligner = Aligner(
                image_size=PORTRAITS,
                w_dim=generator.w_dim,
                dim=128,
                stem_channels=24,
                stages=[[48, 1], [72, 2], [96, 2]],
                stem_stride=2,
                subtract_average=False,
            )
        else:  # configs/aligner/ffhq.yaml
            aligner = Aligner(image_size=IMAGE_SIZE, w_dim=generator.w_dim)
        return aligner.to(self.networks.device)

    @cached_property
    def optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.aligner.parameters(), lr=LR)

    def ours(self) -> Call:
        return self._step(self.networks.generator(self.resolution))

    def plain(self) -> Call:
        """Pairs from the textbook's synthesis, by our mapping."""
        plain = self.networks.plain_synthesis(self.resolution)
        generator = copy.copy(self.networks.generator(self.resolution))

        def synthesize(codes: Tensor, *, noise: NoiseMode = "const") -> Tensor:
            pictures: Tensor = plain(codes, noise=noise)
            return pictures

        generator.synthesize = synthesize  # type: ignore[method-assign, assignment]
        return self._step(generator)

    def _step(self, generator: Generator) -> Call:
        task = AlignerTask(aligner=self.aligner, generator=generator, start="random")
        return _iteration(task, "aligner", self.optimizer, self.networks.device)


class _EncoderStep(_Step):
    """Stage 2."""

    def __init__(self, networks: Networks, resolution: int, plain_step: ModuleType | None) -> None:
        self.networks, self.resolution, self.plain_step = networks, resolution, plain_step
        self.has_plain = plain_step is not None and networks.textbook is not None

    @cached_property
    def optimizer(self) -> torch.optim.Optimizer:
        modules = self.networks.method(self.resolution).encoder_modules()
        parameters = [each for module in modules.values() for each in module.parameters()]
        return torch.optim.SGD(parameters, lr=LR)

    def ours(self) -> Call:
        images = TensorImages(pixels=to_uint8(self._images().cpu()))
        task = CLCAETask(
            method=self.networks.method(self.resolution),
            images=images,
            validation_images=images,
            judges=NoJudges(),
            weights=WEIGHTS,
            start="random",
        )
        return _iteration(task, "encoder", self.optimizer, self.networks.device)

    def plain(self) -> Call:
        assert self.plain_step is not None
        step = self.plain_step.PlainStep(
            method=self.networks.method(self.resolution),
            textbook=self.networks.plain_synthesis(self.resolution),
            optimizer=self.optimizer,
        )
        images = self._images()
        return lambda: step.run(images)

    def _images(self) -> Tensor:
        return self.networks.images(self.resolution, BATCH)


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
    )
    return lambda: iteration.run(0)
