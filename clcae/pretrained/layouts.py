"""Layouts of official files: how each is told from the keys it holds, and built.

A file is told by its content, never by its name. What a layout ignores, it ignores by name.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from clcae.data.transforms import at_input_size
from clcae.pretrained import (
    base_code,
    clcae,
    e4e,
    frozen,
    genforce,
    in_domain,
    nvidia,
    rosinality,
    styleres,
)
from clcae.pretrained.contents import Contents
from clcae.quoting import shown
from clcae.stylegan2 import Generator

# What trainers leave beside the weights: options, counters, optimizers.
TRAINING = (
    r"opts|args|arch|iter|step|epoch|global_step|ada_aug_p|best_val_loss"
    r"|.*(optim|sched|scaler|rng).*"
)
CARS = (192, 256)  # what the cars encoders read
FACES = (256, 256)


@dataclass(frozen=True)
class Request:
    """What the caller wants of a file, and what goes with it."""

    which: str | None = None  # None: the layout's default
    companion: Contents | None = None
    generator: Generator | None = None
    image_size: tuple[int, int] | None = None

    def size(self, contents: Contents) -> tuple[int, int] | None:
        """Returns (H, W) of what an encoder reads, if asked for or told: cars are 192 x 256."""
        if self.image_size is not None:
            return self.image_size
        named = contents.options().get("dataset_type")
        if isinstance(named, str) and "car" in named:
            contents.notes.append(f"opts.dataset_type is about cars: reads {CARS[0]} x {CARS[1]}")
            return CARS
        return None


@dataclass(frozen=True)
class Layout:
    """One official layout."""

    name: str
    matches: Callable[[Contents], bool]
    build: Callable[[Contents, Request], nn.Module]
    choices: tuple[str, ...] = ()  # values of `Request.which`
    ignored: str = "(?!)"  # regular expression of names at the top, beside TRAINING

    def ignores(self, name: str) -> bool:
        """Returns whether a name at the top of the file carries nothing for this layout."""
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
    _note_noise(contents, state)
    return rosinality.generator_from_state(state, average)


def _note_noise(contents: Contents, state: Mapping[str, Tensor], prefix: str = "") -> None:
    if rosinality.lacks_noise(state, prefix):
        contents.notes.append("the file has no noise maps (noises.*): drawn from a fixed seed")


def _rosinality_bare(contents: Contents, _: Request) -> nn.Module:
    state = contents.state()
    return _rosinality_generator(contents, state, state.pop("latent_avg", None))


GENFORCE = ("generator_smooth", "generator")


def _is_genforce(contents: Contents) -> bool:
    return any(contents.has(name, "mapping.dense0.weight") for name in GENFORCE)


def _genforce(contents: Contents, request: Request) -> nn.Module:
    which = request.which or next(name for name in GENFORCE if contents.has(name))
    if not contents.has(which):
        raise ValueError(f"has no {which}, it has {contents.describe()}")
    return genforce.generator_from_state(contents.state(which))


def _e4e(contents: Contents, request: Request) -> nn.Module:
    options, kind = contents.options(), request.which
    if kind is None:
        named = options.get("encoder_type")
        if not isinstance(named, str) or named not in e4e.KINDS:
            raise ValueError(
                f"opts.encoder_type is {shown(named)}, expected {' or '.join(e4e.KINDS)}: e4e and "
                "pSp have the same keys; give which='e4e' or which='psp' to load_method, or make a "
                "native file of it (scripts/import_checkpoint.py FILE --which psp --out NATIVE)"
            )
        kind = e4e.KINDS[named]
    average = contents.tensor("latent_avg")
    if average is None:
        raise ValueError("has no latent_avg, which the codes are measured from")
    state, size = contents.state("state_dict"), request.size(contents)
    _note_noise(contents, state, e4e.DECODER)
    method = e4e.e4e_from_state(state, average, kind=kind, image_size=size)
    contents.ignore(e4e.encoder_keymap(method.encoder, layout=kind), "state_dict")
    if options.get("start_from_latent_avg") is False:
        contents.notes.append("opts.start_from_latent_avg is False: codes start at zero")
        method.latent_average.zero_()
    return method


def _styleres(contents: Contents, request: Request) -> nn.Module:
    missing = [name for name in styleres.SECTIONS if not contents.has(name)]
    if missing:
        raise ValueError(
            f"is a file of StyleRes without {' and '.join(missing)}, expected "
            f"{', '.join(styleres.SECTIONS)}"
        )
    average = contents.tensor("latent_avg")
    if average is None:
        raise ValueError("has no latent_avg, which the codes are measured from")
    method = styleres.styleres_from_states(
        contents.state("e4e"),
        average,
        contents.state("generator_smooth"),
        image_size=request.size(contents),
    )
    contents.ignore(e4e.encoder_keymap(method.encoder, layout=styleres.E0, prefix=""), "e4e")
    parts = nn.ModuleDict(method.encoder_modules())
    contents.ignore(styleres.residual_keymap(parts, layer=method.layer), "generator_smooth")
    return method


def _clcae(contents: Contents, request: Request) -> nn.Module:
    generator = request.generator
    if generator is None:
        contents.notes.append("latent_avg is in no CLCAE file: computed from 100,000 samples")
    contents.notes.append("the average image is the generator's picture of latent_avg")
    state = contents.state("state_dict")
    width = state["decoder.style.1.weight"].shape[0]
    if generator is not None and generator.w_dim != width:
        raise ValueError(
            f"has codes of {width} numbers, the generator given with it {generator.w_dim}: give "
            "the file of its own generator, or none (in train.py: method.generator=null)"
        )
    _note_noise(contents, state, "decoder.")
    method = clcae.clcae_from_state(
        state,
        latent_average=None if generator is None else generator.w_average,
        image_size=request.size(contents),
    )
    contents.ignore(clcae.encoder_keymap(method.encoder_modules()), "state_dict")
    return method


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
    aligner = clcae.aligner_from_states(
        files["image"].state("state_dict"),
        files["latent"].state("state_dict"),
        average_image=at_input_size(picture, request.image_size or FACES)[0],
        w_average=generator.w_average,
    )
    files["image"].ignore(clcae.image_tower_keymap(aligner.image_tower), "state_dict")
    files["latent"].ignore(clcae.latent_tower_keymap(aligner.latent_tower), "state_dict")
    return aligner


def _in_domain(contents: Contents, request: Request) -> nn.Module:
    if request.generator is None:
        raise ValueError(
            "is an encoder of IDInvert, whose generator (StyleGAN1) is not supported: give the "
            "file of a StyleGAN2 generator with as many rows (--generator)"
        )
    contents.notes.append(
        "trained with a StyleGAN1 whose layers have mappings of their own: with another generator "
        "its codes are a start for training, no inversion"
    )
    return in_domain.in_domain_from_state(contents.state(), request.generator)


def _moco(contents: Contents, _: Request) -> nn.Module:
    moco = frozen.moco_from_state(contents.state("state_dict"))
    contents.ignore(frozen.moco_keymap(moco), "state_dict")
    return moco


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
        genforce.GENERATOR,
        _is_genforce,
        _genforce,
        choices=GENFORCE,
        ignored="generator|discriminator|generator_smooth",
    ),
    Layout(
        "GenForce generator state dict",
        _holds("mapping.dense0.weight"),
        lambda contents, _: genforce.generator_from_state(contents.state()),
    ),
    Layout(
        base_code.BASE_CODE,
        _holds("encoder", base_code.FIRST),
        lambda contents, _: base_code.base_code_from_state(contents.state("encoder")),
    ),
    Layout(
        "MoCo v2 (moco_v2_800ep_pretrain)",
        _holds("state_dict", "module.encoder_q.conv1.weight"),
        _moco,
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
        "StyleRes (e4e, latent_avg, generator_smooth)",
        lambda contents: contents.has("generator_smooth") or contents.has("e4e"),
        _styleres,
    ),
    Layout(in_domain.ENCODER, _holds("block0.conv.weight"), _in_domain),
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


def _input_channels(contents: Contents) -> int:
    """Reads what an encoder of the pSp family takes off its first convolution; 3 where none is."""
    state = contents.tree.get("state_dict")
    for key in ("encoder.input_layer.0.weight", "encoder.conv1.weight"):
        if isinstance(state, Mapping) and isinstance(first := state.get(key), Tensor):
            return first.shape[1] if first.ndim == 4 else 3
    return 3


def _has_prefix(prefix: str) -> Callable[[Contents], bool]:
    def matches(contents: Contents) -> bool:
        state = contents.tree.get("state_dict")
        return isinstance(state, Mapping) and any(str(key).startswith(prefix) for key in state)

    return matches


RELATIVES: Mapping[str, Callable[[Contents], bool]] = {  # whose keys are partly those of a layout
    "a file of ReStyle, whose encoder reads the picture beside the last reconstruction": (
        lambda contents: _input_channels(contents) == 6
    ),
    "a file of a pSp that reads sketches or segmentation maps": (
        lambda contents: _input_channels(contents) != 3
    ),
    "a file of ReStyle or of another simple backbone (ResNet), which has no pyramid": (
        _holds("state_dict", "encoder.conv1.weight")
    ),
    "a file of HyperStyle, whose hypernetwork changes the generator": _has_prefix("hypernet."),
    "a file of HFGI, which adds a distortion map": _has_prefix("residue."),
    "a latent discriminator of e4e": _holds("mlp.0.weight"),
    "a generator of StyleGAN1, as of IDInvert": _holds("synthesis.lod"),
}


def layout_of(contents: Contents) -> Layout:
    """Finds the first layout that the content has the marks of.

    Raises:
        ValueError: if there is none, with what the file holds and what is known; or if it is of a
            method that is not supported and looks like one that is.
    """
    for name, matches in RELATIVES.items():
        if matches(contents):
            raise ValueError(f"is {name}, which is not supported")
    for layout in LAYOUTS:
        if layout.matches(contents):
            return layout
    known = "; ".join(layout.name for layout in LAYOUTS)
    raise ValueError(f"holds {contents.describe()}, which is no known layout: {known}")
