"""Identity of detected faces, on the one photograph at hand and with MTCNN's own weights."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from facenet_pytorch.models.utils.detect_face import extract_face
from scipy.spatial.distance import cosine
from skimage import data
from torch import Tensor

from clcae.faces import Detector, Face, mtcnn_detector, recognition_crop
from clcae.frozen.face_embedders import FaceEmbedder
from clcae.metrics.identity import (
    DetectedFaceEmbedder,
    IdentitySimilarity,
    box_crop,
    cosine_similarity,
    landmark_crop,
)


@pytest.fixture(scope="module")
def photograph() -> Tensor:
    return torch.from_numpy(data.astronaut()[:320, 60:380].copy()).permute(2, 0, 1) / 127.5 - 1


@pytest.fixture(scope="module")
def detector() -> Detector:
    return mtcnn_detector()


@pytest.fixture(scope="module")
def face(photograph: Tensor, detector: Detector) -> Face:
    [face] = detector.detect(photograph)
    return face


def embedder(detector: Detector) -> DetectedFaceEmbedder:
    torch.manual_seed(0)
    network = FaceEmbedder(size=112, stem_channels=4, stages=[[6, 1], [8, 1]], embedding_dim=16)
    return DetectedFaceEmbedder(
        detector=detector,
        network=network.eval(),
        dimension=16,
        crop=landmark_crop,
        name="small embedder on MTCNN 112 crops",
    )


def test_embeds_the_crop_of_the_face_that_is_found(
    photograph: Tensor, detector: Detector, face: Face
) -> None:
    judge = embedder(detector)
    empty = torch.zeros_like(photograph)
    embeddings = judge(torch.stack([photograph, empty, photograph.flip(-1)]))
    assert embeddings.isnan().all(dim=1).tolist() == [False, True, False]
    with torch.no_grad():
        expected = judge.network(recognition_crop(photograph, face.landmarks)[None])[0]
    torch.testing.assert_close(embeddings[0], expected, rtol=1e-4, atol=1e-5)


def test_pictures_without_a_face_are_skipped_and_told(
    photograph: Tensor, detector: Detector
) -> None:
    blurred = F.avg_pool2d(photograph[None], 5, stride=1, padding=2)[0]
    empty = torch.zeros_like(photograph)
    judge = embedder(detector)
    metric = IdentitySimilarity(embedder=judge, embedder_name=judge.name)
    outputs = torch.stack([photograph, empty, blurred, photograph])
    targets = torch.stack([photograph, photograph, photograph, empty])
    assert metric.update(outputs, targets).tolist() == [True, False, True, False]
    assert metric.num_counted == 2
    assert metric.values(outputs[:1], targets[:1]).item() == pytest.approx(1, abs=1e-6)
    assert metric.protocol["network"].endswith("MTCNN 112 crops")
    # A batch in which no picture has a face is no error either.
    assert metric.update(empty[None], photograph[None]).tolist() == [False]


def test_the_largest_face_counts(photograph: Tensor, detector: Detector) -> None:
    small = F.interpolate(photograph[None], size=(160, 160), mode="bilinear", antialias=True)[0]
    beside = torch.full((3, 320, 160), -1.0)
    beside[:, 80:240] = small
    both = torch.cat([beside, photograph], dim=2)
    assert len(detector.detect(both)) == 2
    embeddings = embedder(detector)(torch.stack([both]))
    alone = embedder(detector)(torch.stack([photograph]))
    assert float(F.cosine_similarity(embeddings, alone)) > 0.98


def test_box_crop_is_facenets(photograph: Tensor, face: Face) -> None:
    pixels = ((photograph + 1) * 127.5).permute(1, 2, 0)
    expected = extract_face(pixels, face.box.numpy(), image_size=160)  # truncated to whole levels
    ours = (box_crop(photograph, face) + 1) * 127.5
    assert ours.shape == (3, 160, 160)
    assert float((ours - expected).abs().max()) <= 1.001


def test_refusals(photograph: Tensor, detector: Detector) -> None:
    judge = embedder(detector)
    with pytest.raises(ValueError, match="without NaN"):
        judge(photograph[None] * torch.nan)
    with pytest.raises(ValueError, match=r"expected \[-1, 1\]"):
        judge(photograph[None] * 127)
    metric = IdentitySimilarity(embedder=lambda images: images.flatten(1), embedder_name="pixels")
    with pytest.raises(ValueError, match=r"expected \[-1, 1\]"):
        metric.update(photograph[None] * 127, photograph[None])
    judge.network = lambda faces: torch.full((len(faces), 16), torch.nan)
    with pytest.raises(ValueError, match=r"gave \(1, 16\) for 1 faces: expected finite"):
        judge(photograph[None])


def pixels(images: Tensor) -> Tensor:
    """Pixel embedding that finds no face in black images."""
    embeddings = images.flatten(1) + 0.3
    return torch.where((images == -1).all(dim=(1, 2, 3))[:, None], torch.nan, embeddings)


def identity() -> IdentitySimilarity:
    return IdentitySimilarity(embedder=pixels, embedder_name="pixels")


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def test_cosine_agrees_with_scipy() -> None:
    first, second = torch.randn(2, 5, 16).unbind()
    expected = [1 - cosine(a, b) for a, b in zip(first.double(), second.double(), strict=True)]
    np.testing.assert_allclose(cosine_similarity(first, second * 8), expected, rtol=1e-9)
    assert cosine_similarity(first, first).max() <= 1


def test_embedding_without_direction_is_nan() -> None:
    first = torch.tensor([[0.0, 0.0], [1.0, torch.nan], [1e-20, 0.0]])
    assert cosine_similarity(first, torch.ones(3, 2)).isnan().tolist() == [True, True, False]
    with pytest.raises(ValueError, match=r"expected one \[N, D\]"):
        cosine_similarity(first, torch.ones(3, 4))


def test_images_without_a_face_do_not_count_and_are_told() -> None:
    images = torch.rand(4, 3, 4, 4)
    targets = images.clone()
    targets[2] = -1
    metric = identity()
    assert metric.update(images, targets).tolist() == [True, True, False, True]
    assert metric.num_counted == 3
    assert metric.compute() == pytest.approx(1)


def test_identity_merge_equals_whole() -> None:
    outputs, targets = torch.rand(2, 7, 3, 4, 4).unbind()
    outputs[3] = -1
    whole, first, second = identity(), identity(), identity()
    whole.update(outputs, targets)
    first.update(outputs[:4], targets[:4])
    second.update(outputs[4:], targets[4:])
    first.merge_state(second.state())
    assert first.num_counted == whole.num_counted == 6
    assert first.compute() == pytest.approx(whole.compute(), rel=1e-12)
