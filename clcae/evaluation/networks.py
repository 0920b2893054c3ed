"""Networks that judge pictures, by the names that protocols call them.

A network is loaded once, whatever number of metrics asks for it, and computes once for the same
pictures. Weights that are not there are named with where to get them, so that the other metrics go
on; nothing is downloaded.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from clcae.faces import mtcnn_detector
from clcae.frozen.face_embedders import FaceEmbedder
from clcae.frozen.inception import FaceNet, TFInception, TorchvisionInception
from clcae.metrics.identity import DetectedFaceEmbedder, FaceCrop, box_crop, landmark_crop
from clcae.pretrained.assets import portraits_judges
from clcae.pretrained.frozen import (
    load_arcface,
    load_curricularface,
    load_facenet,
    load_lpips,
    load_tf_inception,
    load_torchvision_inception,
)

Images = Tensor  # [N, 3, H, W], in [-1, 1]
WeightPath = str | Path | None

PORTRAITS_SIDE = 64
_FETCH = {  # official files without an address of their own
    "curricularface": "HyperStyle's repository (github.com/yuval-alaluf/hyperstyle)",
    "arcface": "e4e's repository (github.com/omertov/encoder4editing)",
}


class Cached:
    """Caches the last answers of a network, so that several metrics share one pass.

    FID, KID, precision and recall read the same features of the same images, and the targets of one
    method are those of the next space. Images are compared value by value, so that copies are
    recognised and images changed in place are not mistaken.

    Args:
        function: images [N, 3, H, W] to an answer, which is not to be written to; it must give the
            same for the same.
        kept: number of batches that are cached: one of outputs and one of targets.
    """

    def __init__(self, function: Callable[[Images], Any], *, kept: int = 2) -> None:
        self.function = function
        self.kept = kept
        self._answers: list[tuple[Tensor, Any]] = []  # the latest last

    def __call__(self, images: Images) -> Any:
        """Returns the function's answer, computed or cached."""
        for place, (known, answer) in enumerate(self._answers):
            if _equal(known, images):
                self._answers.append(self._answers.pop(place))
                return answer
        answer = self.function(images)
        self._answers = [*self._answers, (images.detach().clone(), answer)][-self.kept :]
        return answer


class MissingNetworkError(ValueError):
    """A network that cannot be loaded; the message says what to fetch and where to put it."""


@dataclass(frozen=True)
class Answer:
    """One question that a network answers.

    Args:
        function: the answer. "distance" maps two batches of images to distances [N]; "embed"
            images to embeddings [N, D] of whom they show, NaN where nobody is found; "pooled"
            images to features [N, `dimension`] of a set's distribution; "attributes" images to
            judged attributes [N, A].
        dimension: length of the features.
    """

    function: Callable[..., Tensor]
    dimension: int = 0


@dataclass(frozen=True)
class JudgingNetwork:
    """A loaded network and the questions that it answers."""

    module: nn.Module
    answers: Mapping[str, Answer]  # by question
    details: str = ""  # what a row says of it besides its name


@dataclass(frozen=True)
class NetworkKind:
    """How a network is loaded, and its name in rows for each question that it answers."""

    load: Callable[[WeightPath, torch.device], JudgingNetwork]
    words: Mapping[str, str]  # "distance", "embed", "pooled", "attributes" -> name in rows


@dataclass
class Networks:
    """Loads the networks of an evaluation, each when it is first asked for.

    `paths` are files of weights by network; None, or no entry, is where one is customarily found.
    """

    paths: Mapping[str, WeightPath]
    device: torch.device
    loaded: dict[str, JudgingNetwork] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)  # name -> why

    def get(self, name: str) -> JudgingNetwork:
        """Returns a network.

        Raises:
            MissingNetworkError: if it cannot be loaded, in one line.
            ValueError: if there is none of this name.
        """
        if name not in NETWORKS:
            raise ValueError(f"network is {name!r}: expected one of {', '.join(NETWORKS)}")
        if name in self.missing:
            raise MissingNetworkError(self.missing[name])
        if name not in self.loaded:
            try:
                network = NETWORKS[name].load(self.paths.get(name), self.device)
            except (OSError, ValueError, ImportError) as error:
                text = " ".join(str(error).split())
                if isinstance(error, FileNotFoundError):
                    if name in _FETCH:
                        text += f": get it where {_FETCH[name]} links it and put it there, or name"
                        text += " its path"
                    text += f", weights.{name}=FILE"
                self.missing[name] = text
                raise MissingNetworkError(self.missing[name]) from error
            self.loaded[name] = network
        return self.loaded[name]


