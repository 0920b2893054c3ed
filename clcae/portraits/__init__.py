"""The embedded domain: procedural portraits with labels, drawn by index."""

from clcae.portraits.dataset import DETAIL_RATES, PortraitImages, Portraits
from clcae.portraits.parameters import (
    ATTRIBUTES,
    DETAILS,
    NUM_LATENTS,
    NUM_PLAIN_LATENTS,
    Group,
    PortraitParameters,
    decode,
    group_slice,
    scores,
)
from clcae.portraits.renderer import render
from clcae.portraits.true_edits import TRUE_EDITS, TrueEdit, TrueEditImages, TrueEditPairs

__all__ = [
    "ATTRIBUTES",
    "DETAILS",
    "DETAIL_RATES",
    "NUM_LATENTS",
    "NUM_PLAIN_LATENTS",
    "TRUE_EDITS",
    "Group",
    "PortraitImages",
    "PortraitParameters",
    "Portraits",
    "TrueEdit",
    "TrueEditImages",
    "TrueEditPairs",
    "decode",
    "group_slice",
    "render",
    "scores",
]
