"""Training of the portraits judges: an identity embedder and an attribute regressor.

The embedder learns with an additive angular margin over people (ArcFace, Deng et al. 2019), the
regressor from the labels of the renderer. Both are measured on people who are not trained on.
"""

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clcae.data.sampler import shuffled
from clcae.files import write_text
from clcae.frozen.portraits import AttributeRegressor, IdentityEmbedder
from clcae.losses.margin import AngularMargin
from clcae.metrics.verification import r2_score, roc_auc
from clcae.portraits import ATTRIBUTES, PortraitImages
from clcae.serialization import save
from training.task import Phase, StepContext, StepOutput, Task

BATCH = 128  # of validation


def jittered(
    images: Tensor,  # [N, 3, H, W]
    context: StepContext,
) -> Tensor:
    """Jitters contrast, brightness and noise, so that judges also read generated pictures."""
    rng, rows, count = context.generator("jitter 0"), context.rows, context.batch_size
    gain = 1.0 + 0.1 * torch.randn(count, 1, 1, 1, generator=rng)[rows]
    shift = 0.05 * torch.randn(count, 3, 1, 1, generator=rng)[rows]
    noise = 0.03 * torch.randn(count, *images.shape[1:], generator=rng)[rows]
    return (images * gain + shift + noise).clamp(-1.0, 1.0)


class JudgeTask(Task):
    """Base of both: batches of portraits, measurement on held-out people, export with a card."""

    name: str
    title: str

    def __init__(
        self,
        *,
        judge: nn.Module,
        images: PortraitImages,
        validation_images: PortraitImages,
        test_images: Mapping[str, PortraitImages] | None = None,  # by a name for the card
    ) -> None:
        self.judge = judge
        self.images = images
        self.validation_images = validation_images
        self.test_images = dict(test_images or {})

    @property
    def device(self) -> torch.device:
        return next(self.judge.parameters()).device

    def modules(self) -> Mapping[str, nn.Module]:
        return {"judge": self.judge}

    def load_batch(self, context: StepContext) -> tuple[Tensor, Tensor]:
        """Loads shuffled portraits [N, 3, H, W] and their indices [N]."""
        indices = shuffled(len(self.images), context.seed, context.samples)
        return jittered(self.images.images(indices), context).to(self.device), indices

    def outputs(self, source: PortraitImages) -> Tensor:
        """Computes the judge's output for every picture of a source."""
        parts = torch.arange(len(source)).split(BATCH)
        return torch.cat([self.judge(source.images(part).to(self.device)).cpu() for part in parts])

    @abstractmethod
    def measure(self, source: PortraitImages) -> dict[str, float]:
        """Computes the figures of the judge on the people of a source."""

    def validate(self) -> Mapping[str, float]:
        return self.measure(self.validation_images)

    def finish(self, folder: Path) -> Mapping[str, Any]:
        """Writes the judge as a native file, and its card."""
        figures = {"validation": dict(self.validate())}
        figures |= {name: self.measure(source) for name, source in self.test_images.items()}
        command = f"python train.py +experiment=portraits_{self.name}"
        path = folder / f"{self.name}.safetensors"
        save(self.judge, path, provenance={"command": command, **figures}, half=True)
        card = judge_card(path.name, title=self.title, command=command, figures=figures)
        write_text(folder / f"{self.name}.md", card)
        return {**figures, "file": path.name}


def judge_card(
    file: str, *, title: str, command: str, figures: Mapping[str, Mapping[str, float]]
) -> str:
    """Formats the Markdown card of a judge, a column for each set of held-out people."""
    sets = list(figures)
    lines = [f"| figure | {' | '.join(sets)} |", f"| --- |{' ---: |' * len(sets)}"]
    for name in figures[sets[0]]:
        values = " | ".join(f"{figures[key][name]:.4f}" for key in sets)
        lines.append(f"| {name} | {values} |")
    table = "\n".join(lines)
    return f"""# {file}

{title} Made by `{command}`; weights are stored in float16, the figures are of the float32 weights
before. No person of a column below is in training; "details" is the probability of each detail.

{table}
"""


