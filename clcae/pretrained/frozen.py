"""The judging networks' official files: ArcFace, CurricularFace, MoCo v2, and LPIPS's two parts.

`model_ir_se50.pth`, `CurricularFace_Backbone.pth`, `moco_v2_800ep_pretrain.pth`; torchvision's
AlexNet or VGG16 file with the factors that the package lpips brings along. Nothing is downloaded.
"""

import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from clcae.construction import without_weights
from clcae.frozen.face_embedders import FaceEmbedder, arcface_ir_se50, curricularface_ir_101
from clcae.frozen.judges import PaperJudges
from clcae.frozen.moco import MoCo
from clcae.frozen.perceptual import LPIPS, Classifier
from clcae.pretrained.irse import trunk_entries
from clcae.pretrained.keymap import Entry, KeyMap, module_entries
from clcae.pretrained.torch_file import read_torch_file

ModuleType = TypeVar("ModuleType", bound=nn.Module)

ARCFACE = "ArcFace IR-SE50 (model_ir_se50.pth)"
CURRICULARFACE = "CurricularFace IR-101 (CurricularFace_Backbone.pth)"
MOCO = "MoCo v2 ResNet-50 (state_dict of moco_v2_800ep_pretrain.pth)"
TRUNKS = {"alex": "alexnet-owt-7be5be79.pth", "vgg": "vgg16-397923af.pth"}  # torchvision's
SIZES = [1 << 24] * 1000  # more than any of these networks has
_IGNORED_BY_MOCO = (  # the projection head and the momentum encoder with its queue
    r"module\.encoder_q\.fc\..*",
    r"module\.encoder_k\..*",
    r"module\.queue(_ptr)?",
)


def face_embedder_keymap(embedder: FaceEmbedder, layout: str) -> KeyMap:
    """Returns the table of a face recogniser in the layout of `Backbone`."""
    entries = trunk_entries(embedder.trunk, source="", target="trunk.")
    for index, name in ((0, "norm"), (3, "linear"), (4, "embedding_norm")):  # 1, 2 hold nothing
        part = embedder.get_submodule(name)
        entries += module_entries(part, source=f"output_layer.{index}", target=name)
    return KeyMap(layout=layout, entries=tuple(entries))


def moco_keymap(moco: MoCo) -> KeyMap:
    """Returns the table of `module.encoder_q`; what else training kept is ignored."""
    entries = module_entries(moco.resnet, source="module.encoder_q", target="resnet")
    return KeyMap(layout=MOCO, entries=tuple(entries), ignored=_IGNORED_BY_MOCO)


def lpips_keymap(lpips: LPIPS) -> KeyMap:
    """Returns the table of a torchvision classifier's features and of lpips's factors."""
    entries = module_entries(lpips.trunk, source="features", target="trunk")
    entries += [
        Entry(f"lin{index}.model.1.weight", f"factors.{index}")
        for index in range(len(lpips.factors))
    ]
    layout = f"pair of {TRUNKS[lpips.classifier]} and lpips's v0.1 weights"
    return KeyMap(layout=layout, entries=tuple(entries), ignored=(r"classifier\..*",))


def arcface_from_state(state: Mapping[str, Tensor]) -> FaceEmbedder:
    """Builds the identity network of training losses, in evaluation mode; copies no tensor.

    Raises:
        ValueError: if the keys are not of this layout; lists what is wrong.
    """
    return _filled(arcface_ir_se50, lambda made: face_embedder_keymap(made, ARCFACE), state)


def curricularface_from_state(state: Mapping[str, Tensor]) -> FaceEmbedder:
    """Builds the identity network of evaluations, as above."""
    make = curricularface_ir_101
    return _filled(make, lambda made: face_embedder_keymap(made, CURRICULARFACE), state)


def moco_from_state(state: Mapping[str, Tensor]) -> MoCo:
    """Builds the object network from the file's `state_dict`, as above."""
    return _filled(MoCo, moco_keymap, state)


