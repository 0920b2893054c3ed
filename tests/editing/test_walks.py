"""Edits in Z and Z+: a walk on the sphere, in moves, inversions, searches and files."""

from dataclasses import replace
from pathlib import Path

import goldens
import numpy as np
import official
import pytest
import torch
from small_methods import SIDE, small_e4e, small_optimization, with_feature
from torch import Tensor

from clcae.methods.interface import Inversion, InversionMethod
from clcae.stylegan2 import Generator, LatentSpace, normalize_z, walk, walk_in_steps
from editing import (
    Direction,
    edit_inversion,
    ganspace,
    load_directions,
    move_of,
    save_directions,
    shares_of,
    towards,
)
from editing.interfacegan import Search, find_directions
from editing.samples import Samples, sample_codes
from editing.statistics import samples


def random(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


CODES = normalize_z(random(0, 3, 8, 12))
ONE = Direction(name="one", vector=random(1, 1, 12), space=LatentSpace.Z, unit=0.7)
ROWS = Direction(name="rows", vector=random(2, 8, 12), space=LatentSpace.Z_PLUS)
SOME = replace(ONE, name="some", layers=(2, 5))
OF_W = Direction(name="of W", vector=random(3, 1, 20))


def test_a_move_of_z_walks() -> None:
    for direction in (ONE, ROWS):
        shift = (2.5 * direction.unit * direction.vector).expand_as(CODES)
        there = move_of([(direction, 2.5)])(CODES)
        torch.testing.assert_close(there, walk(CODES, shift))
        back = move_of([(direction, -2.5)])(there)
        torch.testing.assert_close(back, CODES, rtol=0, atol=1e-4)
        assert torch.equal(move_of([(direction, 0.0)])(CODES), CODES)
    loop = move_of([(ROWS, 1.5)], along=walk_in_steps)(CODES)
    torch.testing.assert_close(loop, walk_in_steps(CODES, (1.5 * ROWS.vector).expand_as(CODES)))


def test_several_edits_are_one_walk_in_any_order() -> None:
    edits = [(ONE, 1.0), (ROWS, -0.5), (SOME, 2.0)]
    moved = move_of(edits)(CODES)
    shift = 0.7 * ONE.vector - 0.5 * ROWS.vector.expand_as(CODES)
    shift[:, 2:5] += 1.4 * SOME.vector
    torch.testing.assert_close(moved, walk(CODES, shift))
    torch.testing.assert_close(move_of(edits[::-1])(CODES), moved)
    with pytest.raises(ValueError, match="one of Z and of W of W in one move"):
        move_of([(ONE, 1.0), (OF_W, 1.0)])


def test_a_range_moves_its_rows_alone() -> None:
    moved = move_of([(SOME, 2.0)])(CODES)
    assert torch.equal(moved[:, :2], CODES[:, :2]) and torch.equal(moved[:, 5:], CODES[:, 5:])
    assert not torch.isclose(moved[:, 2:5], CODES[:, 2:5]).all()


def test_every_code_may_have_its_strength() -> None:
    strengths = torch.tensor([0.0, -1.0, 3.0])
    moved = move_of([(ONE, strengths)])(CODES)
    alone = [move_of([(ONE, float(s))])(c[None]) for s, c in zip(strengths, CODES, strict=True)]
    torch.testing.assert_close(moved, torch.cat(alone))
    by = shares_of(ONE, 2.0)
    assert by is not None and shares_of(OF_W, 2.0) is None
    torch.testing.assert_close(by(strengths / 2)(CODES), moved)
    with pytest.raises(ValueError, match="expected a number"):
        move_of([(ONE, torch.tensor([0.0, torch.nan, 1.0]))])(CODES)


def test_a_coordinate_of_z_is_reached_on_the_sphere() -> None:
    to = Direction(
        name="to",
        vector=random(4, 1, 12),
        space=LatentSpace.Z,
        unit=0.5,
        semantics="coordinate",
        center=0.1 * random(5, 1, 12),
    )
    assert to.center is not None
    for strength in (0.0, -6.0, 9.0):
        moved = move_of([(to, strength)])(CODES)
        found = ((moved[:, 0] - to.center) * to.vector[0]).sum(dim=1) / 0.5
        torch.testing.assert_close(found, torch.full((3,), strength), rtol=0, atol=1e-4)
        torch.testing.assert_close(moved.norm(dim=-1), torch.full((3, 8), 12**0.5))
    with pytest.raises(ValueError, match="coordinate 99 lies beyond the sphere of Z, expected"):
        move_of([(to, 99)])(CODES)


def test_the_way_to_other_codes() -> None:
    target = normalize_z(random(6, 3, 8, 12))
    half = towards(target, 0.5, space=LatentSpace.Z_PLUS)(CODES)
    torch.testing.assert_close(half, normalize_z(CODES + target))
    middle = towards(target, 0.5, space=LatentSpace.W_PLUS)(CODES)
    torch.testing.assert_close(middle, (CODES + target) / 2)


@pytest.fixture(scope="module")
def method() -> InversionMethod:
    return small_e4e()


@torch.no_grad()
def test_inversions_keep_their_space_and_their_feature(method: InversionMethod) -> None:
    for space in (LatentSpace.Z, LatentSpace.Z_PLUS):
        codes = CODES if space.has_rows else CODES[:, :1].expand(-1, 8, -1)
        feature = random(7, 3, 8, 8, 8)
        inversion = Inversion(codes, space, feature, method.generator.layer("8x8/1"))
        moved = edit_inversion(method, inversion, [(ONE, 3.0)])
        assert moved.space is space and moved.feature is feature
        shift = (2.1 * ONE.vector).expand_as(inversion.codes)
        torch.testing.assert_close(moved.codes, walk(inversion.codes, shift))
        by_row = edit_inversion(method, inversion, [(ROWS, 1.0)])
        assert by_row.space is LatentSpace.Z_PLUS and by_row.feature is feature
        both = edit_inversion(method, inversion, [(OF_W, 1.0), (ONE, 3.0)])
        mapped = method.mapped(moved)
        assert both.space is mapped.space and both.feature is feature
        torch.testing.assert_close(both.codes, mapped.codes + OF_W.vector)


@pytest.mark.parametrize("output", ["F/Z", "F/Z+"])
@torch.no_grad()
def test_an_optimised_feature_stays(output: str) -> None:
    method = with_feature(small_optimization().generator, steps=2).with_output(output)
    inversion = method.invert(random(13, 2, 3, SIDE, SIDE).tanh())
    there = edit_inversion(method, inversion, [(ONE, 3.0)])
    assert there.feature is inversion.feature and there.space is inversion.space
    assert (method.synthesize(there) - method.synthesize(inversion)).abs().max() > 1e-2
    back = edit_inversion(method, there, [(ONE, -3.0)])
    torch.testing.assert_close(back.codes, inversion.codes, rtol=0, atol=1e-3)


def test_a_boundary_of_f_z_plus(tmp_path: Path) -> None:
    """The official (1, 18, 512) file, loaded and walked along, is the official script."""
    golden = goldens.Golden("zplus_64", 5e-5)
    described = golden.meta["walk"]
    boundary = official.latent(*described["boundary"][:2], 1).double()
    boundary = boundary / boundary.norm(dim=-1, keepdim=True)
    path = tmp_path / "age_ws_boundary.npy"
    np.save(path, boundary[None].numpy())
    (direction,) = load_directions(path, space=LatentSpace.Z_PLUS).values()
    assert direction.vector.shape == (18, 512) and direction.space is LatentSpace.Z_PLUS
    z = normalize_z(official.latent(*described["z"][:2], 1))
    strengths = torch.linspace(described["start"], described["end"], described["steps"])
    loop = move_of([(direction, strengths)], along=walk_in_steps)
    golden.check("walk", loop(z.expand(3, -1, -1)))
    moved = move_of([(direction, strengths)])(z.expand(3, -1, -1))
    golden.check("walk", moved, 2e-4)  # the rounding of a thousand sums in float32


@pytest.fixture(scope="module")
def generator() -> Generator:
    torch.manual_seed(0)
    generator = Generator(resolution=16, z_dim=12, w_dim=20, mapping_layers=2, channels=[6, 5, 4])
    return generator.eval().requires_grad_(False)


@pytest.mark.parametrize("space", [LatentSpace.Z, LatentSpace.Z_PLUS])
def test_boundaries_of_z(generator: Generator, space: LatentSpace, tmp_path: Path) -> None:
    """A planted direction is found on the sphere, kept by a file, and raises its score."""
    rng = torch.Generator().manual_seed(8)
    codes = sample_codes(generator, space=space, count=20_000, rng=rng)
    planted = random(9, *(codes.shape[1:] if space.has_rows else (1, 12)))
    scores = (codes * planted).flatten(1).sum(dim=1, keepdim=True)
    given = Samples(codes, scores, ["planted"])
    found = find_directions(given, ["planted"], Search(space=space))["planted"]
    cosine = (found.vector * planted).sum() / planted.norm() / found.vector.norm()
    assert cosine > 0.98 and found.vector.shape == planted.shape and found.space is space
    save_directions({"planted": found}, tmp_path / "z.safetensors", provenance={})
    found = load_directions(tmp_path / "z.safetensors")["planted"]
    assert found.space is space
    rows = codes[:50] if space.has_rows else codes[:50, None].expand(-1, 6, -1)
    moved = move_of([(found, 2.0)])(rows)
    assert ((moved * planted).sum(dim=(1, 2)) > (rows * planted).sum(dim=(1, 2))).all()


def test_components_of_z_are_the_regression_of_ganspace(generator: Generator) -> None:
    """`decomposition.py`: z fitted by least squares from the coordinates of w."""
    import scipy.linalg
    from sklearn.decomposition import PCA

    given = {"count": 4, "num_samples": 12_000, "seed": 3}
    found = ganspace.components_of_generator(generator, space=LatentSpace.Z, **given)
    drawn = [*samples(generator, num_samples=12_000, seed=3)]
    z, w = (torch.cat(part).double().numpy() for part in zip(*drawn, strict=True))
    pca = PCA(n_components=4, svd_solver="full").fit(w)
    coordinates = pca.transform(w) / pca.explained_variance_**0.5
    fitted = scipy.linalg.lstsq(coordinates, z)[0]
    fitted /= np.linalg.norm(fitted, axis=1, keepdims=True)
    np.testing.assert_allclose(abs((found.components.numpy() * fitted).sum(axis=1)), 1, atol=1e-5)
    of_w = ganspace.components_of_generator(generator, **given)
    signs = np.sign((of_w.components.numpy() * pca.components_).sum(axis=1))
    assert (np.sign((found.components.numpy() * fitted).sum(axis=1)) == signs).all()
    assert found.deviations.tolist() == [1.0] * 4
    direction = found.directions()["pc2"]
    assert direction.space is LatentSpace.Z and direction.semantics == "increment"
    assert "of Z" in direction.meaning


def test_files_of_ganspace_and_sefa_in_z(tmp_path: Path) -> None:
    """GANSpace names files of W by _w; increments of Z in one step are the script of F/Z+."""
    comp = random(10, 3, 1, 12)
    arrays = {"lat_comp": comp, "lat_mean": random(11, 1, 12), "lat_stdev": torch.ones(3)}
    stem = "stylegan2-ffhq_style_ipca_c3_n1000"
    for end, space in (("", "Z"), ("_w", "W"), ("_seed3", "Z"), ("_w_seed3", "W")):
        path = tmp_path / f"{stem}{end}.npz"
        np.savez(path, **{key: value.numpy() for key, value in arrays.items()})
        found = load_directions(path)
        assert {direction.space for direction in found.values()} == {space}
        semantics = "increment" if space == "Z" else "coordinate"
        assert found["pc1"].semantics == semantics and list(found) == ["pc0", "pc1", "pc2"]
    as_z = load_directions(tmp_path / f"{stem}_w.npz", space=LatentSpace.Z_PLUS)
    assert as_z["pc0"].space is LatentSpace.Z_PLUS
    moved = move_of([(as_z["pc0"], 3.0)], along=lambda z, by: walk_in_steps(z, by, steps=1))(CODES)
    torch.testing.assert_close(moved, normalize_z(CODES + 3 * comp[0]))
    torch.save({"eigvec": torch.eye(12)}, tmp_path / "factor.pt")
    assert len(load_directions(tmp_path / "factor.pt")) == 12
    with pytest.raises(ValueError, match="directions of SeFa, which are of W, not of Z"):
        load_directions(tmp_path / "factor.pt", space=LatentSpace.Z)


def test_codes_of_w_have_no_way_back(method: InversionMethod) -> None:
    inversion = Inversion(codes=random(12, 1, 8, 20), space=LatentSpace.W_PLUS)
    with pytest.raises(ValueError, match="one was found in Z, the codes are of W"):
        edit_inversion(method, inversion, [(ONE, 1.0)])
