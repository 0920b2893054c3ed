"""CLCAE's official files: the inversion models of faces and cars, and both towers of the aligner.

Every file is a dictionary with `state_dict` (and `opts`, which is never read: sizes come from the
tensors). Weights without effect are ignored by name: the query and key rows of every attention,
whose one token leaves them none, the norms and the position embedding that the official code never
uses, and the 1x1 convolutions whose output its image tower discards. They are not kept, so an
export (`KeyMap.to_theirs`) has zeros in those rows and lacks those keys.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from clcae.aligner import Aligner, ImageTower, LatentTower
from clcae.encoders.official import OfficialFeature, OfficialRows
from clcae.encoders.pyramid import Pyramid
from clcae.methods.official_clcae import OfficialCLCAE
from clcae.pretrained.keymap import (
    Entry,
    KeyMap,
    empty_for,
    encoder_settings,
    module_entries,
    require,
    section,
    trunk_entries,
)
from clcae.pretrained.rosinality import generator_from_state

METHOD = "CLCAE inversion model (state_dict)"
IMAGE_TOWER = "CLCAE image tower (state_dict)"
LATENT_TOWER = "CLCAE latent tower (state_dict)"
LAYERS = ("coarse", "medium", "fine")  # of the latent tower, in their order


def _value_rows(tensor: Tensor) -> Tensor:
    """Copies the value, the last third of query, key and value, which frees the rest."""
    return tensor[len(tensor) // 3 * 2 :].clone()


def _stacked(tensor: Tensor) -> Tensor:
    return torch.cat([torch.zeros_like(tensor), torch.zeros_like(tensor), tensor])


def _layer_entries(
    layer: nn.Module,
    *,
    source: str,
    target: str,
    attention: str,
    parts: Mapping[str, str],  # our name -> theirs
) -> list[Entry]:
    """Lists the entries of a transformer layer whose attention is to one token."""
    theirs, ours = f"{source}.{attention}", f"{target}.attention"
    entries = [
        Entry(f"{theirs}.in_proj_{part}", f"{ours}.value.{part}", _value_rows, _stacked)
        for part in ("weight", "bias")
    ]
    for name, their_name in {"attention.out": f"{attention}.out_proj", **parts}.items():
        names = {"source": f"{source}.{their_name}", "target": f"{target}.{name}"}
        entries += module_entries(layer.get_submodule(name), **names)
    return entries


def _cross_attention(layer: nn.Module, *, source: str, target: str) -> list[Entry]:
    parts = {
        "norm1": "norm2",
        "norm2": "norm3",
        "feed_forward.0": "linear1",
        "feed_forward.3": "linear2",
    }
    names = {"source": source, "target": target, "attention": "multihead_attn"}
    return _layer_entries(layer, parts=parts, **names)


def encoder_keymap(modules: Mapping[str, nn.Module]) -> KeyMap:
    """Returns the table of the parts of `OfficialCLCAE.encoder_modules`, under their names."""
    pyramid, rows, feature = modules["pyramid"], modules["rows"], modules["feature"]
    assert isinstance(pyramid, Pyramid)
    assert isinstance(rows, OfficialRows) and isinstance(feature, OfficialFeature)
    entries = trunk_entries(pyramid.trunk, source="encoder.", target="pyramid.trunk.")
    pairs: list[tuple[nn.Module, str, str]] = [
        (modules["foundation"], "encoder.styles.0", "foundation"),
        (feature.content, "encoder.content_layer.convs", "feature.content"),
    ]
    for index, lateral in enumerate(pyramid.laterals):
        pairs.append((lateral, f"encoder.latlayer{index}", f"pyramid.laterals.{index}"))
    for index, head in enumerate(rows.heads):
        pairs.append((head, f"encoder.styles_others.{index}", f"rows.heads.{index}"))
    for module, source, target in pairs:
        entries += module_entries(module, source=source, target=target)
    for index, layer in enumerate(rows.layers):
        source, target = f"encoder.cross_attention.{index}", f"rows.layers.{index}"
        entries += _cross_attention(layer, source=source, target=target)
    source, target = "encoder.feature_cross_attention", "feature.layer"
    entries += _cross_attention(feature.layer, source=source, target=target)
    unused = r"encoder\.(cross_attention\.\d+|feature_cross_attention)\.norm1\.(weight|bias)"
    return KeyMap(layout=METHOD, entries=tuple(entries), ignored=(unused,))


def image_tower_keymap(tower: ImageTower) -> KeyMap:
    """Returns the table of an image tower; ignores `logit_scale`, which is the aligner's."""
    entries = trunk_entries(tower.trunk, source="encoder.", target="trunk.")
    entries += module_entries(tower.head, source="encoder.styles.0", target="head")
    entries += _projection(tower.projection, "image_projection")
    ignored = (r"encoder\.latlayer[12]\.(weight|bias)", "logit_scale")
    return KeyMap(layout=IMAGE_TOWER, entries=tuple(entries), ignored=ignored)


def latent_tower_keymap(tower: LatentTower) -> KeyMap:
    """Returns the table of a latent tower."""
    entries = _projection(tower.projection, "latent_projection")
    parts = {"norm1": "norm1", "norm2": "norm2"}
    parts |= {"feed_forward.0": "linear1", "feed_forward.2": "linear2"}
    for index, name in enumerate(LAYERS):
        names = {"source": name, "target": f"layers.{index}", "attention": "self_attn"}
        entries += _layer_entries(tower.layers[index], parts=parts, **names)
    return KeyMap(layout=LATENT_TOWER, entries=tuple(entries), ignored=("pos_embedding",))