def _filled(
    make: Callable[[], ModuleType],
    keymap: Callable[[ModuleType], KeyMap],
    state: Mapping[str, Tensor],
) -> ModuleType:
    module = without_weights(make, sizes=SIZES)
    return keymap(module).fill(module, state).eval().requires_grad_(False)


def load_arcface(path: str | Path) -> FaceEmbedder:
    """Loads `model_ir_se50.pth`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it cannot be read safely, or holds something else.
    """
    return arcface_from_state(_read(Path(path), ARCFACE))


def load_curricularface(path: str | Path) -> FaceEmbedder:
    """Loads `CurricularFace_Backbone.pth`. Raises as above."""
    return curricularface_from_state(_read(Path(path), CURRICULARFACE))


def load_moco(path: str | Path) -> MoCo:
    """Loads `moco_v2_800ep_pretrain.pth` or `.pth.tar`. Raises as above."""
    return moco_from_state(_read(Path(path), MOCO))


def load_lpips(trunk: str | Path | None = None, *, classifier: Classifier = "alex") -> LPIPS:
    """Loads LPIPS v0.1: linear layers of the package lpips, the trunk from a file.

    Args:
        trunk: torchvision's file of the classifier; None looks in torch.hub's folder, where
            torchvision puts what it downloads (TORCH_HOME moves it).
        classifier: "alex", which pSp, e4e and CLCAE use, or "vgg".

    Raises:
        FileNotFoundError: if the trunk is not there, with where to get it; nothing is downloaded.
        ImportError: if the package lpips is not installed.
        ValueError: if a file cannot be read safely, or holds something else.
    """
    name = TRUNKS.get(classifier)
    if name is None:
        raise ValueError(f"classifier is {classifier!r}, expected 'alex' or 'vgg'")
    path = Path(torch.hub.get_dir()) / "checkpoints" / name if trunk is None else Path(trunk)
    if not path.is_file():
        raise FileNotFoundError(
            f"LPIPS needs {name}, and there is no file {path}: get it from "
            f"https://download.pytorch.org/models/{name} and put it there, or name its path"
        )
    package = importlib.util.find_spec("lpips")
    if package is None or package.origin is None:
        raise ImportError("LPIPS needs the package lpips for its weights: pip install lpips==0.1.4")
    factors = Path(package.origin).parent / "weights" / "v0.1" / f"{classifier}.pth"
    what = f"LPIPS's {classifier} weights"
    state = {**_read(path, name), **_read(factors, what)}
    return _filled(lambda: LPIPS(classifier=classifier), lpips_keymap, state)


def face_judges(*, arcface: str | Path, lpips_trunk: str | Path | None = None) -> PaperJudges:
    """Loads ArcFace and LPIPS (AlexNet), frozen, with which faces are judged. Raises as they.

    Args:
        arcface: `model_ir_se50.pth`.
        lpips_trunk: as `trunk` of `load_lpips`.
    """
    return PaperJudges(
        identity=load_arcface(arcface),
        perceptual=load_lpips(lpips_trunk),
        identity_name="ArcFace IR-SE50",
    )


def object_judges(*, moco: str | Path, lpips_trunk: str | Path | None = None) -> PaperJudges:
    """Loads MoCo v2 and LPIPS (AlexNet), frozen, with which all else is judged. Raises as they.

    Args:
        moco: `moco_v2_800ep_pretrain.pth`.
        lpips_trunk: as `trunk` of `load_lpips`.
    """
    return PaperJudges(
        identity=load_moco(moco),
        perceptual=load_lpips(lpips_trunk),
        identity_name="MoCo v2 ResNet-50",
    )


def _read(path: Path, what: str) -> dict[str, Tensor]:
    """Reads the flat state dict of a file, out of its `state_dict` where it has one."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}, expected {what}")
    contents = read_torch_file(path)
    if isinstance(contents, Mapping):
        contents = contents.get("state_dict", contents)
    if not isinstance(contents, Mapping):
        raise ValueError(f"{path} holds a {type(contents).__name__}, expected {what}")
    return {key: value for key, value in contents.items() if isinstance(value, Tensor)}
