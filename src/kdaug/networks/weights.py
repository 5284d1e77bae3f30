"""Weight files: safetensors with a description of the network, and files of other tools. No file can run code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import safetensors.torch
from torch import Tensor, nn

from kdaug.errors import InputError
from kdaug.networks.create import Arguments, InputFormat, create_network
from kdaug.networks.torch_file import read_torch_file, strip_wrappers
from kdaug.storage import atomic_write

_METADATA_KEY = "kdaug"


@dataclass(frozen=True)
class NetworkInfo:
    """The network, classes and input that weights belong to. Stored in the metadata of a weight file.

    arguments: see `create_network`. photos: whether the images were files of any size, of which evaluation uses the
    central square; else they had `size` and are used whole. evaluate_size: run.evaluate_size of the run.
    """

    network: str
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: tuple[int, int]
    arguments: Arguments = field(default_factory=dict, hash=False)
    photos: bool = True
    evaluate_size: int | None = None

    @property
    def input_format(self) -> InputFormat:
        return InputFormat(self.mean, self.std, self.size)


def save_weights(weights: Mapping[str, Tensor], info: NetworkInfo, path: Path) -> None:
    """Writes `weights` (a state_dict) and `info` to `path` (safetensors), atomically."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in weights.items()}
    defaults = {"arguments": {}, "photos": True, "evaluate_size": None}
    fields = {name: value for name, value in asdict(info).items() if name not in defaults or value != defaults[name]}
    content = safetensors.torch.save(tensors, {_METADATA_KEY: json.dumps(fields)})
    atomic_write(path, content)


def find_weights(source: str, setting: str) -> Path:
    """The weight file of `source`, run:DIR or file:PATH. Raises InputError, which suggests a value of `setting`."""
    kind, _, location = source.partition(":")
    path = Path(location)
    if kind == "run":
        if path.is_file():
            raise InputError(f"{path} is a file, not a run", f"set {setting} to file:{path}")
        if not path.is_dir():
            several = "; several teachers are written run:A,run:B" if "," in location else ""
            raise InputError(f"folder {path} does not exist{several}", f"set {setting} to the directory of a run")
        if not (path / "last.safetensors").is_file():
            raise InputError(f"{path} is not a finished run: it has no last.safetensors")
        return path / "last.safetensors"
    if path.is_dir():
        raise InputError(f"{path} is a folder, not a weight file", f"set {setting} to run:{path}")
    if not path.is_file():
        raise InputError(f"weight file {path} does not exist")
    return path


def read_network_info(path: Path) -> NetworkInfo | None:
    """The info in a weight file, without its tensors; None if kdaug did not write it. InputError if it is damaged."""
    try:
        with safetensors.safe_open(str(path), "pt") as file:
            return _parse_network_info(file.metadata() or {}, path)
    except safetensors.SafetensorError:
        return None


