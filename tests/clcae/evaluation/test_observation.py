"""A method of any space is observed, edits included."""

import pytest
import torch
from small_methods import SIDE, small_projection

from clcae.evaluation.evaluate import EditMoves, MethodObserver
from clcae.evaluation.tally import codes_of
from clcae.stylegan2 import LatentSpace

IMAGES = torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1)) * 2 - 1


@torch.no_grad()
def test_moves_of_w_act_on_codes_of_every_space() -> None:
    method = small_projection()
    edit = EditMoves(lambda codes: codes + 0.3, lambda codes: codes - 0.3, LatentSpace.W)
    observer = MethodObserver(
        method=method, outputs=method.outputs, shape=(SIDE, SIDE), edits={"more": edit}
    )
    observed = observer(IMAGES)
    assert list(observed) == ["Z", "Z+", "W", "W+"]
    for space, streams in observed.items():
        inversion = method.mapped(method.with_output(space).invert(IMAGES))
        torch.testing.assert_close(streams[codes_of("more")][1], inversion.codes)
        edited = method.synthesize(method.edit(inversion, edit.move))
        torch.testing.assert_close(streams["more"][0], edited)


def test_moves_of_z_cannot_act_on_codes_of_w() -> None:
    method = small_projection()
    edit = EditMoves(lambda codes: codes, lambda codes: codes, LatentSpace.Z)
    observer = MethodObserver(
        method=method, outputs=["W"], shape=(SIDE, SIDE), edits={"more": edit}
    )
    with pytest.raises(ValueError, match="a move of Z cannot act on codes of W"):
        observer(IMAGES)
