"""Images in: named data sets, image folders, the bundled set; decoding; batches in a deterministic order."""

from kdaug.data.datasets import load_dataset
from kdaug.data.images import ArrayImages, Dataset, EncodedImages

__all__ = ["ArrayImages", "Dataset", "EncodedImages", "load_dataset"]
