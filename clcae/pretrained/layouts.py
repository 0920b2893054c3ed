"""Layouts of official files: how each is told from the keys it holds, and built.

A file is told by its content, never by its name. What a layout ignores, it ignores by name.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from clcae.data.transforms import at_input_size
from clcae.pretrained import clcae, e4e, frozen, nvidia, rosinality
from clcae.pretrained.keymap import KeyMap
from clcae.pretrained.torch_file import is_other_pickle, peek, read_torch_file, reading
from clcae.pretrained.unpickle import Array, Attributes, shown
from clcae.stylegan2 import Generator

# What trainers leave beside the weights: options, counters, optimizers.
TRAINING = r"opts|args|arch|iter|step|epoch|global_step|ada_aug_p|best_val_loss|.*optim.*"
CARS = (192, 256)  # what the cars encoders read
FACES = (256, 256)
GROWTH = 2  # the tensors of a section are at most so many times the file, beside some megabytes
SPARE = 1 << 24


class Contents:
    """The tree of an official file: sections of tensors by name.

    Args:
        tree: the file's dictionary; of a .pkl, the networks' state dicts by name.
        networks: of a .pkl, the networks themselves.
        size: of the file, in bytes.
    """

    def __init__(
        self,
        tree: Mapping[Any, Any],
        *,
        networks: Mapping[str, nvidia.Network] | None = None,
        size: int,
    ) -> None:
        self.tree, self.networks, self.size = tree, networks or {}, size
        self.used: list[str] = []  # keys of tensors, those of a section behind its name
        self.ignored: list[str] = []  # those of them that carry nothing
        self.notes: list[str] = []  # what was assumed or computed
        self._sections: set[str] = set()

    @classmethod
    def open(cls, path: str | Path) -> "Contents":
        """Reads a .pkl of NVIDIA's or a file of torch.save; which it is, its bytes say.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it cannot be read as data, or is no dictionary.
        """
        with reading(path) as file:
            start = peek(file)
        size = Path(path).stat().st_size
        if is_other_pickle(start):
            networks = nvidia.read_nvidia_pickle(path)
            tree = {name: network.state for name, network in networks.items()}
            return cls(tree, networks=networks, size=size)
        content = read_torch_file(path)
        if not isinstance(content, dict):
            raise ValueError(f"{path} holds a {type(content).__name__}, expected a dictionary")
        return cls(content, size=size)

    def has(self, *keys: str) -> bool:
        """Returns whether there is something under the keys, each within the one before."""
        found: Any = self.tree
        for key in keys:
            if not isinstance(found, Mapping) or key not in found:
                return False
            found = found[key]
        return True

    def state(self, *section: str) -> dict[str, Tensor]:
        """Returns the state dict under a name, or the whole file's; it counts as used.

        Raises:
            ValueError: if something else than tensors is there, or more than the file can hold.
        """
        found = self.tree[section[0]] if section else self.tree
        if not isinstance(found, Mapping):
            raise ValueError(f"{'.'.join(section)} is a {type(found).__name__}, expected a dict")
        if sum(map(_num_bytes, found.values())) > GROWTH * self.size + SPARE:
            raise ValueError("its tensors share memory and would fill more than the file holds")
        state = {str(key): _tensor(str(key), value) for key, value in found.items()}
        self._sections.update(section or state)
        self.used += [".".join([*section, key]) for key in state]
        return state

    def tensor(self, key: str) -> Tensor | None:
        """Returns the tensor under a name at the top, which counts as used; None if none is."""
        if self.tree.get(key) is None:
            return None
        self._sections.add(key)
        self.used.append(key)
        return _tensor(key, self.tree[key])

    def ignore(self, keymap: KeyMap, section: str) -> None:
        """Accounts for the keys of a section that a table ignores."""
        self.ignored += [f"{section}.{key}" for key in self.tree[section] if keymap.ignores(key)]

    def options(self) -> Mapping[str, Any]:
        """Returns the command-line options of the training; empty where there are none."""
        options = self.tree.get("opts")
        if isinstance(options, Attributes):
            options = options.values
        return options if isinstance(options, Mapping) else {}

    def unused(self) -> list[str]:
        """Lists the names at the top of the file that nothing has used."""
        return [str(key) for key in self.tree if str(key) not in self._sections]

    def describe(self) -> str:
        """Lists the names at the top, shortened."""
        names = [str(key) for key in self.tree]
        more = f" and {len(names) - 6} more" if len(names) > 6 else ""
        return (", ".join(name[:60] for name in names[:6]) or "nothing") + more


def _num_bytes(value: Any) -> int:
    if isinstance(value, Array):
        return int(value.value.nbytes)
    return value.nbytes if isinstance(value, Tensor) else 0


def _tensor(key: str, value: Any) -> Tensor:
    if isinstance(value, Array):
        return value.tensor
    if not isinstance(value, Tensor):
        raise ValueError(f"{key[:80]} is a {type(value).__name__}, expected a tensor")
    return value


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
    return rosinality.generator_from_state(state, average)


def _rosinality_bare(contents: Contents, _: Request) -> nn.Module:
    state = contents.state()
    return _rosinality_generator(contents, state, state.pop("latent_avg", None))


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
    method = e4e.e4e_from_state(state, average, kind=kind, image_size=size)
    contents.ignore(e4e.encoder_keymap(method.encoder, layout=kind), "state_dict")
    if options.get("start_from_latent_avg") is False:
        contents.notes.append("opts.start_from_latent_avg is False: codes start at zero")
        method.latent_average.zero_()
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
    """Finds the first layout that the content has the marks of.

    Raises:
        ValueError: if there is none, with what the file holds and what is known.
    """
    for layout in LAYOUTS:
        if layout.matches(contents):
            return layout
    known = "; ".join(layout.name for layout in LAYOUTS)
    raise ValueError(f"holds {contents.describe()}, which is no known layout: {known}")
