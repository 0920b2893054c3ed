"""Official CLCAE files of every size, against the outputs of the official modules."""

from collections.abc import Callable

import goldens
import official
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from clcae.losses.contrastive import info_nce
from clcae.methods.foundation import Encoding
from clcae.methods.interface import Inversion
from clcae.methods.official_clcae import OfficialCLCAE
from clcae.pretrained import clcae as pretrained

TOLERANCE = 1e-4  # tests/fixtures/README.md
ALIGNER_TOLERANCE = 5e-5


def mean_latent(seed: int = 1) -> Tensor:
    return torch.from_numpy(official.fill("latent_avg", (512,), "float32", seed))


def mean_image(golden: goldens.Golden) -> Tensor:
    given = golden.meta["average_image"]
    return official.image(*given["size"], seed=given["seed"])[0] * given["scale"]


def load(name: str) -> tuple[goldens.Golden, OfficialCLCAE]:
    """The formula's weights go into the method without a copy, and are cached by nobody."""
    golden = goldens.Golden(name, TOLERANCE)
    seed = golden.meta["seed"]
    method = pretrained.clcae_from_state(
        official.state_dict(name, seed),
        latent_average=mean_latent(seed),
        average_image=mean_image(golden),
        image_size=golden.meta["image"][1:],
    )
    return golden, method.requires_grad_(False)


def ganspace(component: int, first: int, end: int, target: float) -> Callable[[Tensor], Tensor]:
    """GANSpace's edit: rows first to end move to an absolute coordinate of a component."""
    given = goldens.Golden("editing", 0.0)
    name, shape, _ = given.meta["pca"]["comp"]
    direction = official.latent(name, shape, given.meta["seed"])[component]
    direction = direction / direction.norm()
    name, shape, scale = given.meta["pca"]["mean"]
    mean = official.latent(name, shape, given.meta["seed"], scale)
    deviation = 2.5 * 0.97**component

    def move(codes: Tensor) -> Tensor:
        coordinate = ((codes[:, 0] - mean) * direction).sum(dim=1, keepdim=True) / deviation
        codes = codes.clone()
        codes[:, first:end] += ((target - coordinate) * direction * deviation)[:, None]
        return codes

    return move


def first_of(inversion: Inversion) -> Inversion:
    assert inversion.feature is not None
    return Inversion(
        codes=inversion.codes[:1],
        space=inversion.space,
        feature=inversion.feature[:1],
        layer=inversion.layer,
        context={name: value[:1] for name, value in inversion.context.items()},
    )


@torch.no_grad()
def check_outputs(golden: goldens.Golden, method: OfficialCLCAE) -> tuple[Inversion, Encoding]:
    images = golden.images()
    encoding = method.encode(images)
    golden.check("w", encoding.w)
    golden.check("wplus", encoding.w_plus)
    pictures, feature, own = method.pictures(encoding)
    golden.check("f", feature)
    golden.check("g5", own)
    for entry, name in (("image_f", "F"), ("image_wplus", "W+"), ("image_w", "W")):
        assert pictures[name].shape == images.shape
        golden.check(entry, pictures[name])
    inversion = method.invert(images)
    golden.check("image_f", method.synthesize(inversion))
    return inversion, encoding


@torch.no_grad()
def check_edits(golden: goldens.Golden, method: OfficialCLCAE, inversion: Inversion) -> None:
    inversion, layer = first_of(inversion), method.layer
    method.edit_rule = "refined"
    edited = method.edit(inversion, ganspace(*golden.meta["ganspace"]))
    golden.check("ganspace.image_f", method.synthesize(edited))
    picture = method.generator.synthesize(edited.codes)
    golden.check("ganspace.image_wplus", method.at_input_size(picture))

    method.edit_rule = "foundation"
    offset = golden.latent("edit")
    edited = method.edit(inversion, lambda codes: codes + offset)
    golden.check("interfacegan.wplus", edited.codes)
    assert edited.feature is not None
    difference = method.generator.features(edited.codes, layer) - inversion.context["own"]
    golden.check("interfacegan.f", edited.feature - difference)
    golden.check("interfacegan.image_f", method.synthesize(edited))


def test_faces_256() -> None:
    golden, method = load("clcae_256")
    inversion, encoding = check_outputs(golden, method)
    check_edits(golden, method, inversion)
    first = Encoding(encoding.w[:1], encoding.w_plus[:1], encoding.level[:1])
    with torch.no_grad():
        pictures, _, _ = method.pictures(first, feature_scale=0.3)
    golden.check("blend0.3.image_f", pictures["F"])


@pytest.mark.slow
def test_cars_512() -> None:
    golden, method = load("clcae_512")
    inversion, _ = check_outputs(golden, method)
    method.resize = False
    with torch.no_grad():
        whole = method.synthesize(inversion)
    assert whole.shape == (1, 3, 512, 512)
    golden.check("image_f", F.avg_pool2d(whole[:, :, 64:448], 2))


@pytest.mark.slow
def test_faces_1024() -> None:
    golden, method = load("clcae_1024")
    check_edits(golden, method, check_outputs(golden, method)[0])


@torch.no_grad()
def test_aligner() -> None:
    golden = goldens.Golden("clcae_aligner", ALIGNER_TOLERANCE)
    seed = golden.meta["seed"]
    states = [official.state_dict(name, seed) for name in golden.meta["checkpoint"]]
    averages = {"average_image": mean_image(golden), "w_average": mean_latent(seed)}
    images, w = golden.images(), golden.latent("w")[:, 0]
    raw = pretrained.aligner_from_states(*states, **averages, unit_length=False)
    golden.check("image_embedding_raw", raw.embed_images(images))
    golden.check("latent_embedding_raw", raw.embed_latents(w))
    aligner = pretrained.aligner_from_states(*states, **averages)
    image_embedding, latent_embedding = aligner.embed_images(images), aligner.embed_latents(w)
    golden.check("image_embedding", image_embedding)
    golden.check("latent_embedding", latent_embedding)
    golden.check("scale", aligner.scale)
    golden.check("accuracy_logits", aligner.scale * image_embedding @ latent_embedding.T)
    golden.check("loss", info_nce(image_embedding, latent_embedding, aligner.scale))
