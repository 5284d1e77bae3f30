"""Datasets: named sets, image folders, shards, the Hugging Face hub, the bundled set; decoding and batch loading."""

from kdaug.data.datasets import load_dataset
from kdaug.data.images import ArrayImages, Dataset, EncodedImages

__all__ = ["ArrayImages", "Dataset", "EncodedImages", "load_dataset"]
