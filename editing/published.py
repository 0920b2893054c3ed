"""Edits that papers published for the GANSpace components of public generators, as data.

Faces: the 42 rows of StyleRes' `ganspace_configs.csv`, which hold e4e's and CLCAE's face edits too;
they belong to the components of StyleGAN2 FFHQ at 1024 (`ffhq_pca.pt`, 18 rows). Cars: e4e's
notebook and CLCAE's scripts, for `cars_pca.pt`; where the two differ (colour: -8 and -27) e4e's.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class ComponentEdit:
    """An edit by one component."""

    component: int  # counted from 0
    layers: tuple[int, int]  # rows first to end, exclusive
    strength: float  # the coordinate it is published with, in standard deviations


FACE_EDITS: Mapping[str, ComponentEdit] = {
    "frizzy_hair": ComponentEdit(31, (2, 6), 20),
    "background_blur": ComponentEdit(49, (6, 9), 20),
    "bald": ComponentEdit(21, (2, 5), 20),
    "big_smile": ComponentEdit(19, (4, 5), 20),
    "caricature_smile": ComponentEdit(26, (3, 8), 13),
    "scary_eyes": ComponentEdit(33, (6, 8), 20),
    "curly_hair": ComponentEdit(47, (3, 6), 20),
    "dark_bg_shiny_hair": ComponentEdit(13, (8, 9), 20),
    "dark_hair_and_light_pos": ComponentEdit(14, (8, 9), 20),
    "dark_hair": ComponentEdit(16, (8, 9), 20),
    "disgusted": ComponentEdit(43, (6, 8), -30),
    "displeased": ComponentEdit(36, (4, 7), 20),
    "eye_openness": ComponentEdit(54, (7, 8), 20),
    "eye_wrinkles": ComponentEdit(28, (6, 8), 20),
    "eyebrow_thickness": ComponentEdit(37, (8, 9), 20),
    "face_roundness": ComponentEdit(37, (0, 5), 20),
    "fearful_eyes": ComponentEdit(54, (4, 10), 20),
    "hairline": ComponentEdit(21, (4, 5), -20),
    "happy_frizzy_hair": ComponentEdit(30, (0, 8), 20),
    "happy_elderly_lady": ComponentEdit(27, (4, 7), 20),
    "head_angle_up": ComponentEdit(11, (1, 4), 20),
    "huge_grin": ComponentEdit(28, (4, 6), 20),
    "in_awe": ComponentEdit(23, (3, 6), -15),
    "wide_smile": ComponentEdit(23, (3, 6), 20),
    "large_jaw": ComponentEdit(22, (3, 6), 20),
    "light_lr": ComponentEdit(15, (8, 9), 10),
    "lipstick_and_age": ComponentEdit(34, (6, 11), 20),
    "lipstick": ComponentEdit(34, (10, 11), 20),
    "mascara_vs_beard": ComponentEdit(41, (6, 9), 20),
    "nose_length": ComponentEdit(51, (4, 5), -20),
    "elderly_woman": ComponentEdit(34, (6, 7), 20),
    "overexposed": ComponentEdit(27, (8, 18), 15),
    "screaming": ComponentEdit(35, (3, 7), -15),
    "short_face": ComponentEdit(32, (2, 6), -20),
    "show_front_teeth": ComponentEdit(59, (4, 5), 40),
    "smile": ComponentEdit(46, (4, 5), -20),
    "straight_bowl_cut": ComponentEdit(20, (4, 5), -20),
    "sunlight_in_face": ComponentEdit(10, (8, 9), 10),
    "trimmed_beard": ComponentEdit(58, (7, 9), 20),
    "white_hair": ComponentEdit(57, (7, 10), -24),
    "wrinkles": ComponentEdit(20, (6, 7), -18),
    "boyishness": ComponentEdit(8, (2, 5), 20),
}

CAR_EDITS: Mapping[str, ComponentEdit] = {
    "viewpoint": ComponentEdit(0, (0, 5), 2),
    "cube": ComponentEdit(16, (3, 6), 25),
    "colour": ComponentEdit(22, (9, 11), -8),
    "grass": ComponentEdit(41, (9, 11), -18),
}

# By how the file's name begins: what is inside does not say which generator it belongs to.
EDITS_BY_FILE: Mapping[str, Mapping[str, ComponentEdit]] = {"ffhq": FACE_EDITS, "cars": CAR_EDITS}
