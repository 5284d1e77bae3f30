"""Images in: named data sets, image folders, the bundled set; decoding; batches in a deterministic order."""

from kdaug.data.images import ArrayImages, Dataset, EncodedImages
from kdaug.data.sets import load_dataset

__all__ = ["ArrayImages", "Dataset", "EncodedImages", "load_dataset"]
