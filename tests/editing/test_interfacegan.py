"""Finding directions: a planted one is recovered, scores are cleaned, samples lie right."""

import numpy as np
import pytest
import torch
from torch import Tensor

from clcae.stylegan2 import Generator, LatentSpace
from editing import LatentStatistics, ganspace, interfacegan, sefa
from editing.interfacegan import Search, find_directions
from editing.samples import Samples, draw, sample_codes


def unit(seed: int, *shape: int) -> Tensor:
    vector = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return vector / vector.norm()


def cosine(first: Tensor, second: Tensor) -> float:
    return float((first * second).sum() / (first.norm() * second.norm()))


@pytest.fixture(scope="module")
def generator() -> Generator:
    torch.manual_seed(0)
    generator = Generator(
        resolution=16,
        z_dim=12,
        w_dim=20,
        mapping_layers=2,
        mapping_lr_multiplier=1.0,
        channels=[6, 5, 4],
    )
    generator.update_average(num_samples=1000)
    return generator.eval().requires_grad_(False)


@pytest.mark.parametrize("width", [16, 128, 256])
def test_a_planted_direction_is_recovered(width: int) -> None:
    rng = torch.Generator().manual_seed(1)
    codes, planted = torch.randn(50_000, width, generator=rng), unit(2, 1, width)
    scores = torch.tanh(codes @ planted.T + 0.1 * torch.randn(50_000, 1, generator=rng))
    found = interfacegan.train_boundary(codes, scores)
    assert cosine(found.normal, planted) >= 0.98
    assert found.accuracy == 1.0 and found.num_extremes == 1000
    assert found.accuracy_rest is not None and found.accuracy_rest > 0.9
    assert cosine(interfacegan.least_squares(codes, scores[:, 0]), planted) >= 0.98


def test_rows_are_flattened_and_come_back_as_rows() -> None:
    rng = torch.Generator().manual_seed(3)
    codes, planted = torch.randn(20_000, 6, 16, generator=rng), unit(4, 6, 16)
    found = interfacegan.train_boundary(codes, (codes * planted).sum(dim=(1, 2)))
    assert found.normal.shape == (6, 16)
    assert cosine(found.normal, planted) >= 0.98
    assert found.normal.norm() == pytest.approx(1, abs=1e-5)


def test_invalid_scores_are_dropped() -> None:
    rng = torch.Generator().manual_seed(5)
    codes, planted = torch.randn(4000, 8, generator=rng), unit(6, 1, 8)
    scores = (codes @ planted.T)[:, 0].numpy()
    clean = interfacegan.train_boundary(codes[:3000], scores[:3000])
    scores[3000:3500], scores[3500:] = np.nan, -99
    spoilt = interfacegan.train_boundary(codes, scores, invalid=-99)
    assert torch.equal(clean.normal, spoilt.normal)


@pytest.mark.parametrize(
    ("share", "extremes"), [(0.02, 20), (1.0, 500), (0.5, 500), (7, 7), (600, 500), (1.5, None)]
)
def test_shares_and_numbers(share: float, extremes: int | None) -> None:
    codes = torch.randn(1000, 4, generator=torch.Generator().manual_seed(7))
    if extremes is None:  # a single sample on either side cannot be split
        with pytest.raises(ValueError, match="1 extremes on either side"):
            interfacegan.train_boundary(codes, codes[:, 0], share=share)
        return
    found = interfacegan.train_boundary(codes, codes[:, 0], share=share)
    assert found.num_extremes == extremes
    assert (found.accuracy_rest is None) == (extremes == 500)


@pytest.mark.parametrize(
    ("codes", "scores", "words"),
    [
        (torch.zeros(10, 4), torch.zeros(10), "expected four or more that differ"),
        (torch.zeros(10, 4), torch.full((10,), torch.nan), "0 valid scores"),
        (torch.zeros(10, 4), torch.zeros(9), r"scores \(9,\)"),
        (torch.zeros(10), torch.zeros(10), r"codes have shape \(10,\)"),
        (torch.full((99, 4), torch.nan), torch.arange(99.0), "NaN"),
    ],
)
def test_refusals_are_one_line(codes: Tensor, scores: Tensor, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        interfacegan.train_boundary(codes, scores, share=0.2)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="share is -1"):
        interfacegan.train_boundary(torch.eye(4), torch.arange(4.0), share=-1)


def test_conditional_leaves_the_conditions_alone() -> None:
    target, others = unit(1, 1, 32), [unit(seed, 1, 32) * seed for seed in range(2, 12)]
    others.append(others[0] * 2)  # one that repeats another
    found = interfacegan.conditional(target, others)
    assert max(abs(cosine(found, other)) for other in others) < 1e-6
    assert found.norm() == pytest.approx(1, abs=1e-6)
    basis = torch.linalg.qr(torch.cat(others[:10]).double().T)[0]
    expected = target.double() - target.double() @ basis @ basis.T
    assert cosine(found.double(), expected) == pytest.approx(1, abs=1e-9)
    assert torch.allclose(interfacegan.conditional(target, []), target)
    with pytest.raises(ValueError, match="lies in their span"):
        interfacegan.conditional(target, [target * 3])
    with pytest.raises(ValueError, match="expected one"):
        interfacegan.conditional(target, [unit(1, 1, 31)])


