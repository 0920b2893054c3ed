"""The judging networks in their official layouts, against the outputs of the official modules."""

from collections.abc import Callable
from pathlib import Path

import goldens
import numpy as np
import official
import pytest
import torch
from torch import Tensor

from clcae.frozen.face_embedders import FaceEmbedder, training_crop
from clcae.frozen.moco import MoCo
from clcae.pretrained import frozen

ArcFaceOrMoCo = FaceEmbedder | MoCo
LAYOUTS = ["arcface_irse50", "moco_v2"]
TOLERANCE = {"arcface_irse50": 5e-5, "moco_v2": 1e-5}  # tests/fixtures/README.md
LOSS_TOLERANCE = {"arcface_irse50": 5e-5, "moco_v2": 1e-2}


def state_of(name: str) -> dict[str, Tensor]:
    return goldens.state(name, "state_dict" if name == "moco_v2" else None)


@pytest.fixture(scope="module")
def arcface() -> FaceEmbedder:
    return frozen.arcface_from_state(state_of("arcface_irse50"))


@pytest.fixture(scope="module")
def moco() -> MoCo:
    return frozen.moco_from_state(state_of("moco_v2"))


@pytest.fixture(params=LAYOUTS)
def layout(request: pytest.FixtureRequest) -> tuple[str, ArcFaceOrMoCo]:
    fixture = {"arcface_irse50": "arcface", "moco_v2": "moco"}[request.param]
    return request.param, request.getfixturevalue(fixture)


def textured(golden: goldens.Golden) -> Tensor:
    images, seed = golden.images(), golden.meta["seed"]
    noise = official.latent("noise", list(images.shape), seed)
    return (0.5 * images + 0.3 * noise).clamp(-1, 1)


def given(golden: goldens.Golden, name: str) -> Tensor:
    entry = golden.meta[name]
    return official.image(*entry["size"], seed=entry["seed"])


def distance(embedder: ArcFaceOrMoCo, images: Tensor, targets: Tensor) -> Tensor:
    cosine = (embedder.embed_images(images) * embedder.embed_images(targets)).sum(dim=1)
    return (1 - cosine).mean()


def test_embeddings_and_losses(layout: tuple[str, ArcFaceOrMoCo]) -> None:
    name, embedder = layout
    golden = goldens.Golden(name, TOLERANCE[name])
    images, cars = golden.images(), given(golden, "image_cars")
    golden.check("embedding", embedder.embed_images(images))
    golden.check("embedding_cars", embedder.embed_images(cars))
    golden.check("embedding_textured", embedder.embed_images(textured(golden)))
    bound = LOSS_TOLERANCE[name]
    golden.check("loss", distance(embedder, images, given(golden, "target")), bound)
    golden.check("loss_cars", distance(embedder, cars, given(golden, "target_cars")), bound)
    assert len(golden.entries) == 5


def test_curricularface() -> None:
    golden = goldens.Golden("curricularface_ir101", 5e-5)
    embedder = frozen.curricularface_from_state(goldens.state("curricularface_ir101"))
    golden.check("embedding", embedder(golden.images()))
    assert list(golden.entries) == ["embedding"]


def test_float64_agrees_and_batches_do_not_matter(layout: tuple[str, ArcFaceOrMoCo]) -> None:
    name, embedder = layout
    images = textured(goldens.Golden(name, 0.0))
    together = embedder.embed_images(images)
    alone = torch.cat([embedder.embed_images(image[None]) for image in images])
    torch.testing.assert_close(alone, together, rtol=0, atol=1e-6)
    wide = type(embedder)(**embedder.settings).double().eval()
    wide.load_state_dict(embedder.state_dict())
    exact = wide.embed_images(images.double())
    assert exact.dtype == torch.float64
    assert goldens.relative_error(together.double(), exact) <= 1e-5


