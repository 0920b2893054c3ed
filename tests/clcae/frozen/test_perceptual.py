"""LPIPS against the package lpips, and the papers' judges in the loss that trains encoders."""

import inspect
from pathlib import Path
from typing import get_args

import lpips
import pytest
import torch
import torchvision
from torch import Tensor

from clcae.frozen.face_embedders import FaceEmbedder
from clcae.frozen.judges import Judges, PaperJudges
from clcae.frozen.moco import MoCo
from clcae.frozen.perceptual import LPIPS, Classifier
from clcae.frozen.portraits import AttributeRegressor, IdentityEmbedder, PortraitJudges
from clcae.losses.inversion import reconstruction_terms
from clcae.pretrained import frozen

SMALL = {"size": 16, "stem_channels": 4, "stages": [[6, 1], [8, 1]]}


def pictures(seed: int, *shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def trunk_file(folder: Path, classifier: str) -> Path:
    """Writes a file like torchvision's, of random weights, without the classifier layers."""
    torch.manual_seed(0)
    build = {"alex": torchvision.models.alexnet, "vgg": torchvision.models.vgg16}[classifier]
    features = build(weights=None).features.state_dict()
    state = {f"features.{key}": value for key, value in features.items()}
    path = folder / f"{classifier}.pth"
    torch.save({**state, "classifier.6.bias": torch.zeros(1000)}, path)
    return path


@pytest.fixture(scope="module")
def trunks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("trunks")
    return {name: trunk_file(folder, name) for name in get_args(Classifier)}


def reference(classifier: str, path: Path) -> torch.nn.Module:
    """The package's own network with the same trunk."""
    network = lpips.LPIPS(net=classifier, pnet_rand=True, verbose=False)
    state = torch.load(path, weights_only=True)
    for name, value in network.net.state_dict().items():
        value.copy_(state[f"features.{name.split('.', 1)[1]}"])  # slice2.3.weight is layer 3
    return network


@pytest.mark.parametrize("classifier", get_args(Classifier))
def test_values_and_gradients_are_the_packages(
    classifier: Classifier, trunks: dict[str, Path]
) -> None:
    ours = frozen.load_lpips(trunks[classifier], classifier=classifier)
    theirs = reference(classifier, trunks[classifier])
    images, others = pictures(0, 3, 3, 72, 96), pictures(1, 3, 3, 72, 96)
    values, gradients = [], []
    for network in (ours, theirs):
        leaf = images.clone().requires_grad_()
        distances = network(leaf, others).reshape(-1)
        distances.sum().backward()
        values.append(distances.detach())
        gradients.append(leaf.grad)
    assert bool((values[0] > 0).all())
    torch.testing.assert_close(values[0], values[1], rtol=1e-5, atol=0)
    scale = float(gradients[1].abs().max())
    torch.testing.assert_close(gradients[0], gradients[1], rtol=0, atol=1e-4 * scale)


def test_a_picture_is_at_no_distance_from_itself(trunks: dict[str, Path]) -> None:
    network = frozen.load_lpips(trunks["alex"])
    images = pictures(0, 2, 3, 64, 64).requires_grad_()
    distances = network(images, images.detach())
    assert torch.equal(distances, torch.zeros(2))
    distances.sum().backward()
    assert images.grad is not None
    assert images.grad.isfinite().all()


def test_float64_agrees(trunks: dict[str, Path]) -> None:
    network = frozen.load_lpips(trunks["alex"])
    images, others = pictures(0, 2, 3, 64, 64), pictures(1, 2, 3, 64, 64)
    single = network(images, others)
    exact = network.double()(images.double(), others.double())
    torch.testing.assert_close(single.double(), exact, rtol=1e-5, atol=0)


def test_a_missing_trunk_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(FileNotFoundError) as caught:
        frozen.load_lpips()
    line = str(caught.value)
    assert "\n" not in line
    where = tmp_path / "hub" / "checkpoints" / "alexnet-owt-7be5be79.pth"
    for part in (str(where), "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth"):
        assert part in line
    torch_hub = trunk_file(tmp_path, "alex")
    where.parent.mkdir(parents=True)
    torch_hub.rename(where)
    assert frozen.load_lpips().name == "LPIPS v0.1 (alex)"


def test_wrong_files_and_images_are_told(trunks: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="alexnet-owt") as caught:
        frozen.load_lpips(trunks["vgg"])
    for kind in ("missing", "unexpected", "of another shape"):
        assert kind in str(caught.value)
    with pytest.raises(ValueError, match="'squeeze'"):
        frozen.load_lpips(classifier="squeeze")  # type: ignore[arg-type]
    other = tmp_path / "other.pth"
    torch.save([1, 2], other)
    with pytest.raises(ValueError, match=r"other\.pth holds a list"):
        frozen.load_lpips(other)
    with pytest.raises(ValueError, match=r"\(24, 64\).*32"):
        frozen.load_lpips(trunks["alex"]).features(pictures(0, 1, 3, 24, 64))


def small_judges(kind: str, trunks: dict[str, Path]) -> Judges:
    torch.manual_seed(0)
    if kind == "portraits":
        return PortraitJudges(
            identity=IdentityEmbedder(**SMALL),  # type: ignore[arg-type]
            attributes=AttributeRegressor(**SMALL),  # type: ignore[arg-type]
        )
    perceptual = frozen.load_lpips(trunks["alex"])
    if kind == "objects":
        return PaperJudges(identity=MoCo(), perceptual=perceptual, identity_name="MoCo")
    embedder = FaceEmbedder(**SMALL)  # type: ignore[arg-type]
    return PaperJudges(identity=embedder, perceptual=perceptual, identity_name="ArcFace")


@pytest.mark.parametrize("kind", ["portraits", "faces", "objects"])
def test_every_judge_serves_the_reconstruction_losses(kind: str, trunks: dict[str, Path]) -> None:
    judges = small_judges(kind, trunks)
    size = 16 if kind == "portraits" else 256
    targets = pictures(9, 2, 3, size, size)
    outputs = {name: pictures(seed, 2, 3, size, size) for seed, name in enumerate(("W", "F"))}
    outputs["W"].requires_grad_()
    terms = reconstruction_terms(outputs, targets, judges)
    assert list(terms) == ["l2", "perceptual", "identity"]
    for name, picture in outputs.items():
        features, others = judges.features(picture), judges.features(targets)
        cosine = (judges.embed(features) * judges.embed(others)).sum(dim=1)
        distance = judges.distance(features, others)
        assert distance.shape == (2,)
        torch.testing.assert_close(terms["identity"][name], 1 - cosine.mean(), atol=1e-6, rtol=0)
        torch.testing.assert_close(terms["perceptual"][name], distance.mean())
    torch.stack([value for each in terms.values() for value in each.values()]).sum().backward()
    assert outputs["W"].grad is not None
    assert outputs["W"].grad.isfinite().all()


def test_each_network_sees_each_picture_once(trunks: dict[str, Path]) -> None:
    judges = small_judges("faces", trunks)
    assert isinstance(judges, PaperJudges)
    seen: dict[str, int] = {}
    watched = {"identity": judges.identity.trunk, "perceptual": judges.perceptual.trunk[0]}  # type: ignore[union-attr]
    for name, module in watched.items():

        def count(_: torch.nn.Module, given: tuple[Tensor], name: str = name) -> None:
            seen[name] = seen.get(name, 0) + len(given[0])

        module.register_forward_pre_hook(count)
    outputs = {name: pictures(seed, 2, 3, 64, 64) for seed, name in enumerate(("W", "W+", "F"))}
    reconstruction_terms(outputs, pictures(9, 2, 3, 64, 64), judges)
    assert seen == {"identity": 8, "perceptual": 8}  # two targets and three pictures of each


def test_paper_judges_never_train(trunks: dict[str, Path]) -> None:
    judges = small_judges("objects", trunks)
    assert isinstance(judges, PaperJudges)
    assert not any(module.training for module in judges.train().modules())
    assert not any(parameter.requires_grad for parameter in judges.parameters())


def test_portrait_judges_ask_and_answer_as_the_protocol_says() -> None:
    for name in ("features", "embed", "distance"):
        wanted = inspect.signature(getattr(Judges, name)).parameters
        for cls in (PortraitJudges, PaperJudges):
            assert list(inspect.signature(getattr(cls, name)).parameters) == list(wanted)


def test_both_judges_from_their_files(trunks: dict[str, Path], tmp_path: Path) -> None:
    torch.manual_seed(0)
    moco = MoCo()
    path = tmp_path / "moco.pth.tar"
    state = frozen.moco_keymap(moco).to_theirs(moco)
    torch.save({"epoch": 800, "state_dict": {**state, "module.queue": torch.zeros(2)}}, path)
    judges = frozen.object_judges(moco=path, lpips_trunk=trunks["alex"])
    images = pictures(0, 1, 3, 192, 256)
    expected = moco.eval().embed_images(images)
    torch.testing.assert_close(judges.identity.embed_images(images), expected)
    with pytest.raises(FileNotFoundError, match=r"nothing\.pth.*ArcFace"):
        frozen.face_judges(arcface=tmp_path / "nothing.pth", lpips_trunk=trunks["alex"])
    assert isinstance(judges.perceptual, LPIPS)
