"""True edits: one label moved, nothing else; masks of the change and of each detail."""

import pytest
import torch

from clcae.data.sources import ImageSource
from clcae.portraits import (
    ATTRIBUTES,
    DETAILS,
    TRUE_EDITS,
    PortraitImages,
    TrueEditImages,
    decode,
    render,
)

PEOPLE = 6
SOURCE = TrueEditImages(num_people=PEOPLE)


def test_every_edit_has_its_steps_and_people() -> None:
    assert isinstance(SOURCE, ImageSource)
    steps = sum(len(edit.steps) for edit in TRUE_EDITS.values())
    assert (len(TRUE_EDITS), steps, len(SOURCE)) == (9, 30, 30 * PEOPLE)
    names = [SOURCE.name(index) for index in range(len(SOURCE))]
    assert len({*names}) == len(names)
    assert names[SOURCE.rows("yaw-", -0.5)[2]] == "test/00005 yaw-0.5"


@pytest.mark.parametrize("edit", TRUE_EDITS)
def test_one_label_moves_and_outside_the_mask_nothing_does(edit: str) -> None:
    column = ATTRIBUTES.index(TRUE_EDITS[edit].attribute)
    areas = []
    for step in TRUE_EDITS[edit].steps:
        pairs = SOURCE.pairs(SOURCE.rows(edit, step))
        assert pairs.amounts.tolist() == pytest.approx([step] * PEOPLE)
        low = -1.0 if edit[:-1] in ("smile", "yaw") else 0.0
        moved = pairs.attributes[:, column] + step
        assert ((moved >= low) & (moved <= 1.0)).all()
        outside = ~pairs.changed.unsqueeze(1).expand_as(pairs.images)
        assert torch.equal(pairs.images[outside], pairs.edited[outside])
        assert (pairs.images != pairs.edited).any(dim=1).equal(pairs.changed)
        areas.append(pairs.changed.double().mean().item())
        assert 0.002 < areas[-1] < 0.5
        # What is far from the head and what only hangs on the scene stays.
        assert not pairs.changed[:, :, [0, -1]].any()
        if edit[:-1] in ("smile", "beard"):
            assert not pairs.changed[:, :16].any()  # the hair
        if edit[:-1] == "glasses":
            assert not pairs.changed[:, 44:].any()  # below the nose
    assert areas == sorted(areas) or areas[0] > 0.25


def test_an_input_is_the_portrait_of_the_split(tmp_path: object) -> None:
    pairs = SOURCE.pairs(SOURCE.rows("age+", 0.3))
    portraits = PortraitImages(split="test", cache=str(tmp_path), num_people=64)
    assert torch.equal(pairs.images, portraits.images(pairs.people))
    assert torch.equal(pairs.images, SOURCE.images(SOURCE.rows("age+", 0.3)))


def test_a_true_edit_equals_the_portrait_drawn_by_hand() -> None:
    pairs = SOURCE.pairs([SOURCE.rows("yaw+", 1.0)[3]])
    parameters = decode(PortraitImages(split="test").latents(pairs.people), detail_rate=0.5)
    parameters.attributes[0, ATTRIBUTES.index("yaw")] += 1.0
    difference = (render(parameters) - pairs.edited).abs().max()
    assert difference <= 1 / 255 + 1e-6  # 256 levels


def test_details_show_where_a_picture_differs_from_one_without_them() -> None:
    pairs = SOURCE.pairs(SOURCE.rows("yaw+", 0.5))
    parameters = decode(PortraitImages(split="test").latents(pairs.people), detail_rate=0.5)
    assert parameters.details.any(dim=0).all()
    shown = pairs.details.flatten(2).any(dim=2)
    assert not shown[parameters.details == 0].any()
    assert shown[parameters.details == 1].double().mean() > 0.9  # hair may hide an earring
    # Earrings, headband, freckles and strand turn with the head; badge and pattern stay.
    moved = (pairs.details != pairs.edited_details).flatten(2).any(dim=2).any(dim=0)
    turned = dict(zip(DETAILS, moved.tolist(), strict=True))
    assert turned["earrings"] and turned["headband"] and turned["freckles"] and turned["strand"]
    assert not turned["badge"]


def test_pairs_do_not_depend_on_what_else_is_asked() -> None:
    every = SOURCE.pairs(range(0, len(SOURCE), 7))
    one = SOURCE.pairs([14])
    for field in ("images", "edited", "changed", "details", "edited_details", "amounts"):
        assert torch.equal(getattr(every, field)[2:3], getattr(one, field))
    fewer = TrueEditImages(edits={"smile+": [0.5]}, num_people=PEOPLE)
    assert torch.equal(fewer.pairs([1]).edited, SOURCE.pairs([PEOPLE + 1]).edited)
    assert fewer.name(1) == SOURCE.name(PEOPLE + 1)


def test_the_number_of_threads_is_left_as_it_was() -> None:
    before = torch.get_num_threads()
    SOURCE.pairs([0])
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"edits": ["hat+"]}, r"edits has 'hat\+': there are smile\+, "),
        ({"edits": []}, "edits is empty"),
        ({"edits": {"smile+": [0.5, 0.25]}}, r"steps of smile\+ are \[0.5, 0.25\]: expected"),
        ({"edits": {"smile-": [0.5]}}, "steps of smile- are"),
        ({"num_people": 0}, "num_people is 0: of 2824 people"),
        ({"num_people": 2000}, r"num_people is 2000: of .* have room for smile\+"),
    ],
)
def test_mistakes_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrueEditImages(**arguments)  # type: ignore[arg-type]


def test_unknown_pairs_are_refused() -> None:
    with pytest.raises(IndexError, match=f"index {len(SOURCE)} is out of range"):
        SOURCE.pairs([len(SOURCE)])
    with pytest.raises(ValueError, match=r"no edit 'smile\+' of \+2; there are smile\+ \+0.25"):
        SOURCE.rows("smile+", 2.0)
