"""A trained network with its preprocessing and class names, ready to predict."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from kdaug.data.decode import UnreadableImage
from kdaug.device import autocast
from kdaug.errors import InputError
from kdaug.inference.predictions import class_probabilities
from kdaug.inference.preprocessing import ImageInput, Preprocessing, as_images
from kdaug.inference.reading import read_batches
from kdaug.training.evaluation import top_classes
from kdaug.training.out_of_memory import describe_out_of_memory, is_out_of_memory

TopClasses = list[tuple[str, float]]
"""(class, probability) of an image's most probable classes, most probable first."""


@dataclass(frozen=True, eq=False)
class Classifier:
    """A trained network with its preprocessing and class names; `kdaug.load` makes it.

    network: in evaluation mode, on `device`. classes: the names of its outputs. precision: the autocast type of
    `predict`. batch: how many images `predict` passes through the network at once.
    """

    network: nn.Module
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    device: torch.device
    precision: torch.dtype
    batch: int

    def preprocess(self, image: ImageInput) -> Tensor:
        """The input of the network for one image: float32 [C,H,W] on `device`, the same bits as in evaluation.

        image: see `predict`. `network(preprocess(image)[None])` are its logits. Raises InputError for an image that
        cannot be read.
        """
        try:
            pixels = torch.tensor(self.preprocessing.pixels(image))
        except UnreadableImage as error:
            raise InputError(f"{name_of(image)} cannot be read ({error})") from None
        return self.preprocessing.input_format.normalize(pixels[None].to(self.device))[0]

    def predict(
        self, images: ImageInput | Iterable[ImageInput], top: int = 5, batch: int | None = None
    ) -> list[TopClasses]:
        """The `top` most probable classes of each image, as (class, probability), most probable first.

        images: one image or several: paths, PIL images, or arrays uint8 [H,W,C] with C 1 (gray) or 3 (RGB); an array
        [N,H,W,C] is N images. A single image gives a list of one. They may have any size: the central square is resized
        as in evaluation. Files are decoded in parallel. top: more than there are classes means all. batch: images
        passed through the network at once; None: as many as in `kdaug eval`, whose probabilities a CPU then gives to
        the last bit, with as many threads. Raises InputError for an image that cannot be read.
        """
        predictions = list[TopClasses]()
        for image, prediction in self.predict_each(as_images(images), top, batch):
            if isinstance(prediction, UnreadableImage):
                raise InputError(f"{name_of(image)} cannot be read ({prediction})")
            predictions.append(prediction)
        return predictions

    def predict_each(
        self, images: Iterable[ImageInput], top: int, batch: int | None
    ) -> Iterator[tuple[ImageInput, TopClasses | UnreadableImage]]:
        """As `predict`: each image with its prediction, or why it cannot be read; in order, batch by batch."""
        batch = self.batch if batch is None else batch
        for name, number in (("top", top), ("batch", batch)):
            if number < 1:
                raise InputError(f"{name} is {number}, but must be at least 1")
        with closing(read_batches(self.preprocessing, images, batch)) as batches:
            for read in batches:
                pixels = [value for _, value in read if isinstance(value, np.ndarray)]
                predicted = iter(self._predict_pixels(np.stack(pixels), top) if pixels else ())
                for image, value in read:
                    yield image, value if isinstance(value, UnreadableImage) else next(predicted)

    def _predict_pixels(self, pixels: NDArray[np.uint8], top: int) -> list[TopClasses]:
        """The top classes of images from `preprocessing.pixels`: uint8 [N,size,size,C]."""
        logits = self._logits(torch.from_numpy(pixels))
        classes = top_classes(logits, top).cpu()
        probabilities = class_probabilities(logits).gather(1, classes)
        return [
            [(self.classes[index], probability) for index, probability in zip(*row, strict=True)]
            for row in zip(classes.tolist(), probabilities.tolist(), strict=True)
        ]

    def _logits(self, pixels: Tensor) -> Tensor:
        """Logits float32 [N,classes] on the device."""
        self.network.eval()
        try:
            with torch.no_grad(), autocast(self.device, self.precision):
                logits: Tensor = self.network(self.preprocessing.input_format.normalize(pixels.to(self.device)))
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            problem = describe_out_of_memory(error, "predicting", len(pixels), self.device)
            raise InputError(problem, "use a smaller batch") from None
        return logits.float()


def name_of(image: ImageInput) -> str:
    """An image in a message: its path if it has one."""
    return f"image {image}" if isinstance(image, str) or hasattr(image, "__fspath__") else "an image"
