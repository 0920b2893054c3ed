"""The shipped judges are as good as their cards say, on people of the test split."""

import pytest
import torch

from clcae.frozen.portraits import AttributeRegressor, IdentityEmbedder, PortraitJudges
from clcae.metrics.verification import r2_score, roc_auc
from clcae.portraits import ATTRIBUTES, PortraitImages
from clcae.pretrained.assets import portraits_judges


@pytest.fixture(scope="module")
def judges() -> PortraitJudges:
    return portraits_judges()


@torch.no_grad()
def test_identity_is_verified_on_held_out_people(judges: PortraitJudges) -> None:
    portraits = PortraitImages(split="test", num_people=48, pictures_per_person=6).batch(range(288))
    embeddings = judges.identity(portraits.images)
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(288))
    rows, columns = torch.triu_indices(288, 288, offset=1)
    same = portraits.people[rows] == portraits.people[columns]
    assert roc_auc((embeddings @ embeddings.T)[rows, columns], same) >= 0.99


@torch.no_grad()
def test_attributes_are_read_off_held_out_people(judges: PortraitJudges) -> None:
    portraits = PortraitImages(split="test", num_people=512, detail_rate=0.05).batch(range(512))
    estimates = judges.attributes(portraits.images)
    explained = dict(zip(ATTRIBUTES, r2_score(estimates, portraits.attributes), strict=True))
    for name in ("smile", "yaw", "age"):
        assert explained[name] >= 0.90, name
    glasses = ATTRIBUTES.index("glasses")
    assert roc_auc(estimates[:, glasses], portraits.attributes[:, glasses] > 0.5) >= 0.99


@torch.no_grad()
def test_perceptual_distance_grows_with_what_is_done_to_a_picture(judges: PortraitJudges) -> None:
    images = PortraitImages(split="test", num_people=8).batch(range(8)).images
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    distances = [
        judges.distance(
            judges.features(images), judges.features((images + strength * noise).clamp(-1, 1))
        )
        for strength in (0.0, 0.05, 0.2)
    ]
    torch.testing.assert_close(distances[0], torch.zeros(8))
    assert bool((distances[1] > 0).all())
    assert bool((distances[2] > distances[1]).all())


def test_judges_never_train() -> None:
    small = {"size": 16, "stem_channels": 4, "stages": [[6, 1]]}
    judges = PortraitJudges(
        identity=IdentityEmbedder(**small),  # type: ignore[arg-type]
        attributes=AttributeRegressor(**small),  # type: ignore[arg-type]
    ).train()
    assert not any(module.training for module in judges.modules())
    assert not any(parameter.requires_grad for parameter in judges.parameters())
    images = torch.randn(2, 3, 16, 16, requires_grad=True)
    others = judges.features(torch.zeros(2, 3, 16, 16))
    judges.distance(judges.features(images), others).sum().backward()
    assert images.grad is not None
