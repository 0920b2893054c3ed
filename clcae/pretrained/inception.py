"""The files of the Inception networks that evaluations need: FID's, torchvision's, facenet's.

Each is a download of its authors, looked for in torch.hub's folder, where the packages themselves
would put it. Nothing is downloaded here. Files whose name holds the beginning of their sha256 are
checked against it, as torch.hub does.
"""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from clcae.files import sha256
from clcae.frozen.inception import FaceNet, TFInception, TorchvisionInception
from clcae.pretrained.keymap import Entry, KeyMap, empty_for
from clcae.pretrained.torch_file import read_torch_file

_COUNTER = "num_batches_tracked"  # of batch normalisation; evaluation does not read it


@dataclass(frozen=True)
class WeightFile:
    """A weight file that users fetch by hand.

    Args:
        what: its content, in words.
        url: where it is.
        digest: first digits of its sha256; None where its authors give none.
    """

    what: str
    url: str
    digest: str | None

    @property
    def name(self) -> str:
        """Name of the file."""
        return self.url.rsplit("/", 1)[1]

    def find(self, path: str | Path | None) -> Path:
        """Finds the file at `path`, or in torch.hub's folder.

        Raises:
            FileNotFoundError: if there is none, with where to get it and where to put it.
            ValueError: if it is another file.
        """
        found = (
            Path(torch.hub.get_dir()) / "checkpoints" / self.name if path is None else Path(path)
        )
        if not found.is_file():
            raise FileNotFoundError(
                f"{self.what} needs {self.name}, and there is no file {found}: get it from "
                f"{self.url} and put it there, or name its path"
            )
        digest = sha256(found)
        if self.digest is not None and not digest.startswith(self.digest):
            raise ValueError(
                f"{found} is not {self.name}: its sha256 begins with {digest[:8]}, "
                f"not {self.digest}; get it again from {self.url}"
            )
        return found


_RELEASES = "https://github.com/{}/releases/download/{}"
TF_INCEPTION = WeightFile(
    what="FID's Inception",
    url=_RELEASES.format("toshas/torch-fidelity", "v0.2.0")
    + "/weights-inception-2015-12-05-6726825d.pth",
    digest="6726825d",
)
TORCHVISION_INCEPTION = WeightFile(
    what="torchvision's Inception",
    url="https://download.pytorch.org/models/inception_v3_google-0cc3c7bd.pth",
    digest="0cc3c7bd",
)
FACENET = WeightFile(
    what="facenet's InceptionResnetV1",
    url=_RELEASES.format("timesler/facenet-pytorch", "v2.2.9") + "/20180402-114759-vggface2.pt",
    digest=None,
)


def load_tf_inception(path: str | Path | None = None) -> TFInception:
    """Loads torch-fidelity's `weights-inception-2015-12-05-6726825d.pth`.

    Args:
        path: the file; None looks in torch.hub's folder (TORCH_HOME moves it).

    Raises:
        FileNotFoundError: if it is not there, with where to get it.
        ValueError: if it is another file, or torch-fidelity is not installed.
    """
    return tf_inception_from_state(_read(TF_INCEPTION, path))


def load_torchvision_inception(path: str | Path | None = None) -> TorchvisionInception:
    """Loads torchvision's `inception_v3_google-0cc3c7bd.pth`. As `load_tf_inception`."""
    return torchvision_inception_from_state(_read(TORCHVISION_INCEPTION, path))


def load_facenet(path: str | Path | None = None) -> FaceNet:
    """Loads facenet-pytorch's `20180402-114759-vggface2.pt`. As `load_tf_inception`."""
    return facenet_from_state(_read(FACENET, path))


def tf_inception_from_state(state: Mapping[str, Tensor]) -> TFInception:
    """Builds FID's network from its flat state dict.

    Raises:
        ValueError: if the keys are not of this layout, or torch-fidelity is not installed.
    """
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except ImportError as error:
        raise ValueError(
            "FID's Inception needs torch-fidelity: pip install -e '.[eval]'"
        ) from error
    from torchvision.models import inception_v3  # slow to import; it has the same names and shapes

    twin = empty_for(
        state,
        lambda: inception_v3(weights=None, aux_logits=False, init_weights=False, num_classes=1008),
    )
    state = _strict(state, twin, prefix="", layout=TF_INCEPTION.name)
    # The package unpickles what it is given, so it is given what was read safely.
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    extractor = FeatureExtractorInceptionV3(
        "inception-v3-compat", ["2048"], feature_extractor_weights_path=buffer
    )
    return TFInception(extractor=extractor)


def torchvision_inception_from_state(state: Mapping[str, Tensor]) -> TorchvisionInception:
    """Builds torchvision's network, without the classifiers. Raises as above."""
    network = TorchvisionInception()
    ignored = (r"AuxLogits\..*", r"fc\..*")
    layout = TORCHVISION_INCEPTION.name
    network.load_state_dict(
        _strict(state, network, prefix="trunk.", layout=layout, ignored=ignored)
    )
    return network


def facenet_from_state(state: Mapping[str, Tensor]) -> FaceNet:
    """Builds facenet's network, without the classifier. Raises as above."""
    try:
        from facenet_pytorch import InceptionResnetV1
    except ImportError as error:
        raise ValueError(
            "InceptionResnetV1 needs facenet-pytorch: pip install -e '.[face]'"
        ) from error
    network = FaceNet(network=InceptionResnetV1())
    ignored = (r"logits\..*",)
    network.load_state_dict(
        _strict(state, network, prefix="network.", layout=FACENET.name, ignored=ignored)
    )
    return network


def _strict(
    state: Mapping[str, Tensor],
    module: nn.Module,
    *,
    prefix: str,
    layout: str,
    ignored: tuple[str, ...] = (),
) -> dict[str, Tensor]:
    """Converts to the state dict of `module` from one without `prefix`; counters may be missing."""
    keys = module.state_dict()
    entries = tuple(Entry(key.removeprefix(prefix), key) for key in keys)
    counters = {e.source: torch.tensor(0) for e in entries if e.source.endswith(_COUNTER)}
    return KeyMap(layout=layout, entries=entries, ignored=ignored).to_ours(
        {**counters, **state}, module
    )


def _read(file: WeightFile, path: str | Path | None) -> dict[str, Tensor]:
    """Reads the flat state dict of a file."""
    found = file.find(path)
    contents = read_torch_file(found)
    if not isinstance(contents, Mapping):
        raise ValueError(f"{found} holds a {type(contents).__name__}, expected {file.name}")
    return {key: value for key, value in contents.items() if isinstance(value, Tensor)}
