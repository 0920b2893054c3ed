"""Decodes the latents of a portrait into its appearance and its labels.

A portrait is drawn from standard-normal latents, in four contiguous groups: the person, the
labelled attributes, the scene and the rare details. Every appearance parameter is a smooth monotone
function of one latent (uniform through the normal distribution function, then scaled), so that a
generator fed with Gaussian noise has an easy target. Only the presence of glasses and of each
detail is a threshold, and the kind of a badge or of a pattern is one of three.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor


class Group(StrEnum):
    """The four groups of latents, in the order of their columns."""

    IDENTITY = "identity"
    ATTRIBUTE = "attribute"
    SCENE = "scene"
    DETAIL = "detail"


ATTRIBUTES = ("smile", "yaw", "pitch", "age", "glasses", "beard", "eye_openness", "light")
DETAILS = ("earrings", "headband", "badge", "pattern", "freckles", "strand")

# Ranges are uniform. Lengths are in the canvas's units, angles in radians; what has neither is a
# position on a palette or on a scale of its own, from 0 to 1.
IDENTITY_RANGES: Mapping[str, tuple[float, float]] = {
    "face_width": (0.375, 0.465),  # half the width at the cheekbones
    "skull_height": (0.50, 0.57),  # centre of the head to its top
    "chin_length": (0.47, 0.585),  # centre of the head to the chin
    "jaw_taper": (0.05, 0.34),  # part of the width lost at the chin
    "jaw_square": (1.9, 3.3),  # exponent of the jaw's outline
    "skin_tone": (0.0, 1.0),  # deep to fair
    "skin_warmth": (-1.0, 1.0),  # olive to rosy
    "hair_colour": (0.0, 1.0),  # black to platinum
    "hair_hue": (0.0, 1.0),  # the hue where hair is dyed
    "hair_dye": (0.0, 1.0),  # dyed from about 0.86
    "hair_length": (0.0, 1.0),  # above the ears to past the shoulders
    "hair_volume": (0.0, 1.0),  # flat to wide
    "hair_fringe": (0.0, 1.0),  # open forehead to a fringe over the brows
    "hair_parting": (-1.0, 1.0),  # left to right
    "hair_sweep": (-1.0, 1.0),  # the slope of the hairline
    "hair_curl": (0.0, 1.0),  # smooth to curly
    "hair_phase": (0.0, 3.2),  # where the waves lie
    "hair_cover": (0.0, 1.0),  # how far the side locks come in
    "hairline": (0.0, 1.0),  # low to high
    "eye_spacing": (0.38, 0.52),  # in half widths of the face
    "eye_size": (0.094, 0.130),  # half the width of an eye
    "eye_roundness": (0.62, 0.92),  # height over width
    "eye_slant": (-0.035, 0.035),  # rise of the outer corner
    "eye_height": (-0.035, 0.04),
    "eye_colour": (0.0, 1.0),  # dark brown to blue
    "brow_thickness": (0.014, 0.036),
    "brow_angle": (-0.026, 0.042),
    "brow_height": (0.045, 0.085),
    "nose_length": (0.15, 0.235),
    "nose_width": (0.048, 0.092),
    "mouth_width": (0.125, 0.185),
    "mouth_height": (0.38, 0.52),  # nose to chin
    "lip_fullness": (0.016, 0.042),
    "lip_colour": (0.0, 1.0),
    "ear_size": (0.075, 0.135),
    "neck_width": (0.15, 0.225),
}
SCENE_RANGES: Mapping[str, tuple[float, float]] = {
    "background_hue": (0.0, 1.0),
    "background_light": (0.0, 1.0),
    "background_saturation": (0.06, 0.42),
    "background_shift": (-0.13, 0.13),  # hue of the bottom against the top
    "clothes_hue": (0.0, 1.0),
    "clothes_saturation": (0.1, 0.68),
    "clothes_light": (0.2, 0.88),
    "collar_hue": (0.0, 1.0),
    "collar_light": (0.25, 0.97),
    "neckline_depth": (0.62, 0.86),
    "neckline_shape": (0.0, 1.0),  # V to round
    "jacket": (0.0, 1.0),  # a closed shirt to an open jacket
    "shoulder_width": (0.70, 0.94),
    "frame_size": (0.130, 0.172),  # half the width of a lens
    "frame_roundness": (0.0, 1.0),  # square to round
    "frame_hue": (0.0, 1.0),
    "frame_light": (0.04, 0.5),
}
DETAIL_RANGES: Mapping[str, tuple[float, float]] = {
    "earring_hue": (0.0, 1.0),
    "earring_size": (0.036, 0.056),
    "earring_length": (0.0, 0.12),
    "headband_hue": (0.0, 1.0),
    "headband_light": (0.35, 0.95),
    "headband_width": (0.06, 0.11),
    "headband_hat": (0.0, 1.0),  # a headband to a full cap
    "badge_kind": (0.0, 1.0),
    "badge_hue": (0.0, 1.0),
    "badge_size": (0.078, 0.105),
    "badge_x": (-0.42, 0.42),
    "pattern_kind": (0.0, 1.0),
    "pattern_frequency": (1.6, 3.4),  # cycles in half the picture's side
    "pattern_angle": (-0.8, 0.8),
    "pattern_hue": (0.0, 1.0),
    "freckle_density": (0.45, 1.0),
    "freckle_phase": (0.0, 1.0),
    "strand_side": (-1.0, 1.0),
    "strand_curve": (-1.0, 1.0),
    "strand_width": (0.026, 0.042),
}

_NAMES: Mapping[Group, tuple[str, ...]] = {
    Group.IDENTITY: tuple(IDENTITY_RANGES),
    Group.ATTRIBUTE: ATTRIBUTES,
    Group.SCENE: tuple(SCENE_RANGES),
    Group.DETAIL: (*DETAILS, *DETAIL_RANGES),
}
NUM_LATENTS = sum(len(names) for names in _NAMES.values())
NUM_PLAIN_LATENTS = NUM_LATENTS - len(_NAMES[Group.DETAIL])
_HUES = [
    column
    for column, name in enumerate(name for names in _NAMES.values() for name in names)
    if name.endswith("_hue") and column < NUM_PLAIN_LATENTS
]
GLASSES_RATE = 0.30
BEARDLESS_RATE = 0.55


@dataclass(frozen=True)
class PortraitParameters:
    """Appearance and labels of a batch of portraits, as the renderer takes them.

    Args:
        values: appearance parameters by name, in the ranges of the tables above.
        attributes: the labels, in the order of ATTRIBUTES: smile, yaw (positive to the picture's
            right), pitch (positive up) and light (positive from the picture's right) in [-1, 1];
            age, beard and eye_openness in [0, 1]; glasses 0 or 1.
        details: 1 where a detail is present, in the order of DETAILS.
    """

    values: Mapping[str, Tensor]  # each [N]
    attributes: Tensor  # [N, 8]
    details: Tensor  # [N, 6], 0 or 1

    def __len__(self) -> int:
        return self.attributes.shape[0]

    def slice(self, start: int, stop: int) -> "PortraitParameters":
        """Returns the portraits from `start` up to but without `stop`."""
        return PortraitParameters(
            values={name: value[start:stop] for name, value in self.values.items()},
            attributes=self.attributes[start:stop],
            details=self.details[start:stop],
        )


def group_slice(group: Group) -> slice:
    """Returns the columns of one group of latents."""
    start = 0
    for name, members in _NAMES.items():
        if name == group:
            break
        start += len(members)
    return slice(start, start + len(_NAMES[group]))


def decode(
    latents: Tensor,  # [N, NUM_LATENTS], standard normal
    *,
    detail_rate: float,
) -> PortraitParameters:
    """Decodes latents, one row a portrait, into the parameters of portraits.

    `detail_rate` is the probability of each detail, independently of the others.

    Raises:
        ValueError: if the latents have another shape or the rate is no probability.
    """
    if latents.ndim != 2 or latents.shape[1] != NUM_LATENTS:
        raise ValueError(f"latents have shape {tuple(latents.shape)}; accepted: (N, {NUM_LATENTS})")
    if not 0.0 <= detail_rate <= 1.0:
        raise ValueError(f"detail_rate is {detail_rate}; accepted: from 0 to 1")
    uniforms = torch.special.ndtr(latents)
    values: dict[str, Tensor] = {}
    tables = (
        (Group.IDENTITY, IDENTITY_RANGES),
        (Group.SCENE, SCENE_RANGES),
        (Group.DETAIL, DETAIL_RANGES),
    )
    for group, table in tables:
        columns = uniforms[:, group_slice(group)][:, -len(table) :]
        for column, (name, (low, high)) in zip(columns.unbind(1), table.items(), strict=True):
            values[name] = low + (high - low) * column
    presence = uniforms[:, group_slice(Group.DETAIL)][:, : len(DETAILS)]
    return PortraitParameters(
        values=values,
        attributes=_decode_attributes(latents[:, group_slice(Group.ATTRIBUTE)]),
        details=(presence > 1.0 - detail_rate).to(latents.dtype),
    )


def scores(
    latents: Tensor,  # [N, NUM_PLAIN_LATENTS], standard normal
) -> Tensor:
    """Computes regression targets [N, NUM_PLAIN_LATENTS + 2 * hues], each of variance about one.

    Every latent becomes its uniform score, glasses become worn or not, and hues are repeated as
    points on a circle, since the first and the last of them look alike.

    Raises:
        ValueError: if the latents have another shape.
    """
    if latents.ndim != 2 or latents.shape[1] != NUM_PLAIN_LATENTS:
        raise ValueError(
            f"latents have shape {tuple(latents.shape)}; accepted: (N, {NUM_PLAIN_LATENTS})"
        )
    uniforms = torch.special.ndtr(latents)
    linear = (2.0 * uniforms - 1.0) * math.sqrt(3.0)
    glasses = group_slice(Group.ATTRIBUTE).start + ATTRIBUTES.index("glasses")
    worn = (uniforms[:, glasses] > 1.0 - GLASSES_RATE).to(latents.dtype)
    linear[:, glasses] = (worn - GLASSES_RATE) / math.sqrt(GLASSES_RATE * (1.0 - GLASSES_RATE))
    angles = 2.0 * math.pi * uniforms[:, _HUES]
    return torch.cat([linear, angles.cos() * math.sqrt(2.0), angles.sin() * math.sqrt(2.0)], dim=1)


def _decode_attributes(
    latents: Tensor,  # [N, 8]
) -> Tensor:
    """Decodes labels [N, 8] in the order of ATTRIBUTES."""
    uniform = dict(zip(ATTRIBUTES, torch.special.ndtr(latents).unbind(1), strict=True))
    # Uniform draws would look grumpy, old and asleep too often: three labels lean the other way.
    smile, age, eye_openness = (
        torch.special.ndtr(latents[:, ATTRIBUTES.index(name)] * scale + shift)
        for name, scale, shift in (
            ("smile", 0.95, 0.3),
            ("age", 1.0, -0.35),
            ("eye_openness", 0.85, 0.85),
        )
    )
    labels = {
        "smile": 2.0 * smile - 1.0,
        "yaw": 2.0 * uniform["yaw"] - 1.0,
        "pitch": 2.0 * uniform["pitch"] - 1.0,
        "age": age,
        "glasses": (uniform["glasses"] > 1.0 - GLASSES_RATE).to(latents.dtype),
        "beard": (uniform["beard"] - BEARDLESS_RATE).clamp_min(0.0) / (1.0 - BEARDLESS_RATE),
        "eye_openness": eye_openness,
        "light": 2.0 * uniform["light"] - 1.0,
    }
    return torch.stack([labels[name] for name in ATTRIBUTES], dim=1)
