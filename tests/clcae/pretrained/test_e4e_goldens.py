"""e4e and pSp from their official layout, against the outputs of the official modules."""

import re
from typing import Any

import goldens
import official
import pytest
import torch
from official_files import e4e_to_checkpoint
from torch import Tensor

from clcae.methods.e4e import E4E, PSP
from clcae.pretrained.e4e import e4e_from_state

TOLERANCE = 5e-5  # tests/fixtures/README.md


@pytest.fixture(scope="module")
def contents() -> dict[str, Any]:
    return official.checkpoint("e4e_256")  # a gigabyte: not kept for the whole test run


@pytest.fixture(scope="module")
def e4e(contents: dict[str, Any]) -> E4E:
    method = e4e_from_state(contents["state_dict"], contents["latent_avg"], kind="e4e")
    assert isinstance(method, E4E)
    return method


def cars(golden: goldens.Golden) -> Tensor:
    entry = golden.meta["image_cars"]
    return official.image(*entry["size"], seed=entry["seed"])


@torch.no_grad()
def test_e4e_codes_stages_and_pictures(e4e: E4E) -> None:
    golden = goldens.Golden("e4e_256", TOLERANCE)
    images = golden.images()
    inversion = e4e.invert(images)
    golden.check("codes", inversion.codes)
    golden.check("image", e4e.reconstruct(images))
    golden.check("codes_cars", e4e.invert(cars(golden)).codes)
    golden.check("codes_stage0", e4e.encoder(images[:1], stage=0) + e4e.latent_average)
    golden.check("codes_stage5", e4e.encoder(images[:1], stage=5) + e4e.latent_average)
    assert e4e.reconstruct(cars(golden)).shape == (1, 3, 192, 256)


@torch.no_grad()
def test_psp_reads_the_same_weights_as_absolute_codes(contents: dict[str, Any]) -> None:
    golden = goldens.Golden("e4e_256", TOLERANCE)
    method = e4e_from_state(contents["state_dict"], contents["latent_avg"], kind="psp")
    assert isinstance(method, PSP)
    golden.check("codes_psp", method.invert(golden.images()[:1]).codes)


def test_keys_come_back_as_they_were(contents: dict[str, Any], e4e: E4E) -> None:
    back = e4e_to_checkpoint(e4e)
    assert torch.equal(back["latent_avg"], contents["latent_avg"])
    assert back["opts"]["encoder_type"] == "Encoder4Editing"
    state = contents["state_dict"]
    assert set(back["state_dict"]) == set(state)
    for key, value in back["state_dict"].items():
        assert value.shape == state[key].shape
        torch.testing.assert_close(value, state[key], rtol=0, atol=1e-6)


def test_an_old_cars_file_has_heads_and_rows_too_many(contents: dict[str, Any], e4e: E4E) -> None:
    surplus = {
        re.sub("styles.13", f"styles.{row}", key): value + 1.0
        for key, value in contents["state_dict"].items()
        if key.startswith("encoder.styles.13.")
        for row in (14, 15)
    }
    rows = torch.randn(16, 512, generator=torch.Generator().manual_seed(0))
    method = e4e_from_state({**contents["state_dict"], **surplus}, rows, kind="e4e")
    assert torch.equal(method.latent_average, rows[:14])  # rows that differ are kept as they are
    weights = method.encoder.heads[13].linear.weight  # type: ignore[union-attr]
    assert torch.equal(weights, e4e.encoder.heads[13].linear.weight)  # type: ignore[union-attr, arg-type]


def test_one_row_for_the_average(contents: dict[str, Any]) -> None:
    row = contents["latent_avg"][0]
    state = contents["state_dict"]
    method = e4e_from_state(state, row, kind="psp")
    assert torch.equal(method.latent_average, row.expand(14, -1))
    assert torch.equal(method.generator.w_average, row)
    with pytest.raises(ValueError, match=r"\(8, 512\), expected 14 rows"):
        e4e_from_state(state, contents["latent_avg"][:8], kind="e4e")
    with pytest.raises(ValueError, match=r"\(1, 14, 512\), expected \[rows, 512\]"):
        e4e_from_state(state, contents["latent_avg"][None], kind="e4e")


def test_what_does_not_fit_is_listed(contents: dict[str, Any]) -> None:
    state, average = dict(contents["state_dict"]), contents["latent_avg"]
    del state["encoder.styles.13.linear.bias"]
    state["encoder.extra.weight"] = torch.zeros(1)
    state["encoder.input_layer.0.weight"] = torch.zeros(64, 6, 3, 3)  # as ReStyle's
    with pytest.raises(ValueError, match="no e4e file") as caught:
        e4e_from_state(state, average, kind="e4e")
    line = str(caught.value)
    assert "\n" not in line
    for part in (
        "1 missing (encoder.styles.13.linear.bias)",
        "1 unexpected (encoder.extra.weight)",
        "1 of another shape (encoder.input_layer.0.weight (64, 6, 3, 3))",
    ):
        assert part in line
    state = dict(contents["state_dict"])
    del state["decoder.to_rgb1.bias"]
    with pytest.raises(ValueError, match=r"its decoder\.\* do not fit.*1 missing \(to_rgb1.bias\)"):
        e4e_from_state(state, average, kind="e4e")


def test_other_files_are_refused() -> None:
    with pytest.raises(ValueError, match=r"2 missing \(encoder\.styles\.0"):
        e4e_from_state(goldens.state("rosinality_64", "g_ema"), torch.zeros(512), kind="e4e")
    with pytest.raises(ValueError, match="'restyle'"):
        e4e_from_state({}, torch.zeros(512), kind="restyle")  # type: ignore[arg-type]


@pytest.mark.slow
@torch.no_grad()
def test_e4e_at_1024() -> None:
    golden = goldens.Golden("e4e_1024", TOLERANCE)
    whole = official.checkpoint("e4e_1024")
    method = e4e_from_state(whole["state_dict"], whole["latent_avg"], kind="e4e")
    del whole
    images = golden.images()
    inversion = method.invert(images)
    golden.check("codes", inversion.codes)
    golden.check("image_full", method.synthesize(inversion))
    golden.check("image", method.reconstruct(images))