def read_weights(path: Path) -> tuple[dict[str, Tensor], NetworkInfo | None]:
    """(tensors by name, info); the info is None if kdaug did not write the file.

    Reads safetensors (recognized by content), else torch files in weights-only mode: of a nested "state_dict_ema",
    "model_ema", "state_dict" or "model", the first one is unpacked. The prefixes that DDP, EMA and torch.compile add to
    names ("module.", "_orig_mod.") are removed. Raises InputError if the file is not a weight file.
    """
    if not path.is_file():
        raise InputError(f"weight file {path} does not exist")
    try:
        with safetensors.safe_open(str(path), "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except safetensors.SafetensorError:
        return strip_wrappers(read_torch_file(path), path), None
    info = _parse_network_info(metadata, path)
    return (strip_wrappers(tensors, path), None) if info is None else (tensors, info)


def is_valid_weights_file(path: Path) -> bool:
    """Whether `path` is a complete safetensors file: its length is as its header states."""
    try:
        with safetensors.safe_open(str(path), "pt"):
            return True
    except (OSError, safetensors.SafetensorError):
        return False


def load_network(path: Path) -> tuple[nn.Module, NetworkInfo]:
    """(network, info) from a weight file that kdaug wrote. Raises InputError for any other file."""
    tensors, info = read_weights(path)
    if info is None:
        raise InputError(
            f"weight file {path} does not name its network: it was not written by kdaug",
            f"train a network from it (student.weights file:{path}), and use that",
        )
    network = create_network(info.network, len(info.classes), len(info.mean), arguments=info.arguments)
    load_state(network, tensors, len(info.classes), path)
    return network, info


def match_names(network: nn.Module, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """`tensors` without the prefix "model." (of PyTorch Lightning) if all have it and no name in `network` does."""
    prefix = "model."
    if any(name.startswith(prefix) for name in network.state_dict()) or not all(
        name.startswith(prefix) for name in tensors
    ):
        return tensors
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}


def load_state(network: nn.Module, tensors: dict[str, Tensor], classes: int, path: Path | str) -> None:
    """Loads `tensors` into `network`, which has `classes` outputs. path: where they are from, for messages.

    Raises InputError if names, shapes or dtypes differ; nothing is loaded then.
    """
    own = network.state_dict()
    for name, tensor in tensors.items():
        if name in own and own[name].shape != tensor.shape:
            is_classifier = own[name].shape[:1] == (classes,) and name in classifier_names(network)
            if is_classifier and tensor.ndim == own[name].ndim and own[name].shape[1:] == tensor.shape[1:]:
                raise InputError(f"weight file {path} is for {len(tensor)} classes, but the data have {classes}")
            raise InputError(
                f"weight file {path}: {name} is {list(tensor.shape)}, but the network has {list(own[name].shape)}"
            )
    for name, tensor in tensors.items():
        if name in own and own[name].is_floating_point() and not tensor.is_floating_point():
            raise InputError(f"weight file {path}: {name} is {tensor.dtype}, but must be floating point")
    missing, unknown = sorted(own.keys() - tensors.keys()), sorted(tensors.keys() - own.keys())
    if missing or unknown:
        difference = f"lacks {missing[0]}" if missing else f"has {unknown[0]}, which the network does not have"
        raise InputError(f"weight file {path} {difference}; is it of another network?")
    network.load_state_dict(tensors)


def classifier_size(network: nn.Module, tensors: Mapping[str, Tensor]) -> int:
    """The number of classes of `tensors`, weights for `network` with any number of classes; 0 if unknown."""
    classifier = tensors.get(classifier_names(network)[-1])
    return 0 if classifier is None or classifier.ndim == 0 else len(classifier)


def classifier_names(network: nn.Module) -> list[str]:
    """The names of the classifier's tensors: those that timm knows, else the last two of the state_dict."""
    own = list(network.state_dict())
    layers = (getattr(network, "pretrained_cfg", None) or {}).get("classifier") or ()
    known = {f"{layer}.{kind}" for layer in ([layers] if isinstance(layers, str) else layers)
             for kind in ("weight", "bias")}  # fmt: skip
    return [name for name in own if name in known] or own[-2:]


def _parse_network_info(metadata: dict[str, str], path: Path) -> NetworkInfo | None:
    if _METADATA_KEY not in metadata:
        return None
    try:
        fields = json.loads(metadata[_METADATA_KEY])
        classes, mean, std = (tuple(fields[name]) for name in ("classes", "mean", "std"))
        height, width = fields["size"]
        arguments = dict(fields.get("arguments", {}))
        if not all(isinstance(value, int | float | str) for value in arguments.values()):
            raise ValueError("a network argument is not a number or text")
        photos, side = fields.get("photos", True), fields.get("evaluate_size")
        if not isinstance(photos, bool) or not (side is None or (type(side) is int and side > 0)):
            raise ValueError("photos is not true or false, or evaluate_size is not a size")
        return NetworkInfo(fields["network"], classes, mean, std, (height, width), arguments, photos, side)
    except (ValueError, TypeError, KeyError):
        raise InputError(f"weight file {path} has kdaug metadata that cannot be read") from None
