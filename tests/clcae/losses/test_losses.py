"""Losses against golden outputs of the official code, and against plain numpy."""

import math

import goldens
import numpy as np
import official
import pytest
import torch

from clcae.losses.adversarial import (
    logistic_discriminator,
    logistic_generator,
    path_lengths,
    r1_penalty,
)
from clcae.losses.contrastive import info_nce, retrieval_accuracy
from clcae.losses.inversion import feature_term, weighted_sum
from clcae.losses.latent import offset_norms
from clcae.losses.margin import AngularMargin
from clcae.nn.latent_discriminator import LatentDiscriminator, LatentPool


def test_adversarial_goldens() -> None:
    golden = goldens.Golden("losses", 2e-5)
    real = torch.from_numpy(golden.entries["real_logits"])
    fake = torch.from_numpy(golden.entries["fake_logits"])
    golden.check("gan_d_logistic", logistic_discriminator(real, fake))
    golden.check("gan_g_nonsaturating", logistic_generator(fake))


@pytest.fixture
def latent_discriminator() -> LatentDiscriminator:
    """The official one, by its own keys."""
    discriminator = LatentDiscriminator()
    discriminator.load_state_dict(goldens.state("e4e_latent_disc"))
    return discriminator.requires_grad_(False)


def test_latent_discriminator_goldens(latent_discriminator: LatentDiscriminator) -> None:
    golden = goldens.Golden("losses", 2e-5)
    real, fake = golden.latent("real").requires_grad_(), golden.latent("fake")
    real_logits, fake_logits = latent_discriminator(real), latent_discriminator(fake)
    golden.check("real_logits", real_logits)
    golden.check("fake_logits", fake_logits)
    golden.check("disc_loss", logistic_discriminator(real_logits, fake_logits))
    penalty = r1_penalty(real_logits, real)
    golden.check("r1_penalty", penalty)
    golden.check("r1_final", penalty * (golden.meta["r1"] / 2 * golden.meta["d_reg_every"]))
    assert sum(p.numel() for p in latent_discriminator.parameters()) == 788_481


def test_e4e_encoder_goldens(latent_discriminator: LatentDiscriminator) -> None:
    golden = goldens.Golden("losses", 2e-5)
    codes, stage = golden.latent("codes"), golden.meta["stage"]
    picture = golden.meta["generated"]
    target = official.image(*golden.meta["target"], seed=golden.meta["seed"])
    generated = official.image(*picture["size"], seed=picture["seed"])
    terms = {
        "adversarial": logistic_generator(latent_discriminator(codes[:, : stage + 1])),
        "delta": offset_norms(codes, stage),
        "l2": (generated - target).square().mean(),
    }
    for name, term in terms.items():
        golden.check(f"encoder_{name}", term)
    weights = {
        "adversarial": golden.meta["w_discriminator_lambda"],
        "delta": golden.meta["delta_norm_lambda"],
        "l2": golden.meta["l2_lambda"],
    }
    golden.check("encoder_total", weighted_sum(terms, weights))


def test_offset_norms_against_the_formula() -> None:
    codes = torch.randn(3, 6, 4)
    for stage in range(6):
        expected = sum(
            np.sqrt(((codes[n, i] - codes[n, 0]).double().numpy() ** 2).sum()) / 3
            for i in range(1, stage + 1)
            for n in range(3)
        )
        assert float(offset_norms(codes, stage)) == pytest.approx(float(expected), rel=1e-5)
    assert float(offset_norms(codes[:, :1].expand(3, 6, 4).clone(), 5)) == 0.0


def test_latent_pool_against_the_official_rule() -> None:
    pool, stored = LatentPool(size=3, w_dim=2), []
    rng = torch.Generator().manual_seed(0)
    for _ in range(5):
        codes = torch.randn(4, 2, generator=rng)
        swapped = torch.rand(4, generator=rng) < 0.5
        places = torch.randint(3, [4], generator=rng)
        given = pool.exchange(codes, swapped, places)
        for code, swap, place, value in zip(codes, swapped, places.tolist(), given, strict=True):
            expected = code
            if len(stored) < 3:
                stored.append(code)
            elif swap:
                expected, stored[place] = stored[place], code
            assert torch.equal(value, expected)
        assert torch.equal(pool.codes[: int(pool.filled)], torch.stack(stored))
    with pytest.raises(ValueError, match="size is 0"):
        LatentPool(size=0, w_dim=2)