def _equal(first: Tensor, second: Tensor) -> bool:
    return (
        first.shape == second.shape
        and first.dtype == second.dtype
        and first.device == second.device
        and torch.equal(first, second)
    )


def _lpips(classifier: str) -> Callable[[WeightPath, torch.device], JudgingNetwork]:
    def load(path: WeightPath, device: torch.device) -> JudgingNetwork:
        network = load_lpips(path, classifier="vgg" if classifier == "vgg" else "alex").to(device)
        features = Cached(network.features)
        distance = Answer(lambda x, y: network.distance(features(x), features(y)))
        return JudgingNetwork(network, {"distance": distance})

    return load


def _detected(
    load: Callable[[WeightPath], FaceEmbedder | FaceNet], crop: FaceCrop
) -> Callable[[WeightPath, torch.device], JudgingNetwork]:
    def loaded(path: WeightPath, device: torch.device) -> JudgingNetwork:
        network = load(path).to(device)
        embedder = DetectedFaceEmbedder(
            detector=mtcnn_detector(device=device),
            network=network,
            dimension=network.embedding_dim,
            crop=crop,
            name=type(network).__name__,
        )
        return JudgingNetwork(network, {"embed": Answer(Cached(embedder))})

    return loaded


def _inception(
    load: Callable[[WeightPath], TFInception | TorchvisionInception],
) -> Callable[[WeightPath, torch.device], JudgingNetwork]:
    def loaded(path: WeightPath, device: torch.device) -> JudgingNetwork:
        network = load(path).to(device)
        pooled = Answer(Cached(network), network.dimension)
        return JudgingNetwork(network, {"pooled": pooled}, network.name)

    return loaded


def _portraits(path: WeightPath, device: torch.device) -> JudgingNetwork:
    judges = portraits_judges().to(device)

    def features_of(images: Images) -> list[Tensor]:
        _check_portraits(images)
        return judges.features(images)

    def attributes(images: Images) -> Tensor:
        _check_portraits(images)
        return judges.attributes(images)

    features = Cached(features_of)
    last = len(judges.identity.trunk.channels) - 1
    answers = {
        "distance": Answer(lambda x, y: judges.distance(features(x), features(y))),
        "embed": Answer(lambda images: judges.embed(features(images))),
        "pooled": Answer(  # judges.pooled, cached
            lambda images: features(images)[last].mean(dim=(2, 3)), judges.pooled_dim
        ),
        "attributes": Answer(Cached(attributes)),
    }
    return JudgingNetwork(judges, answers)


def _check_portraits(images: Images) -> None:
    if tuple(images.shape[-2:]) != (PORTRAITS_SIDE, PORTRAITS_SIDE):
        raise ValueError(
            f"pictures are {images.shape[-2]} x {images.shape[-1]}: the portraits' judges read "
            f"{PORTRAITS_SIDE} x {PORTRAITS_SIDE}; choose another protocol (protocol=clcae)"
        )


def _given(path: WeightPath) -> str | Path:
    if path is None:
        raise FileNotFoundError("no file of its weights is named (weights.NETWORK=FILE)")
    return path


NETWORKS: Mapping[str, NetworkKind] = {
    "lpips_alex": NetworkKind(_lpips("alex"), {"distance": "LPIPS v0.1 (alex)"}),
    "lpips_vgg": NetworkKind(_lpips("vgg"), {"distance": "LPIPS v0.1 (vgg)"}),
    "curricularface": NetworkKind(
        _detected(lambda path: load_curricularface(_given(path)), landmark_crop),
        {"embed": "CurricularFace IR-101, MTCNN alignment to 112"},
    ),
    "arcface": NetworkKind(
        _detected(lambda path: load_arcface(_given(path)), landmark_crop),
        {"embed": "ArcFace IR-SE50, MTCNN alignment to 112"},
    ),
    "facenet": NetworkKind(
        _detected(load_facenet, box_crop),
        {"embed": "InceptionResnetV1 (VGGFace2), MTCNN box to 160"},
    ),
    "inception": NetworkKind(
        _inception(load_tf_inception), {"pooled": "Inception-v3, the weights of FID"}
    ),
    "torchvision_inception": NetworkKind(
        _inception(load_torchvision_inception), {"pooled": "Inception-v3, torchvision's weights"}
    ),
    "portraits": NetworkKind(
        _portraits,
        {
            "distance": "features of the portraits judges",
            "embed": "portraits identity embedder",
            "pooled": "portraits identity embedder, mean of the last feature, 96",
            "attributes": "portraits attribute regressor",
        },
    ),
}
