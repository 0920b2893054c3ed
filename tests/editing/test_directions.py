"""What a direction promises: its shift, the codes it refuses, and how edits add up."""

import logging
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from clcae.methods.e4e import E4E
from clcae.stylegan2 import Generator, LatentSpace
from editing import (
    Direction,
    LatentStatistics,
    Watch,
    chosen_edits,
    edit_inversion,
    move_of,
    parse_edit,
)
from editing.directions import cosines
from editing.report import listing

CODES = torch.randn(3, 10, 20, generator=torch.Generator().manual_seed(0))


def vector(seed: int, rows: int = 1) -> Tensor:
    values = torch.randn(rows, 20, generator=torch.Generator().manual_seed(seed))
    return values / values.norm()


ALL = Direction(name="all", vector=vector(1), unit=1.7)
SOME = Direction(name="some", vector=vector(2), layers=(2, 5))
ROWS = Direction(name="rows", vector=vector(3, 10))
ABSOLUTE = Direction(
    name="pc", vector=vector(4), unit=2.5, semantics="coordinate", center=vector(5)
)


@pytest.mark.parametrize("direction", [ALL, SOME, ROWS], ids=lambda d: d.name)
def test_zero_is_the_identity_and_the_way_back_returns(direction: Direction) -> None:
    assert (move_of([(direction, 0.0)])(CODES) - CODES).abs().max() <= 1e-5
    there = move_of([(direction, 2.5)])(CODES)
    assert (there - CODES).norm() > 1
    assert (move_of([(direction, -2.5)])(there) - CODES).abs().max() <= 1e-4


def test_no_edit_at_all_is_the_identity() -> None:
    assert torch.equal(move_of([])(CODES), CODES)


def test_a_range_moves_its_rows_alone() -> None:
    moved = move_of([(SOME, 3.0)])(CODES) - CODES
    expected = torch.zeros(10, 20)
    expected[2:5] = 3 * SOME.vector
    torch.testing.assert_close(moved, expected.expand(3, -1, -1), rtol=0, atol=1e-6)


def test_a_coordinate_is_reached_and_zero_is_no_identity() -> None:
    assert ABSOLUTE.center is not None
    moved = move_of([(ABSOLUTE, 0.0)])(CODES)
    assert not torch.allclose(moved, CODES, atol=1e-2)
    for strength in (0.0, -3.0, 4.0):
        once = move_of([(ABSOLUTE, strength)])(CODES)
        coordinate = (once[:, 0] - ABSOLUTE.center) @ ABSOLUTE.vector[0] / ABSOLUTE.unit
        torch.testing.assert_close(coordinate, torch.full((3,), strength), rtol=0, atol=1e-5)
        twice = move_of([(ABSOLUTE, strength)])(once)
        torch.testing.assert_close(twice, once, rtol=0, atol=1e-5)


def test_edits_add_up_in_any_order() -> None:
    edits = [(ALL, 1.0), (SOME, -2.0), (ABSOLUTE, 3.0), (ROWS, 0.5)]
    forwards, backwards = move_of(edits)(CODES), move_of(edits[::-1])(CODES)
    torch.testing.assert_close(forwards, backwards, rtol=0, atol=1e-5)
    apart = sum((move_of([edit])(CODES) - CODES for edit in edits), CODES)
    torch.testing.assert_close(forwards, apart, rtol=0, atol=1e-5)
    thrice = move_of([(ALL, 1.0), (ALL, 2.0)])(CODES)
    torch.testing.assert_close(thrice, move_of([(ALL, 3.0)])(CODES), rtol=0, atol=1e-5)