def test_stage_2_golden() -> None:
    golden = goldens.Golden("losses", 2e-5)
    target = official.image(2, 64, 64, seed=1)
    outputs = [official.image(2, 64, 64, seed=seed) for seed in (11, 21, 31)]
    feature, own = golden.latent("f"), golden.latent("g5")
    golden.check("clcae_feature", feature_term(feature, own))
    terms = {
        "l2": torch.stack([(output - target).square().mean() for output in outputs]).sum(),
        "feature": feature_term(feature, own),
    }
    weight = golden.meta["feature_matching_lambda"]
    golden.check("clcae_stage2", weighted_sum(terms, {"l2": 1.0, "feature": weight}))


def test_contrastive_golden() -> None:
    golden = goldens.Golden("clcae_aligner", 5e-5)
    images = torch.from_numpy(golden.entries["image_embedding"])
    latents = torch.from_numpy(golden.entries["latent_embedding"])
    scale = torch.from_numpy(golden.entries["scale"])
    golden.check("accuracy_logits", scale * images @ latents.T)
    golden.check("loss", info_nce(images, latents, scale))


def test_info_nce_of_perfect_and_of_equal_embeddings() -> None:
    perfect = torch.eye(6)
    assert float(info_nce(perfect, perfect, torch.tensor(100.0))) == pytest.approx(0.0, abs=1e-6)
    equal = torch.ones(6, 6) / math.sqrt(6)
    assert float(info_nce(equal, equal, torch.tensor(50.0))) == pytest.approx(math.log(6), rel=1e-6)
    assert [float(value) for value in retrieval_accuracy(perfect, perfect)] == [1.0, 1.0]
    assert float(retrieval_accuracy(perfect, perfect.roll(1, 0))[0]) == 0.0


def test_r1_of_a_linear_discriminator_is_its_squared_norm() -> None:
    weight = torch.randn(12)
    images = torch.randn(5, 12, requires_grad=True)
    penalty = r1_penalty((images @ weight)[:, None], images)
    assert float(penalty) == pytest.approx(float(weight.square().sum()), rel=1e-5)


def test_path_length_of_a_linear_generator() -> None:
    # images = codes @ A: J^T y is A y, one row
    matrix = torch.randn(4, 3 * 2 * 2)
    codes = torch.randn(3, 1, 4, requires_grad=True)
    noise = torch.randn(3, 3, 2, 2)
    images = (codes[:, 0] @ matrix).reshape(3, 3, 2, 2)
    expected = (noise.flatten(1) / 2.0 @ matrix.T).norm(dim=1)
    torch.testing.assert_close(path_lengths(images, codes, noise), expected)


def test_angular_margin_against_numpy() -> None:
    torch.manual_seed(0)
    margin = AngularMargin(embedding_dim=5, num_people=4, scale=10.0, margin=0.4)
    embeddings = torch.nn.functional.normalize(torch.randn(6, 5), dim=1)
    people = torch.tensor([0, 1, 2, 3, 0, 1])
    centres = margin.centres.detach().numpy()
    cosine = embeddings.numpy() @ (centres / np.linalg.norm(centres, axis=1, keepdims=True)).T
    total = 0.0
    for row, person in enumerate(people.tolist()):
        logits = cosine[row].astype(np.float64)
        angle = np.arccos(logits[person])
        beyond = angle + 0.4 > np.pi
        logits[person] = logits[person] - np.sin(0.4) * 0.4 if beyond else np.cos(angle + 0.4)
        logits *= 10.0
        total -= logits[person] - np.log(np.exp(logits).sum())
    assert float(margin(embeddings, people).detach()) == pytest.approx(total / 6, rel=1e-5)


def test_weighted_sum_refuses_what_does_not_match() -> None:
    with pytest.raises(ValueError, match=r"without a weight: \['b'\]"):
        weighted_sum({"a": torch.ones([]), "b": torch.ones([])}, {"a": 1.0})
    with pytest.raises(ValueError, match=r"without a term: \['c'\]"):
        weighted_sum({"a": torch.ones([])}, {"a": 1.0, "c": 2.0, "d": 0.0})