def test_directions_of_correlated_attributes() -> None:
    """Attributes that go together: projected off, one no longer moves the other."""
    rng = torch.Generator().manual_seed(8)
    codes, first = torch.randn(20_000, 24, generator=rng), unit(9, 1, 24)
    second = first + 1.5 * unit(10, 1, 24)
    scores = torch.cat([codes @ first.T, codes @ second.T], dim=1)
    samples = Samples(codes, scores, ["first", "second"])
    plain = find_directions(samples, ["first"], Search())["first"]
    assert abs(cosine(plain.vector, second)) > 0.3
    for off in ("boundaries", "gradients"):
        found = find_directions(samples, ["first"], Search(conditions=None, off=off))
        assert abs(cosine(found["first"].vector, second)) < 0.02
        assert found["first"].provenance["conditions"] == ["second"]
    assert plain.unit == pytest.approx(1, abs=0.05)  # one width of these codes
    with pytest.raises(ValueError, match="no attribute 'third'; there are: first, second"):
        find_directions(samples, ["third"], Search())
    with pytest.raises(ValueError, match="named twice: a"):
        Samples(codes, scores, ["a", "a"])
    with pytest.raises(ValueError, match="as many scores as codes"):
        Samples(codes, scores, ["a"])


@pytest.mark.parametrize("space", list(LatentSpace))
def test_samples_of_every_space(generator: Generator, space: LatentSpace) -> None:
    codes = sample_codes(generator, space=space, count=500, rng=torch.Generator().manual_seed(1))
    width = 12 if space.value.startswith("Z") else 20
    assert codes.shape == ((500, 6, width) if space.has_rows else (500, width))
    if space.value.startswith("Z"):
        torch.testing.assert_close(codes.norm(dim=-1), torch.full(codes.shape[:-1], 12**0.5))
    else:
        mean = codes.reshape(-1, 20).mean(dim=0)
        torch.testing.assert_close(mean, generator.w_average, rtol=0, atol=0.15)
    drawn = list(draw(generator, space=space, count=70, batch=32))
    assert [len(pictures) for _, pictures in drawn] == [32, 32, 6]
    again = draw(generator, space=space, count=70, batch=32)
    for first, second in zip(drawn, again, strict=True):
        assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


def test_components_are_those_of_an_exact_pca(generator: Generator) -> None:
    from sklearn.decomposition import PCA

    pca = ganspace.components_of_generator(generator, count=5, num_samples=25_000, seed=3)
    codes = torch.cat(list(ganspace.mapped(generator, num_samples=25_000, seed=3)))
    reference = PCA(n_components=5, svd_solver="full").fit(codes.double().numpy())
    torch.testing.assert_close(
        pca.deviations, torch.from_numpy(reference.explained_variance_**0.5).float()
    )
    torch.testing.assert_close(pca.mean[0], torch.from_numpy(reference.mean_).float())
    overlap = (pca.components.double() @ torch.from_numpy(reference.components_).T).abs()
    torch.testing.assert_close(overlap, torch.eye(5).double(), rtol=0, atol=1e-4)
    assert (pca.components.gather(1, pca.components.abs().argmax(1, keepdim=True)) > 0).all()
    with pytest.raises(ValueError, match="component 5 is not among the 5"):
        pca.direction(5)


def test_components_of_a_flat_space_and_of_many_samples() -> None:
    """A latent space of three dimensions within ten has three components."""
    rng = torch.Generator().manual_seed(0)
    frame = torch.linalg.qr(torch.randn(10, 3, generator=rng).double())[0]
    codes = torch.randn(5000, 3, generator=rng).double() @ frame.T + 50
    pca = ganspace.principal_components(LatentStatistics.of_codes(codes.split(512)), count=80)
    assert pca.components.shape == (3, 10)
    with pytest.raises(ValueError, match="count is 0"):
        ganspace.principal_components(LatentStatistics.of_codes([codes]), count=0)


def test_sefa_maximises_the_change_of_style(generator: Generator) -> None:
    values, vectors = sefa.factorize(generator, layers=(1, 3))
    weights = sefa.modulation_weights(generator, (1, 3)).double()
    weights = weights / weights.norm(dim=1, keepdim=True)
    torch.testing.assert_close((vectors @ weights.T).square().sum(dim=1), values)
    assert (values.diff() <= 1e-9).all()
    torch.testing.assert_close(vectors @ vectors.T, torch.eye(20).double(), atol=1e-9, rtol=0)
    random = unit(3, 200, 20).double()
    random = random / random.norm(dim=1, keepdim=True)
    assert ((random @ weights.T).square().sum(dim=1) <= values[0]).all()
    for layers in ((0, 6), (3, 3), (-1, 2)):
        with pytest.raises(ValueError, match="the generator has 5 styled convolutions"):
            sefa.factorize(generator, layers=layers)
