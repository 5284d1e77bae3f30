"""The real images that an exported network is compared on, and the logits of the run for them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from kdaug.data import Dataset, EncodedImages
from kdaug.data.crops import CenterCrop
from kdaug.data.datasets import read_dataset, select_images
from kdaug.data.folder_index import FilePaths, files_under
from kdaug.data.formats import is_image
from kdaug.data.images import Images, balanced_subset
from kdaug.data.loader import UnreadableImages, evaluation_keys, load
from kdaug.errors import InputError
from kdaug.export.source import ExportSource

COMPARED_IMAGES = 128
_LARGEST_BATCH = 64


@dataclass(frozen=True)
class Reference:
    """Images uint8 [N,H,W,C] with the size and channels of the network, and the logits [N,classes] of the run.

    description: which images they are. dataset: that of the run, None if its images are not used.
    """

    images: Tensor
    logits: Tensor
    description: str
    dataset: Dataset | None

    def batches(self) -> Iterator[Tensor]:
        """Rows int64 of batches: one image, two, then all (at least three, if need be repeated) in larger ones."""
        rows = torch.arange(max(3, len(self.images))) % len(self.images)
        yield rows[:1]
        yield rows[:2]
        yield from torch.split(rows, _LARGEST_BATCH)

    def first(self, count: int) -> Reference:
        """The first `count` images."""
        return replace(self, images=self.images[:count], logits=self.logits[:count])


def make_reference(source: ExportSource, folder: Path | None) -> Reference:
    """Up to COMPARED_IMAGES images of `folder`, or of the run's validation images, with the logits of the network.

    Raises InputError if there are no readable images, or if the network's logits are not finite.
    """
    if folder is not None:
        files = _files_in(folder)
        rows = np.linspace(0, len(files) - 1, min(COMPARED_IMAGES, len(files))).astype(np.int64)
        images: Images = EncodedImages(files, np.zeros(len(files), np.int64)).subset(rows)
        of, dataset = f"{len(files):,} images in folder {Path(os.path.abspath(folder)).name}", None
    else:
        dataset = _run_dataset(source)
        rows = balanced_subset(dataset.val.labels, min(COMPARED_IMAGES, len(dataset.val)))
        images = dataset.val.subset(rows)
        of = f"{len(dataset.val):,} validation images of the run ({dataset.val_source})"
    pixels = _read_pixels(images, source.info.size, len(source.info.mean))
    if not len(pixels):
        raise InputError(f"none of the {of} can be read", "give a folder of images with --images")
    logits = torch.cat([source.predict(part) for part in torch.split(pixels, _LARGEST_BATCH)])
    if not logits.isfinite().all():
        raise InputError(f"the outputs of {source.path} are not finite", "export other weights")
    return Reference(pixels, logits, f"{len(pixels)} of the {of}", dataset)


def _run_dataset(source: ExportSource) -> Dataset:
    """The dataset of the run, never downloaded. Raises InputError if there is none or it cannot be read."""
    hint = "give a folder of images with --images"
    if source.run is None:
        raise InputError(f"{source.path} is a weight file, so there are no validation images to compare on", hint)
    data = replace(source.run.recipe.data, download=False)
    try:
        return select_images(read_dataset(data, data.val_fraction), data)
    except InputError as error:
        reason = f"the validation images of {source.path} cannot be read: {error.problem}"
        raise InputError(reason, hint) from None


def _files_in(folder: Path) -> FilePaths:
    """The image files in `folder` and below, sorted by path. Raises InputError if there are none."""
    if not folder.is_dir():
        raise InputError(f"--images {folder} is not a folder", "give a folder of images")
    prefix = len(str(folder / "x")) - 1  # that of "." is empty
    names = sorted(os.fsencode(path[prefix:]) for path in files_under(folder, is_image))
    if not names:
        raise InputError(f"--images {folder} has no images", "give a folder of images")
    return FilePaths.from_bytes(folder, b"\0".join(names), len(names))


def _read_pixels(images: Images, size: tuple[int, int], channels: int) -> Tensor:
    """The readable ones of `images`, uint8 [N,H,W,C] of `size` (height, width)."""
    unreadable = UnreadableImages(len(images), allowed_share=1.0)
    keys = evaluation_keys(len(images), COMPARED_IMAGES)
    batches = load(images, keys, CenterCrop(max(size)), 0, unreadable)
    pixels = [_fit(image, size, channels) for batch in batches for image in batch.images]
    return torch.from_numpy(np.stack(pixels)) if pixels else torch.zeros(0, *size, channels, dtype=torch.uint8)


def _fit(image: NDArray[np.uint8], size: tuple[int, int], channels: int) -> NDArray[np.uint8]:
    """`image` [H,W,C] with `size` and `channels`: unchanged, or converted to gray and stretched.

    Stretched images will do: only the difference of two computations on them is measured.
    """
    height, width = size
    if image.shape == (height, width, channels):
        return image
    picture = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
    if channels == 1:
        picture = picture.convert("L")
    pixels = np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC))
    return pixels if pixels.ndim == 3 else pixels[..., None]
