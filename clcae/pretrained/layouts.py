"""The layouts of the field that are known: how each is told from its content, and built.

A file is told by the keys it holds, never by its name. What a layout ignores, it ignores by name.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from clcae.data.transforms import at_input_size
from clcae.pretrained import frozen, nvidia, rosinality
from clcae.pretrained.clcae import aligner_from_states, clcae_from_state
from clcae.pretrained.contents import Contents
from clcae.pretrained.e4e import KINDS, Kind, e4e_from_checkpoint
from clcae.stylegan2 import Generator

# What trainers leave beside the weights: options, counters, optimizers.
TRAINING = r"opts|args|arch|iter|step|epoch|global_step|ada_aug_p|best_val_loss|.*optim.*"
CARS = (192, 256)  # what the cars encoders read
FACES = 256


@dataclass(frozen=True)
class Request:
    """What the caller wants of a file, and what goes with it."""

    which: str | None = None  # None: the layout's default
    companion: Contents | None = None
    generator: Generator | None = None
    image_size: tuple[int, int] | None = None


@dataclass(frozen=True)
class Layout:
    """One official layout."""

    name: str
    matches: Callable[[Contents], bool]
    build: Callable[[Contents, Request], nn.Module]
    choices: tuple[str, ...] = ()  # values of `Request.which`
    ignored: str = "(?!)"  # regular expression of names at the top, beside TRAINING

    def ignores(self, name: str) -> bool:
        """Whether a name at the top of the file carries nothing for this layout."""
        return bool(re.fullmatch(f"{TRAINING}|{self.ignored}", name))


def _holds(*keys: str) -> Callable[[Contents], bool]:
    return lambda contents: contents.has(*keys)


def _nvidia_pickle(contents: Contents, request: Request) -> nn.Module:
    which = request.which or "G_ema"
    if which not in contents.networks:
        raise ValueError(f"has no network {which}, it has {', '.join(contents.networks)}")
    contents.state(which)
    network = contents.networks[which]
    if which == "D":
        return nvidia.discriminator_from_network(network)
    return nvidia.generator_from_network(network)


def _rosinality(contents: Contents, request: Request) -> nn.Module:
    which = request.which or ("d" if [*contents.tree] == ["d"] else "g_ema")
    if not contents.has(which):
        raise ValueError(f"has no {which}, it has {contents.describe()}")
    if which == "d":
        return rosinality.discriminator_from_state(contents.state(which))
    average = contents.tensor("latent_avg") if which == "g_ema" else None  # it is g_ema's
    return _rosinality_generator(contents, contents.state(which), average)


def _rosinality_generator(
    contents: Contents, state: Mapping[str, Tensor], average: Tensor | None
) -> Generator:
    if average is None:
        contents.notes.append(
            "the file has no latent_avg of this network: computed from 100,000 mapped samples"
        )
    elif average.ndim > 1:  # some converters keep a row
        average = average.reshape(-1)
    return rosinality.generator_from_state(state, average)


def _rosinality_bare(contents: Contents, _: Request) -> nn.Module:
    state = contents.state()
    return _rosinality_generator(contents, state, state.pop("latent_avg", None))


def _e4e(contents: Contents, request: Request) -> nn.Module:
    options = contents.options()
    named = options.get("encoder_type")
    kind: Kind | None = None
    if request.which is not None:
        kind = "psp" if request.which == "psp" else "e4e"
    elif not isinstance(named, str) or named not in KINDS:
        raise ValueError(
            "is of e4e or pSp, which have the same keys, and its opts do not say which: "
            "give which='e4e' or which='psp' (--which)"
        )
    average = contents.tensor("latent_avg")
    if average is None:
        raise ValueError("has no latent_avg, which the codes are measured from")
    state = contents.state("state_dict")
    method = e4e_from_checkpoint(
        {"state_dict": state, "latent_avg": average, "opts": options}, kind=kind
    )
    if options.get("start_from_latent_avg") is False:
        contents.notes.append("opts.start_from_latent_avg is False: codes start at zero")
    return method


def _clcae(contents: Contents, request: Request) -> nn.Module:
    size = _image_size(contents, request)
    generator = request.generator
    if generator is None:
        contents.notes.append("latent_avg is in no CLCAE file: computed from 100,000 samples")
    contents.notes.append("the average image is the generator's picture of latent_avg")
    return clcae_from_state(
        contents.state("state_dict"),
        latent_average=None if generator is None else generator.w_average,
        image_size=size,
    )


def _image_size(contents: Contents, request: Request) -> tuple[int, int] | None:
    """What no tensor tells: the cars encoders read 192 x 256."""
    if request.image_size is not None:
        return request.image_size
    named = contents.options().get("dataset_type")
    if isinstance(named, str) and "car" in named:
        contents.notes.append(f"opts.dataset_type is about cars: reads {CARS[0]} x {CARS[1]}")
        return CARS
    return None


def _is_tower(contents: Contents) -> bool:
    return any(contents.has("state_dict", f"{kind}_projection.lin1.weight") for kind in TOWERS)


TOWERS = ("image", "latent")


def _aligner(contents: Contents, request: Request) -> nn.Module:
    files: dict[str, Contents] = {}
    for given in (contents, request.companion):
        for kind in TOWERS:
            if given is not None and given.has("state_dict", f"{kind}_projection.lin1.weight"):
                files[kind] = given
    if len(files) < 2:
        (kind,) = files
        other = TOWERS[1 - TOWERS.index(kind)]
        raise ValueError(f"is the aligner's {kind} tower: give the {other} tower as companion")
    generator = request.generator
    if generator is None:
        raise ValueError(
            "is a tower of the aligner, which subtracts the mean code and its picture: give the "
            "generator's file (--generator)"
        )
    picture = generator.synthesize(generator.w_average[None])
    contents.notes.append("the averages are the generator's: latent_avg and its picture")
    return aligner_from_states(
        files["image"].state("state_dict"),
        files["latent"].state("state_dict"),
        average_image=at_input_size(picture, request.image_size or (FACES, FACES))[0],
        w_average=generator.w_average,
    )


LAYOUTS = (
    Layout(
        "stylegan2-ada .pkl (G, D, G_ema)",
        lambda contents: bool(contents.networks),
        _nvidia_pickle,
        choices=("G_ema", "G", "D"),
        ignored="G|D|G_ema",
    ),
    Layout(
        "rosinality generator (g_ema)",
        lambda contents: any(
            isinstance(contents.tree.get(key), Mapping) for key in ("g_ema", "g", "d")
        ),
        _rosinality,
        choices=("g_ema", "g", "d"),
        ignored="g|d|g_ema|latent_avg",
    ),
    Layout("rosinality generator state dict", _holds("input.input"), _rosinality_bare),
    Layout(
        "rosinality discriminator (d)",
        _holds("final_linear.0.weight"),
        lambda contents, _: rosinality.discriminator_from_state(contents.state()),
    ),
    Layout(
        "stylegan2-ada generator state dict",
        _holds("synthesis.b4.const"),
        lambda contents, _: nvidia.generator_from_state(contents.state()),
    ),
    Layout(
        "stylegan2-ada discriminator state dict",
        _holds("b4.out.weight"),
        lambda contents, _: nvidia.discriminator_from_state(contents.state()),
    ),
    Layout(
        "MoCo v2 (moco_v2_800ep_pretrain)",
        _holds("state_dict", "module.encoder_q.conv1.weight"),
        lambda contents, _: frozen.moco_from_state(contents.state("state_dict")),
    ),
    Layout(
        "CLCAE inversion model",
        _holds("state_dict", "encoder.styles_others.0.linear.weight"),
        _clcae,
    ),
    Layout("CLCAE aligner (image and latent tower)", _is_tower, _aligner),
    Layout(
        "e4e or pSp",
        _holds("state_dict", "encoder.styles.0.linear.weight"),
        _e4e,
        choices=("e4e", "psp"),
        ignored="discriminator_state_dict",
    ),
    Layout(
        "ArcFace IR-SE50 (model_ir_se50)",
        lambda contents: (
            contents.has("output_layer.3.weight") and contents.has("body.0.res_layer.5.fc1.weight")
        ),
        lambda contents, _: frozen.arcface_from_state(contents.state()),
    ),
    Layout(
        "CurricularFace IR-101 (CurricularFace_Backbone)",
        _holds("output_layer.3.weight"),
        lambda contents, _: frozen.curricularface_from_state(contents.state()),
    ),
)


def layout_of(contents: Contents) -> Layout:
    """The first layout that the content has the marks of.

    Raises:
        ValueError: there is none, with what the file holds and what is known.
    """
    for layout in LAYOUTS:
        if layout.matches(contents):
            return layout
    known = "; ".join(layout.name for layout in LAYOUTS)
    raise ValueError(f"holds {contents.describe()}, which is no known layout: {known}")