def test_gradients_reach_the_picture(layout: tuple[str, ArcFaceOrMoCo]) -> None:
    _, embedder = layout
    images = official.image(2, 192, 256, seed=2).requires_grad_()
    distance(embedder, images, official.image(2, 192, 256, seed=3)).backward()
    assert images.grad is not None
    assert images.grad.isfinite().all()
    assert images.grad.any()
    assert all(parameter.grad is None for parameter in embedder.parameters())


def test_keys_come_back_as_they_were(arcface: FaceEmbedder, moco: MoCo) -> None:
    pairs = {
        "arcface_irse50": frozen.face_embedder_keymap(arcface, frozen.ARCFACE).to_theirs(arcface),
        "moco_v2": frozen.moco_keymap(moco).to_theirs(moco),
    }
    for name, back in pairs.items():
        state = state_of(name)
        dropped = set(state) - set(back)
        assert set(back) <= set(state)
        assert all(torch.equal(value, state[key]) for key, value in back.items())
        outside = ("module.encoder_k.", "module.queue", "module.encoder_q.fc.")
        assert all(key.startswith(outside) for key in dropped)
    assert len(pairs["arcface_irse50"]) == 397


@pytest.mark.parametrize(
    ("load", "name", "missing", "shaped"),
    [
        (frozen.arcface_from_state, "arcface_irse50", "output_layer.3.bias", "body.7.res_layer.2"),
        (frozen.moco_from_state, "moco_v2", "module.encoder_q.bn1.bias", "module.encoder_q.conv1"),
    ],
)
def test_what_does_not_fit_is_listed(
    load: Callable[[dict[str, Tensor]], torch.nn.Module], name: str, missing: str, shaped: str
) -> None:
    state = dict(state_of(name))
    del state[missing]
    state["fancy.weight"] = torch.zeros(1)
    state[f"{shaped}.weight"] = torch.zeros(2, 2)
    with pytest.raises(ValueError, match="1 missing") as caught:
        load(state)
    line = str(caught.value)
    assert "\n" not in line
    for part in (missing, "1 unexpected (fancy.weight)", f"{shaped}.weight (2, 2)"):
        assert part in line


def test_other_networks_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="no MoCo v2"):
        frozen.moco_from_state(state_of("arcface_irse50"))
    with pytest.raises(ValueError, match="no ArcFace"):
        frozen.arcface_from_state(goldens.state("curricularface_ir101"))
    with pytest.raises(ValueError, match="no CurricularFace"):
        frozen.curricularface_from_state(state_of("arcface_irse50"))


def test_files_are_read_and_missing_ones_named(tmp_path: Path, arcface: FaceEmbedder) -> None:
    path = tmp_path / "model_ir_se50.pth"
    torch.save(state_of("arcface_irse50"), path)
    images = official.image(1, 256, 256, seed=5)
    loaded = frozen.load_arcface(path)
    assert torch.equal(loaded.embed_images(images), arcface.embed_images(images))
    with pytest.raises(FileNotFoundError, match=r"nothing\.pth.*CurricularFace"):
        frozen.load_curricularface(tmp_path / "nothing.pth")
    broken = tmp_path / "broken.pth"
    broken.write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(ValueError, match=r"broken\.pth"):
        frozen.load_moco(broken)


def test_training_crop_is_the_official_one() -> None:
    images = official.image(1, 256, 256, seed=4)
    # 188 pixels onto 112 cells: cell i averages pixels floor(188 i / 112) to ceil(188 (i+1) / 112)
    cut = images[:, :, 35:223, 32:220].double().numpy()
    edges = [(188 * i // 112, -(-188 * (i + 1) // 112)) for i in range(112)]
    rows = np.stack([cut[:, :, a:b].mean(axis=2) for a, b in edges], axis=2)
    expected = np.stack([rows[..., a:b].mean(axis=3) for a, b in edges], axis=3)
    np.testing.assert_allclose(training_crop(images).numpy(), expected, rtol=0, atol=1e-6)
