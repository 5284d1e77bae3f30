"""Named datasets: all published versions give the same images, and files with other bytes are refused."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import struct
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torchvision
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

from kdaug.data import ArrayImages, named
from kdaug.data.named import class_names, load_named
from kdaug.errors import InputError

REAL = pytest.mark.skipif("KDAUG_DATA" not in os.environ, reason="KDAUG_DATA does not name a folder of official files")
CIFARS = ["cifar-10", "cifar-100"]
VERSIONS = ["binary", "python"]
PER_FILE = 3


@dataclass(frozen=True)
class BatchFile:
    """An official file of CIFAR: its path below data.root, and its images and labels."""

    file: str
    planes: NDArray[np.uint8]
    labels: list[int]

    @property
    def images(self) -> NDArray[np.uint8]:
        red, green, blue = (self.planes[:, i * 1024 : (i + 1) * 1024].reshape(-1, 32, 32) for i in range(3))
        return np.stack([red, green, blue], axis=-1)


def batch_files(name: str, version: str) -> list[BatchFile]:
    """Random images in the files that cs.toronto.edu/~kriz/cifar.html describes. The last file is the test set."""
    if name == "cifar-10":
        folder, ending = ("cifar-10-batches-bin", ".bin") if version == "binary" else ("cifar-10-batches-py", "")
        files = [f"data_batch_{i}{ending}" for i in (1, 2, 3, 4, 5)] + [f"test_batch{ending}"]
    else:
        folder, ending = ("cifar-100-binary", ".bin") if version == "binary" else ("cifar-100-python", "")
        files = [f"train{ending}", f"test{ending}"]
    rng = np.random.default_rng(0)
    classes = 10 if name == "cifar-10" else 100
    return [
        BatchFile(
            f"{folder}/{file}",
            rng.integers(0, 256, (PER_FILE, 3072), np.uint8),
            rng.integers(0, classes, PER_FILE).tolist(),
        )
        for file in files
    ]


def as_binary(part: BatchFile) -> bytes:
    """One row per image: [coarse label] label, then the red, green and blue plane."""
    coarse = [b"\x63"] if "cifar-100" in part.file else []
    return b"".join(
        b"".join([*coarse, bytes([label]), row.tobytes()]) for label, row in zip(part.labels, part.planes, strict=True)
    )


def as_python2_pickle(part: BatchFile) -> bytes:
    """The dict of the python version, as Python 2 and NumPy of that time wrote it."""
    label_key = "fine_labels" if "cifar-100" in part.file else "labels"
    batch = {"data": part.planes, label_key: part.labels, "batch_label": "one", "coarse_labels": [99] * PER_FILE}
    file = io.BytesIO()
    _Python2Pickler(file, protocol=2).dump(batch)
    return file.getvalue().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")


class _Python2Pickler(pickle._Pickler):
    """Writes text and bytes as Python 2's `str`."""

    dispatch = pickle._Pickler.dispatch.copy()

    def save_str(self, value: str | bytes) -> None:
        content = value.encode() if isinstance(value, str) else value
        self.write(pickle.BINSTRING + struct.pack("<i", len(content)) + content)
        self.memoize(value)

    dispatch[str] = dispatch[bytes] = save_str


