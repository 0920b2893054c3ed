"""scikit-image's astronaut, the one photograph of a person there is, and the detector."""

import pytest
import torch
from skimage.data import astronaut
from torch import Tensor

from clcae.faces import Face, MTCNNDetector, choose, mtcnn_detector
from clcae.images import from_uint8


@pytest.fixture(scope="session")
def photo() -> Tensor:
    return from_uint8(torch.from_numpy(astronaut())).permute(2, 0, 1).contiguous()


@pytest.fixture(scope="session")
def detector() -> MTCNNDetector:
    return mtcnn_detector()


@pytest.fixture(scope="session")
def face(photo: Tensor, detector: MTCNNDetector) -> Face:
    return choose(detector.detect(photo), "largest")[0]