class IdentityTask(JudgeTask):
    """Trains the embedder to tell people apart, under an angular margin."""

    name = "identity"
    title = "The identity embedder of the portraits domain (angular margin over 2,048 people)."
    monitor = ("auc", "max")

    def __init__(
        self,
        *,
        judge: IdentityEmbedder,
        images: PortraitImages,  # several pictures of every person
        validation_images: PortraitImages,
        test_images: Mapping[str, PortraitImages] | None = None,
        scale: float = 24.0,  # s of ArcFace is 64 for 512 dimensions and millions of faces
        margin: float = 0.3,
    ) -> None:
        super().__init__(
            judge=judge,
            images=images,
            validation_images=validation_images,
            test_images=test_images,
        )
        self.margin = AngularMargin(
            embedding_dim=judge.embedding_dim,
            num_people=images.num_people,
            scale=scale,
            margin=margin,
        )

    def parameters(self) -> Mapping[str, Iterable[nn.Parameter]]:
        """One optimizer for the embedder and the centres of the people."""
        return {"judge": [*self.judge.parameters(), *self.margin.parameters()]}

    def modules(self) -> Mapping[str, nn.Module]:
        return {"judge": self.judge, "margin": self.margin}

    def loss(self, phase: Phase, batch: tuple[Tensor, Tensor], context: StepContext) -> StepOutput:
        images, indices = batch
        people = self.images.people(indices).to(images.device)
        loss = self.margin(self.judge(images).float(), people)
        return StepOutput(loss=loss, terms={"margin": loss})

    def measure(self, source: PortraitImages) -> dict[str, float]:
        """Computes the AUC of verification over all pairs of pictures."""
        embeddings = self.outputs(source)
        people = source.people(torch.arange(len(embeddings)))
        rows, columns = torch.triu_indices(len(people), len(people), offset=1)
        same = people[rows] == people[columns]
        scores = (embeddings @ embeddings.T)[rows, columns]
        return {"auc": roc_auc(scores, same)}


class AttributesTask(JudgeTask):
    """Trains the regressor: regression of attributes, classification of glasses."""

    name = "attributes"
    title = "The attribute regressor of the portraits domain."
    monitor = ("r2_lowest", "max")

    judge: AttributeRegressor

    def loss(self, phase: Phase, batch: tuple[Tensor, Tensor], context: StepContext) -> StepOutput:
        """Computes the squared error of continuous labels, the cross-entropy of binary ones."""
        images, indices = batch
        labels = self.images.attributes(indices).to(images.device)
        scores = self.judge.raw(self.judge.trunk(images)[-1]).float()
        binary = list(self.judge.binary)
        continuous = [column for column in range(len(ATTRIBUTES)) if column not in binary]
        squared = F.mse_loss(scores[:, continuous], labels[:, continuous])
        crossed = F.binary_cross_entropy_with_logits(scores[:, binary], labels[:, binary])
        return StepOutput(
            loss=squared + 0.2 * crossed, terms={"squared": squared, "crossed": crossed}
        )

    def measure(self, source: PortraitImages) -> dict[str, float]:
        """Computes the R2 of every continuous attribute, the AUC of every binary one."""
        outputs = self.outputs(source)
        labels = source.attributes(torch.arange(len(outputs)))
        explained = r2_score(outputs, labels)
        values = {}
        for column, name in enumerate(ATTRIBUTES):
            if column in self.judge.binary:
                values[f"auc_{name}"] = float(roc_auc(outputs[:, column], labels[:, column].int()))
            else:
                values[f"r2_{name}"] = float(explained[column])
        lowest = min(values[f"r2_{name}"] for name in ("smile", "yaw", "age"))
        return {**values, "r2_lowest": lowest}