def _projection(projection: nn.Module, source: str) -> list[Entry]:
    entries = []
    for ours, theirs in (("linear0", "lin1"), ("norm", "bn"), ("linear1", "lin2")):
        names = {"source": f"{source}.{theirs}", "target": f"projection.{ours}"}
        entries += module_entries(projection.get_submodule(ours), **names)
    return entries


def clcae_from_state(
    state: Mapping[str, Tensor],
    *,
    latent_average: Tensor | None = None,  # [w_dim]
    average_image: Tensor | None = None,  # [3, H, W], in [-1, 1]
    image_size: int | Sequence[int] | None = None,
) -> OfficialCLCAE:
    """Builds an official inversion model, encoder and generator, in evaluation mode.

    The encoder takes over the tensors of `state` without a copy, so that a model of 1024 x 1024
    is in memory once; training it changes them. f goes to the second 16 x 16 convolution, as the
    official option idx_k = 5 says.

    Args:
        state: the file's `state_dict`.
        latent_average: the mean of W, `latent_avg` of the generator's file; None computes it from
            100,000 samples mapped by the generator within.
        average_image: the picture of the mean code, at the input's size; None computes it. The
            official `image_avg.png` went through 8 bits.
        image_size: a side or (H, W) of what the encoder reads: (192, 256) for cars, which no
            tensor tells. None is the square of the side that the heads are built for, 256.

    Raises:
        ValueError: if the keys are not of this layout, with those that are missing, unexpected or
            of another shape; or for a size that the heads are not built for.
    """
    unexpected = [key for key in state if not key.startswith(("encoder.", "decoder."))]
    if unexpected:
        raise ValueError(f"this is no {METHOD}: {len(unexpected)} unexpected ({unexpected[0]})")
    try:
        generator = generator_from_state(section(state, "decoder."), latent_average)
    except ValueError as error:
        raise ValueError(f"this is no {METHOD}, its decoder.* are wrong: {error}") from error
    encoder = {key: value for key, value in state.items() if key.startswith("encoder.")}
    stem, stages, shape = encoder_settings(encoder, image_size, METHOD)
    require(encoder, ["encoder.latlayer1.weight"], METHOD)
    method = empty_for(
        encoder,
        lambda: OfficialCLCAE(
            generator=generator,
            image_size=shape,
            stem_channels=stem,
            stages=stages,
            width=encoder["encoder.latlayer1.weight"].shape[0],
        ),
    )
    modules = method.encoder_modules()
    encoder_keymap(modules).fill(nn.ModuleDict(modules), encoder)
    if average_image is None:
        method.update_average_image()
    elif average_image.shape == method.average_image.shape:
        method.average_image.copy_(average_image)
    else:
        raise ValueError(
            f"average_image has shape {tuple(average_image.shape)}, expected {(3, *shape)}"
        )
    generator.requires_grad_(False)
    return method.eval()


def aligner_from_states(
    image_state: Mapping[str, Tensor],
    latent_state: Mapping[str, Tensor],
    *,
    average_image: Tensor,  # [3, H, W], in [-1, 1]
    w_average: Tensor,  # [w_dim]
    unit_length: bool = True,
) -> Aligner:
    """Builds an official aligner in evaluation mode; copies no tensor of its towers.

    Args:
        image_state: `state_dict` of best_model_image.pt, where the temperature is too.
        latent_state: `state_dict` of best_model_latent.pt.
        average_image: the generator's picture of the mean code, of the size that is to be read;
            neither it nor the mean code is in a file. The official cars aligner learnt from
            256 x 256 and is asked about 192 x 256.
        w_average: the mean of W.
        unit_length: of the embeddings, the official flag use_norm.

    Raises:
        ValueError: if the keys are not of these layouts, or do not belong together.
    """
    stem, stages, (side, _) = encoder_settings(image_state, None, IMAGE_TOWER)
    widest = "latent_projection.lin1.weight"
    require(latent_state, [widest], LATENT_TOWER)
    require(image_state, ["logit_scale"], IMAGE_TOWER)
    dims = len(image_state["encoder.styles.0.linear.weight"]), len(latent_state[widest])
    if w_average.shape != dims[:1] or w_average.shape != dims[1:]:
        raise ValueError(
            f"the image tower embeds in {dims[0]} dimensions, the latent tower in {dims[1]}, "
            f"w_average has shape {tuple(w_average.shape)}: expected one width"
        )
    if average_image.ndim != 3 or max(average_image.shape[1:]) != side:
        raise ValueError(
            f"average_image has shape {tuple(average_image.shape)}, this tower reads {side} pixels"
        )
    aligner = empty_for(
        {**image_state, **latent_state},
        lambda: Aligner(
            image_size=average_image.shape[1:],
            w_dim=dims[0],
            dim=dims[0],
            stem_channels=stem,
            stages=stages,
            unit_length=unit_length,
        ),
    )
    image_tower_keymap(aligner.image_tower).fill(aligner.image_tower, image_state)
    latent_tower_keymap(aligner.latent_tower).fill(aligner.latent_tower, latent_state)
    aligner.log_scale = nn.Parameter(image_state["logit_scale"].float().clone().reshape([]))
    aligner.set_averages(image=average_image, w=w_average)
    return aligner.eval()