def test_codes_of_one_row() -> None:
    one = CODES[:, :1]
    moved = move_of([(ALL, 2.0)])(one)
    torch.testing.assert_close(moved, one + 3.4 * ALL.vector, rtol=0, atol=1e-6)
    pose = Direction(name="pose", vector=vector(6).expand(18, -1))  # as e4e's file, any rows
    torch.testing.assert_close(move_of([(pose, 1.0)])(one), one + vector(6), rtol=0, atol=1e-6)
    assert move_of([(pose, 1.0)])(CODES).shape == CODES.shape
    for direction, words in ((SOME, "layers 2-5"), (ROWS, "a row for each layer")):
        with pytest.raises(ValueError, match="the codes have one row for all layers") as caught:
            move_of([(direction, 1.0)])(one)
        assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("direction", "codes", "words"),
    [
        (ALL, torch.zeros(1, 10, 21), "all is 20 wide"),
        (ALL, torch.zeros(1, 20), "expected \\[N, L, 20\\]"),
        (ROWS, torch.zeros(1, 12, 20), "has 10 rows, the codes have 12"),
        (SOME, torch.zeros(1, 4, 20), "layers 2-5, the codes have 4 rows"),
    ],
)
def test_what_does_not_fit_is_one_line(direction: Direction, codes: Tensor, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        move_of([(direction, 1.0)])(codes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": "a=b"}, "without '='"),
        ({"name": ""}, "printable"),
        ({"name": "a\nb"}, "printable"),
        ({"vector": torch.zeros(1, 4)}, "is zero"),
        ({"vector": torch.ones(4)}, r"expected \[1, D\]"),
        ({"vector": torch.ones(1, 4, dtype=torch.int64)}, "floating point"),
        ({"vector": torch.tensor([[1.0, float("nan")]])}, "NaN"),
        ({"unit": 0.0}, "unit 0.0"),
        ({"unit": float("inf")}, "finite"),
        ({"strengths": (2.0, -2.0)}, "lowest first"),
        ({"layers": (3, 3)}, "layers 3 to 3"),
        ({"layers": (-1, 3)}, "layers -1 to 3"),
        ({"vector": torch.ones(4, 3), "layers": (1, 5)}, "with 4 rows"),
        ({"semantics": "coordinate"}, "has a center"),
        ({"center": torch.zeros(1, 3)}, "an increment has none"),
        ({"semantics": "coordinate", "center": torch.zeros(1, 5)}, "equally wide"),
        ({"semantics": "other"}, "unknown"),
    ],
)
def test_a_direction_is_checked_when_made(changes: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        Direction(**({"name": "a", "vector": torch.ones(1, 3)} | changes))
    assert "\n" not in str(caught.value)


def test_strength_must_be_a_number() -> None:
    with pytest.raises(ValueError, match="strength nan"):
        move_of([(ALL, float("nan"))])(CODES)


def test_half_precision_and_cosines() -> None:
    assert move_of([(ALL, 1.0)])(CODES.half()).dtype == torch.float16
    table = cosines({"a": ALL, "b": SOME, "c": ROWS, "a again": replace(ALL, layers=(0, 4))})
    assert table.diagonal().allclose(torch.ones(4).double())
    assert abs(table[0, 3] - 1) < 1e-6 and table[0, 2].isnan()
    assert abs(table[0, 1] - (ALL.vector * SOME.vector).sum()) < 1e-6


def test_strengths_over_the_range() -> None:
    direction = Direction(name="all", vector=vector(1), strengths=(-2.0, 1.0))
    assert direction.spread(4) == [-2.0, -1.0, 0.0, 1.0]
    assert direction.digest() == Direction(name="other", vector=vector(1)).digest()
    assert direction.digest() != ALL.digest()


@pytest.mark.parametrize(
    ("text", "expected"),
    [("smile=2", ("smile", 2.0)), ("age=-1.5", ("age", -1.5)), (" pc3 = 1e1", ("pc3", 10.0))],
)
def test_parse_edit(text: str, expected: tuple[str, float]) -> None:
    assert parse_edit(text) == expected


@pytest.mark.parametrize("text", ["", "smile", "smile=", "=2", "smile=two", "smile=nan", "a=inf"])
def test_parse_edit_refuses_in_one_line(text: str) -> None:
    with pytest.raises(ValueError, match="expected NAME=STRENGTH such as smile=2") as caught:
        parse_edit(text)
    assert "\n" not in str(caught.value)


def test_chosen_edits() -> None:
    directions = {"all": ALL, "pc": Direction(name="pc", vector=vector(1), default=-20.0)}
    assert chosen_edits(directions, ["pc", "all=2"]) == [(directions["pc"], -20.0), (ALL, 2.0)]
    with pytest.raises(ValueError, match="no direction 'smile'; there are: all, pc"):
        chosen_edits(directions, ["smile=2"])


def test_statistics_are_exact_and_warn_once(caplog: pytest.LogCaptureFixture) -> None:
    codes = 100 + torch.randn(5000, 20, generator=torch.Generator().manual_seed(3)).double() * 2
    statistics = LatentStatistics.of_codes(codes.split(700))
    torch.testing.assert_close(statistics.mean, codes.mean(dim=0), rtol=1e-12, atol=0)
    torch.testing.assert_close(statistics.covariance, torch.cov(codes.T), rtol=1e-9, atol=1e-9)
    at_mean = statistics.mean.float().expand(2, 10, 20)
    deviation = float((codes @ ALL.vector[0].double()).std())
    move = move_of([(ALL, 6 * deviation / ALL.unit)], watch=Watch(statistics))
    with caplog.at_level(logging.WARNING):
        move(at_mean)
        move(at_mean)
        move_of([(ALL, 3 * deviation / ALL.unit)], watch=Watch(statistics))(at_mean)
        move_of([(ALL, -1.0)], watch=Watch(statistics))(move(at_mean))  # towards the mean
    assert len(caplog.messages) == 1
    assert "all: an edited code lies 6.0 standard deviations" in caplog.messages[0]


@pytest.mark.parametrize("batches", [[], [torch.zeros(1, 3)], [torch.zeros(2, 3, 4)]])
def test_statistics_refuse(batches: list[Tensor]) -> None:
    with pytest.raises(ValueError, match="expected"):
        LatentStatistics.of_codes(batches)
    with pytest.raises(ValueError, match="NaN"):
        LatentStatistics.of_codes([torch.full((2, 3), torch.nan)])


def test_a_method_edits_by_its_own_rule() -> None:
    torch.manual_seed(0)
    generator = Generator(
        resolution=64, z_dim=12, w_dim=20, mapping_layers=2, channels=[9, 8, 8, 7, 5]
    )
    method = E4E(
        generator=generator,
        image_size=32,
        stem_channels=6,
        stages=[[6, 1], [7, 1], [12, 2]],
        width=12,
    )
    method.eval().requires_grad_(False)
    inversion = method.invert(torch.zeros(2, 3, 32, 32))
    edited = edit_inversion(method, inversion, [(ALL, 1.0), (SOME, 2.0)])
    expected = inversion.codes + 1.7 * ALL.vector
    expected[:, 2:5] += 2 * SOME.vector
    torch.testing.assert_close(edited.codes, expected)
    assert method.synthesize(edited).shape == (2, 3, 64, 64)
    narrow = Direction(name="narrow", vector=torch.ones(1, 4))
    other = Direction(name="other", vector=torch.ones(1, 12), space=LatentSpace.Z)
    twelve = Direction(name="twelve", vector=vector(3, 12))
    for direction, words in (
        (narrow, "narrow is 4 wide, the generator's W is 20"),
        (other, r"other was found in Z, the codes are of W\+"),
        (twelve, "twelve has 12 rows, the codes have 10"),
        (replace(SOME, layers=(2, 11)), "some moves layers 2-11, the codes have 10 rows"),
    ):
        with pytest.raises(ValueError, match=words):
            edit_inversion(method, inversion, [(direction, 1.0)])


def test_a_listing_prints_nothing_that_steers_a_terminal() -> None:
    strange: dict = {"identity": 3, "change": 0.5, "largest_leak": "x\x1b[2J"}
    direction = Direction(
        name="a",
        vector=torch.ones(1, 4),
        meaning="one\x1b[2J\n" + "x" * 1_000_000,
        provenance=strange,
    )
    text = listing({"a": direction})
    assert "\x1b" not in text and len(text) < 3000 and len(text.splitlines()) < 9
