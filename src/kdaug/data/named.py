"""CIFAR-10, CIFAR-100 and Fashion-MNIST, read from their official files (archives or unpacked). MD5 are checked."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdaug.config.datasets import DatasetName
from kdaug.data.images import ArrayImages, Dataset, array_dataset
from kdaug.errors import InputError

# Published at cs.toronto.edu/~kriz/cifar.html (archives) and in torchvision (python files). Those of CIFAR-10's binary
# files 2 to 5 are from a copy whose first batch and test batch have the published MD5. Those of the idx files are from
# Debian's dataset-fashion-mnist, because only the MD5 of the gzip files is published.
MD5 = {
    "cifar-10-batches-bin/data_batch_1.bin": "5dd7e06a14cb22eb9f671a540d1b7c25",
    "cifar-10-batches-bin/data_batch_2.bin": "5ea93a67294ea407fff1d09f752e9692",
    "cifar-10-batches-bin/data_batch_3.bin": "942cd6a4bcdd0dd3c604fbe906cb4421",
    "cifar-10-batches-bin/data_batch_4.bin": "ae636b3ba5c66a11e91e8cb52e771fcb",
    "cifar-10-batches-bin/data_batch_5.bin": "53f37980c15c3d472c316c40844f3f0d",
    "cifar-10-batches-bin/test_batch.bin": "803d5f7f4d78ea53de84dbe85f74fb6d",
    "cifar-10-batches-py/data_batch_1": "c99cafc152244af753f735de768cd75f",
    "cifar-10-batches-py/data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "cifar-10-batches-py/data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "cifar-10-batches-py/data_batch_4": "634d18415352ddfa80567beed471001a",
    "cifar-10-batches-py/data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "cifar-10-batches-py/test_batch": "40351d587109b95175f43aff81a1287e",
    "cifar-100-binary/train.bin": "6172c7755cfe09b2fe270c85cebc1b15",
    "cifar-100-binary/test.bin": "4499cfba6c016c1be1438163640a0898",
    "cifar-100-python/train": "16019d7e3df5f24257cddd939b257f8d",
    "cifar-100-python/test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
    "FashionMNIST/raw/train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
    "FashionMNIST/raw/train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
    "FashionMNIST/raw/t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
    "FashionMNIST/raw/t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
}

# the archive of each folder; torchvision downloads the python version
_CIFAR_ARCHIVES = {
    "cifar-10": {"cifar-10-batches-bin": "cifar-10-binary.tar.gz", "cifar-10-batches-py": "cifar-10-python.tar.gz"},
    "cifar-100": {"cifar-100-binary": "cifar-100-binary.tar.gz", "cifar-100-python": "cifar-100-python.tar.gz"},
}
_FASHION_FOLDER = "FashionMNIST/raw"


def load_named(name: DatasetName, root: Path, download: bool) -> Dataset:
    """The dataset `name` from the folder `root`. With `download`, torchvision downloads it if it is not there.

    Raises InputError if files are missing, cannot be read, or differ from the published ones.
    """
    source = SOURCES[name]
    splits = source.read(root)
    if splits is None and download:
        _download(name, root)
        splits = source.read(root)
    if splits is None:
        raise InputError(
            f"dataset {name} is not in {root} (which has none of {', '.join(source.entries)})",
            "give its folder with data.root, or download it with data.download",
        )
    return array_dataset(name, class_names(name), *splits)


def class_names(name: str) -> tuple[str, ...]:
    """The official class names of a named dataset, in label order."""
    text = resources.files("kdaug.data").joinpath("class_names.json").read_text(encoding="utf-8")
    return tuple(json.loads(text)[name])


def read_cifar(name: str, root: Path) -> tuple[ArrayImages, ArrayImages] | None:
    """Training and test images of `cifar-10` or `cifar-100` from any version in `root`; None if there is none."""
    for folder, archive in _CIFAR_ARCHIVES[name].items():
        files = [file for file in MD5 if file.startswith(f"{folder}/")]  # the training files, then the test file
        decode = _decode_binary if folder.endswith(("-bin", "-binary")) else _decode_python
        if (root / folder).is_dir():
            source, contents = root, {file: _read(root / file) for file in files}
        elif (root / archive).is_file():
            source, contents = root / archive, _read_archive(root / archive, files)
        else:
            continue
        batches = [decode(_verify_md5(file, contents[file], source), name) for file in files]
        return _concatenate(batches[:-1]), batches[-1]
    return None


def read_fashion_mnist(root: Path) -> tuple[ArrayImages, ArrayImages] | None:
    """Training and test images from the idx files in `root`/FashionMNIST/raw; None if that folder does not exist."""
    if not (root / _FASHION_FOLDER).is_dir():
        return None
    splits = []
    for split in ("train", "t10k"):
        files = [f"{_FASHION_FOLDER}/{split}-{kind}-ubyte" for kind in ("images-idx3", "labels-idx1")]
        images, labels = (np.frombuffer(_verify_md5(f, _read(root / f), root), np.uint8) for f in files)
        splits.append(ArrayImages(images[16:].reshape(-1, 28, 28, 1), labels[8:].astype(np.int64)))
    return splits[0], splits[1]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror})", "unpack the official archive again") from None


def _read_archive(path: Path, files: list[str]) -> dict[str, bytes]:
    contents = {}
    try:
        with tarfile.open(path, "r:gz") as archive:
            for file in files:
                member = archive.extractfile(file)
                if member is None:
                    raise tarfile.TarError(f"{file} is not a regular file")
                contents[file] = member.read()
    except (OSError, EOFError, KeyError, tarfile.TarError) as error:
        raise InputError(f"{path} is not the official archive ({error})", "download it again") from None
    return contents


def _verify_md5(file: str, content: bytes, source: Path) -> bytes:
    """`content` of `file`, if its MD5 is the published one. source: its folder or archive, for the error."""
    if hashlib.md5(content, usedforsecurity=False).hexdigest() != MD5[file]:
        raise InputError(f"{source / file}: MD5 differs from the published one", "unpack the official archive again")
    return content


def _decode_binary(content: bytes, name: str) -> ArrayImages:
    label_bytes = 2 if name == "cifar-100" else 1
    rows = np.frombuffer(content, np.uint8).reshape(-1, label_bytes + 3072)
    return _from_planes(rows[:, label_bytes:], rows[:, label_bytes - 1])


def _decode_python(content: bytes, name: str) -> ArrayImages:
    batch = _RestrictedUnpickler(io.BytesIO(content), encoding="bytes").load()
    return _from_planes(batch[b"data"], np.array(batch[b"fine_labels" if name == "cifar-100" else b"labels"]))


def _from_planes(planes: NDArray[np.uint8], labels: NDArray[Any]) -> ArrayImages:
    images = planes.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return ArrayImages(np.ascontiguousarray(images), labels.astype(np.int64))


def _concatenate(batches: list[ArrayImages]) -> ArrayImages:
    return ArrayImages(np.concatenate([b.images for b in batches]), np.concatenate([b.labels for b in batches]))


class _RestrictedUnpickler(pickle.Unpickler):
    """Loads lists, dicts and NumPy arrays only, so that a file cannot run code."""

    def find_class(self, module: str, name: str) -> Any:
        current = module.replace("numpy.core", "numpy._core")  # renamed in NumPy 2
        if (current, name) in {("numpy._core.multiarray", "_reconstruct"), ("numpy", "ndarray"), ("numpy", "dtype")}:
            return super().find_class(current, name)
        raise InputError(f"a CIFAR file refers to {module}.{name}, but the official files do not", "download it again")


def _download(name: DatasetName, root: Path) -> None:
    from torchvision import datasets

    try:
        getattr(datasets, SOURCES[name].torchvision_class)(root, download=True)
    except (OSError, RuntimeError) as error:
        raise InputError(f"dataset {name} cannot be downloaded ({error})", f"copy its files into {root}") from None


@dataclass(frozen=True)
class Source:
    """How a named dataset is read.

    read: training and test images from a folder; None if they are not there. entries: the folders and archives of which
    one must be in that folder. torchvision_class: the class that downloads them.
    """

    read: Callable[[Path], tuple[ArrayImages, ArrayImages] | None]
    entries: tuple[str, ...]
    torchvision_class: str


def _cifar_source(name: str, torchvision_class: str) -> Source:
    entries = tuple(entry for version in _CIFAR_ARCHIVES[name].items() for entry in version)
    return Source(partial(read_cifar, name), entries, torchvision_class)


SOURCES: dict[DatasetName, Source] = {
    "cifar-10": _cifar_source("cifar-10", "CIFAR10"),
    "cifar-100": _cifar_source("cifar-100", "CIFAR100"),
    "fashion-mnist": Source(read_fashion_mnist, (_FASHION_FOLDER,), "FashionMNIST"),
}
"""The datasets that `load_named` reads."""