def write(root: Path, contents: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """Writes the files below `root` and makes their MD5 the published ones."""
    for file, content in contents.items():
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_bytes(content)
    publish(contents, monkeypatch)


def publish(contents: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    assert contents.keys() <= named.MD5.keys()
    md5 = {file: hashlib.md5(content).hexdigest() for file, content in contents.items()}
    monkeypatch.setattr(named, "MD5", named.MD5 | md5)


def tarred(contents: dict[str, bytes]) -> bytes:
    """An uncompressed tar archive."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


def gzipped(content: bytes) -> bytes:
    return zlib.compress(content, wbits=31)


def contents_of(name: str, version: str) -> dict[str, bytes]:
    encode = as_binary if version == "binary" else as_python2_pickle
    return {part.file: encode(part) for part in batch_files(name, version)}


def assert_equal(images: Any, parts: list[BatchFile]) -> None:
    assert isinstance(images, ArrayImages)
    assert images.images.dtype == np.uint8
    assert images.labels.dtype == np.int64
    assert_array_equal(images.images, np.concatenate([part.images for part in parts]))
    assert_array_equal(images.labels, np.concatenate([part.labels for part in parts]))


@pytest.mark.parametrize("name", CIFARS)
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("archived", [False, True])
def test_every_version_of_cifar_gives_the_same_images(
    name: str, version: str, archived: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents, parts = contents_of(name, version), batch_files(name, version)
    if archived:
        (tmp_path / f"{name}-{version}.tar.gz").write_bytes(gzipped(tarred(contents)))
        publish(contents, monkeypatch)
    else:
        write(tmp_path, contents, monkeypatch)
    dataset = load_named(name, tmp_path, download=False)
    assert_equal(dataset.train, parts[:-1])
    assert_equal(dataset.val, parts[-1:])
    assert (dataset.size, dataset.channels, len(dataset.classes)) == ((32, 32), 3, int(name.split("-")[1]))
    values = np.concatenate([part.images for part in parts[:-1]]) / 255
    assert_allclose(dataset.mean, values.mean((0, 1, 2)), rtol=1e-12)
    assert_allclose(dataset.std, values.std((0, 1, 2)), rtol=1e-12)


def test_fashion_mnist_is_read_from_idx_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    contents, expected = {}, []
    for split, count in (("train", 5), ("t10k", 2)):
        images = rng.integers(0, 256, (count, 28, 28), np.uint8)
        labels = rng.integers(0, 10, count, np.uint8)
        expected.append((images, labels))
        folder = f"FashionMNIST/raw/{split}"
        contents[f"{folder}-images-idx3-ubyte"] = struct.pack(">4i", 0x803, count, 28, 28) + images.tobytes()
        contents[f"{folder}-labels-idx1-ubyte"] = struct.pack(">2i", 0x801, count) + labels.tobytes()
    write(tmp_path, contents, monkeypatch)
    dataset = load_named("fashion-mnist", tmp_path, download=False)
    assert (dataset.size, dataset.channels) == ((28, 28), 1)
    for part, (images, labels) in zip((dataset.train, dataset.val), expected, strict=True):
        assert isinstance(part, ArrayImages)
        assert_array_equal(part.images, images[..., None])
        assert_array_equal(part.labels, labels)
        assert part.labels.dtype == np.int64


@pytest.mark.parametrize("name", CIFARS)
@pytest.mark.parametrize("version", VERSIONS)
def test_a_changed_file_is_an_error(name: str, version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contents = contents_of(name, version)
    write(tmp_path, contents, monkeypatch)
    for file, content in contents.items():
        (tmp_path / file).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        with pytest.raises(InputError, match=r"MD5 differs.*unpack the official archive again") as error:
            load_named(name, tmp_path, download=False)
        assert str(tmp_path / file) in str(error.value)
        (tmp_path / file).write_bytes(content)


def test_a_changed_file_in_an_archive_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contents = contents_of("cifar-10", "binary")
    publish(contents, monkeypatch)
    changed = contents | {"cifar-10-batches-bin/data_batch_3.bin": bytes(PER_FILE * 3073)}
    (tmp_path / "cifar-10-binary.tar.gz").write_bytes(gzipped(tarred(changed)))
    with pytest.raises(InputError, match=r"cifar-10-binary\.tar\.gz") as error:
        load_named("cifar-10", tmp_path, download=False)
    assert "data_batch_3.bin" in str(error.value)


def test_a_missing_file_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, contents_of("cifar-10", "binary"), monkeypatch)
    missing = tmp_path / "cifar-10-batches-bin" / "data_batch_4.bin"
    missing.unlink()
    with pytest.raises(InputError, match=r"cannot be read.*unpack the official archive again") as error:
        load_named("cifar-10", tmp_path, download=False)
    assert str(missing) in str(error.value)


@pytest.mark.parametrize("damage", ["cut", "garbled", "text", "empty", "other files", "folder for a file"])
def test_a_damaged_archive_is_an_error(damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contents = contents_of("cifar-10", "binary")
    publish(contents, monkeypatch)
    tar = tarred(contents)
    deflate = zlib.compressobj(wbits=31)
    damaged = {
        "cut": gzipped(tar)[: len(tar) // 2],
        "garbled": deflate.compress(tar[:2000]) + deflate.flush(zlib.Z_FULL_FLUSH) + b"\x07" * 500,
        "text": b"404 Not Found",
        "empty": b"",
        "other files": gzipped(tarred({"readme.html": b"hello"})),
        "folder for a file": gzipped(_tar_of_a_folder("cifar-10-batches-bin/data_batch_1.bin")),
    }[damage]
    archive = tmp_path / "cifar-10-binary.tar.gz"
    archive.write_bytes(damaged)
    with pytest.raises(InputError, match=r"not the official archive.*download it again") as error:
        load_named("cifar-10", tmp_path, download=False)
    assert str(archive) in str(error.value)


def _tar_of_a_folder(name: str) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        member = tarfile.TarInfo(name)
        member.type = tarfile.DIRTYPE
        archive.addfile(member)
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "entries"),
    [
        ("cifar-10", ["cifar-10-batches-bin", "cifar-10-python.tar.gz"]),
        ("cifar-100", ["cifar-100-binary", "cifar-100-python.tar.gz"]),
        ("fashion-mnist", ["FashionMNIST/raw"]),
    ],
)
def test_the_error_for_a_missing_dataset_says_how_to_get_it(name: str, entries: list[str], tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        load_named(name, tmp_path, download=False)
    for part in [name, str(tmp_path), *entries]:
        assert part in error.value.problem
    assert error.value.hint == "give its folder with data.root, or download it with data.download"


class _RunsCommand:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


@pytest.mark.parametrize("nested", [False, True])
def test_a_pickle_that_would_run_code_is_refused(nested: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    canary = tmp_path / "canary"
    command = _RunsCommand(f"touch {canary}")
    malicious = pickle.dumps({"data": command, "labels": []} if nested else command, protocol=2)
    contents = contents_of("cifar-10", "python") | {"cifar-10-batches-py/data_batch_1": malicious}
    write(tmp_path, contents, monkeypatch)
    with pytest.raises(InputError, match="system"):
        load_named("cifar-10", tmp_path, download=False)
    assert not canary.exists()
    pickle.loads(malicious)
    assert canary.exists(), "the pickle of this test runs its command if it is loaded without protection"


def test_only_a_missing_dataset_is_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contents = contents_of("cifar-100", "python")
    publish(contents, monkeypatch)
    downloads = []

    def download_to(root: Path, download: bool) -> None:
        downloads.append(root)
        write(Path(root), contents, monkeypatch)

    monkeypatch.setattr(torchvision.datasets, "CIFAR100", download_to)
    for _ in range(2):
        assert len(load_named("cifar-100", tmp_path, download=True).train) == PER_FILE
    assert downloads == [tmp_path]


@pytest.mark.parametrize("error", [OSError("no route to host"), RuntimeError("File not found or corrupted.")])
def test_a_failed_download_is_an_error(error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(root: Path, download: bool) -> None:
        raise error

    monkeypatch.setattr(torchvision.datasets, "FashionMNIST", fail)
    with pytest.raises(InputError, match=f"fashion-mnist cannot be downloaded .*{error}"):
        load_named("fashion-mnist", tmp_path, download=True)


def test_class_names_are_in_official_order() -> None:
    assert " ".join(class_names("cifar-10")) == "airplane automobile bird cat deer dog frog horse ship truck"
    hundred = class_names("cifar-100")
    assert len(set(hundred)) == 100
    assert list(hundred) == sorted(hundred)
    assert (hundred[0], hundred[19], hundred[49], hundred[99]) == ("apple", "cattle", "mountain", "worm")
    assert class_names("fashion-mnist")[::3] == ("T-shirt/top", "Dress", "Shirt", "Ankle boot")


@REAL
@pytest.mark.parametrize(
    ("name", "counts", "pixels", "labels", "mean", "std"),
    [
        ("cifar-10", (50_000, 10_000), [[59, 62, 63], [43, 46, 45]], [6, 9, 9, 4, 1],
         (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
        ("cifar-100", (50_000, 10_000), [[255, 255, 255]] * 2, [19, 29, 0, 11, 1],
         (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
        ("fashion-mnist", (60_000, 10_000), [[0], [0]], [9, 0, 0, 3, 0], (0.2860,), (0.3530,)),
    ],
)  # fmt: skip
def test_official_files_have_known_pixels_and_statistics(
    name: str,
    counts: tuple[int, int],
    pixels: list[list[int]],
    labels: list[int],
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> None:
    dataset = load_named(name, Path(os.environ["KDAUG_DATA"]), download=False)
    for part, count in zip((dataset.train, dataset.val), counts, strict=True):
        assert isinstance(part, ArrayImages)
        assert part.images.shape == (count, *dataset.size, dataset.channels)
        assert_array_equal(np.bincount(part.labels), [count / len(dataset.classes)] * len(dataset.classes))
    assert isinstance(dataset.train, ArrayImages)
    assert dataset.train.images[0, 0, :2].tolist() == pixels
    assert dataset.train.labels[:5].tolist() == labels
    assert_allclose(dataset.mean, mean, atol=6e-5)
    assert_allclose(dataset.std, std, atol=6e-5)
