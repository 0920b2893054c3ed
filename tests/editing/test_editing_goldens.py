"""The official edits of tests/fixtures: GANSpace, SeFa, the factorization, InterFaceGAN."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import official
import pytest
import torch
from goldens import Golden, checkpoint, relative_error

from clcae.pretrained.loading import import_checkpoint
from clcae.stylegan2 import Generator
from editing import Direction, interfacegan, move_of, sefa
from editing.ganspace import PrincipalComponents

TOLERANCE = 1e-5  # of tests/fixtures/README.md
LEADING = 2e-2  # the leading eigenvalues lie within 1 % of each other


@cache
def golden() -> Golden:
    return Golden("editing", TOLERANCE)


@cache
def pca() -> PrincipalComponents:
    components = official.latent("pca.comp", (80, 1, 512), 1)[:, 0]
    return PrincipalComponents(
        mean=official.latent("pca.mean", (1, 512), 1, 0.3),
        components=components / components.norm(dim=1, keepdim=True),
        deviations=2.5 * 0.97 ** torch.arange(80.0),
    )


def generator(folder: Path) -> Generator:
    path = folder / "rosinality_64.pt"
    torch.save(checkpoint("rosinality_64"), path)
    module = import_checkpoint(path).module
    assert isinstance(module, Generator)
    return module


def test_ganspace() -> None:
    codes = golden().latent("codes")
    edited, deltas = [], []
    for code in codes:
        for component, first, end, strength in golden().meta["ganspace_directions"]:
            direction = pca().direction(component, layers=(first, end), semantics="coordinate")
            moved = move_of([(direction, strength)])(code[None])[0]
            edited.append(moved)
            shift = direction.shift(code[None], strength)[0]
            deltas.append(shift[first])
            assert torch.equal(moved[:first], code[:first])
            assert torch.equal(moved[end:], code[end:])
    golden().check("ganspace_delta", torch.stack(deltas))
    golden().check("ganspace_edit", torch.stack(edited))


def test_sefa(tmp_path: Path) -> None:
    network = generator(tmp_path)
    asked = golden().meta["sefa"]["layers"]
    layers = (asked[0], asked[-1] + 1)
    values, vectors = sefa.factorize(network, layers=layers)
    golden().check("sefa_values", values[:64])
    golden().check("sefa_vectors", vectors[:6], LEADING)
    below = [layer - 1 for layer in asked if layer != 0]  # that e4e's code moves
    assert below == golden().entries["sefa_layers"].tolist()
    direction = sefa.directions_of(vectors, count=1, rows=layers)["sefa0"]
    moved = direction.shift(torch.zeros(1, 10, 512), 1.0)[0].any(dim=1)
    assert moved.nonzero()[:, 0].tolist() == asked  # the rows that these layers read


def test_factorization_of_all_layers(tmp_path: Path) -> None:
    values, vectors = sefa.factorize_whole(generator(tmp_path))
    golden().check("factor_singular", values[:64])
    golden().check("factor_vectors", vectors[:6], LEADING)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_conditional_boundaries(count: int) -> None:
    rows = torch.from_numpy(golden().entries["boundary_inputs"])[:, None]
    found = interfacegan.conditional(rows[0], list(rows[1 : 1 + count]))
    golden().check(f"boundary_project{count}", found)


def test_interpolations() -> None:
    """The official `linear_interpolate`: to a distance for codes of two axes, by one for three."""
    z, zplus = (
        official.latent(*golden().meta["interpolate"][k][:1], golden().meta["interpolate"][k][1], 1)
        for k in ("z", "zplus")
    )
    boundary = torch.from_numpy(golden().entries["boundary_inputs"][:1]).float()
    by = Direction(name="by", vector=boundary)
    to = replace(by, semantics="coordinate", center=torch.zeros_like(boundary))
    distances = np.linspace(-3, 3, 5)
    reached = torch.cat([move_of([(to, d)])(z[None])[0] for d in distances.tolist()])
    golden().check("interpolate_2d", reached)
    moved = torch.cat([move_of([(by, d)])(zplus) for d in distances.tolist()])
    golden().check("interpolate_3d", moved)
    projected = reached.double() @ boundary[0].double()
    assert relative_error(projected, torch.from_numpy(distances)) < 1e-5


def test_svm_boundary() -> None:
    codes = official.latent("svm.codes", (400, 16), 1)
    noise = official.latent("svm.noise", (400,), 1)
    scores = codes @ official.latent("svm.normal", (16,), 1) + 0.3 * noise
    meta = golden().meta["svm"]
    found = interfacegan.train_boundary(
        codes, scores, share=meta["ratio"], split=meta["split"], seed=meta["numpy_seed"]
    )
    golden().check("svm_boundary", found.normal, 1e-3)
    assert found.accuracy > 0.9 and found.num_extremes == 80
