"""Exporting a trained network to ONNX, torch.export, timm and the Hugging Face hub. Each file is checked first."""

from kdaug.export.check import Comparison
from kdaug.export.formats import Format, export_model
from kdaug.export.hub import check_push, push_to_hub

__all__ = ["Comparison", "Format", "check_push", "export_model", "push_to_hub"]
