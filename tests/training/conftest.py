"""Networks small enough to follow by hand, a recipe that trains in a second, and runs that several tests look at."""

from __future__ import annotations

import io
import itertools
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from timm.models import register_model
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from kdaug.config import Data, Network, Optimization, Recipe, Run, Teacher, Views
from kdaug.networks.noise import ShakeDrop, ShakeShake
from kdaug.training import train


@pytest.fixture
def held_elsewhere() -> Callable[[Path], AbstractContextManager[None]]:
    """`with held_elsewhere(folder)`: another process holds it."""

    @contextmanager
    def held(folder: Path) -> Iterator[None]:
        code = "import sys, pathlib; from kdaug.storage.lock import hold; lock = hold(pathlib.Path(sys.argv[1]), '')"
        command = [sys.executable, "-c", code + "; print(flush=True); sys.stdin.read()", str(folder)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holding:
            assert holding.stdout is not None
            assert holding.stdout.readline()
            yield
            holding.kill()

    return held


class SoftmaxRegression(nn.Module):
    """Logits W x + b of grey 28 x 28 images, with dropout on x."""

    def __init__(self, num_classes: int, dropout: float) -> None:
        super().__init__()
        self.dropout, self.fc = nn.Dropout(dropout), nn.Linear(28 * 28, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.dropout(x.flatten(1)))


class SmallConvNet(nn.Sequential):
    """What real networks have: convolutions, batch norms with running statistics, dropout, pooling."""

    def __init__(self, num_classes: int, in_chans: int) -> None:
        super().__init__(
            *(nn.Conv2d(in_chans, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.1)),
            *(nn.Conv2d(8, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, num_classes)),
        )


@register_model
def small_convnet(num_classes: int = 10, in_chans: int = 3, **_: Any) -> nn.Module:
    return SmallConvNet(num_classes, in_chans)


@register_model
def droppable_convnet(
    num_classes: int = 10, in_chans: int = 3, drop_path_rate: float = 0.0, drop_rate: float = 0.0, **_: Any
) -> nn.Module:
    """SmallConvNet that notes the rates it is made with, and can compute its activations again."""
    network = SmallConvNet(num_classes, in_chans)
    network.rates, network.recomputes = (drop_path_rate, drop_rate), False
    network.set_grad_checkpointing = lambda on: setattr(network, "recomputes", on)
    return network


class ShakenConvNet(nn.Module):
    """Two branches mixed by Shake-Shake, the result scaled by ShakeDrop."""

    def __init__(self, num_classes: int, in_chans: int) -> None:
        super().__init__()
        self.left, self.right = (nn.Conv2d(in_chans, 4, 3, 3) for _ in range(2))
        self.shake, self.drop, self.fc = ShakeShake(), ShakeDrop(0.5), nn.Linear(4, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.drop(self.shake(self.left(x), self.right(x))).relu().mean((2, 3)))


@register_model
def shaken_convnet(num_classes: int = 10, in_chans: int = 3, **_: Any) -> nn.Module:
    return ShakenConvNet(num_classes, in_chans)


@register_model
def softmax_regression(num_classes: int = 10, **_: Any) -> nn.Module:
    return SoftmaxRegression(num_classes, dropout=0.0)


@register_model
def softmax_regression_strict(
    num_classes: int = 10, in_chans: int = 3, pretrained: bool = False, pretrained_cfg: Any = None,
    pretrained_cfg_overlay: Any = None, cache_dir: Any = None,
) -> nn.Module:  # fmt: skip
    return SoftmaxRegression(num_classes, dropout=0.0)


@register_model
def softmax_regression_dropout(num_classes: int = 10, **_: Any) -> nn.Module:
    return SoftmaxRegression(num_classes, dropout=0.3)


STUDENTS = (SoftmaxRegression, SmallConvNet, ShakenConvNet)


def _changed(recipe: Recipe, settings: dict[str, Any]) -> Recipe:
    for name, value in settings.items():
        part, key = name.split(".")
        recipe = replace(recipe, **{part: replace(getattr(recipe, part), **{key: value})})
    return recipe


TINY = Recipe(
    data=Data(train_images=256),
    views=Views(policy="randaugment-n2-m5@paper-geometric"),
    student=Network("softmax_regression"),
    optimization=Optimization(epochs=2, global_batch=64, learning_rate=0.05, precision="float32"),
    run=Run(device="cpu", threads=1),  # more would mostly wait for each other
)
"""Four steps in each of two epochs, about half a second."""


@pytest.fixture(scope="session")
def tiny_recipe() -> Recipe:
    """TINY itself, without a directory."""
    return TINY


@pytest.fixture
def tiny(tmp_path: Path) -> Callable[..., Recipe]:
    """TINY in tmp_path/run, with some settings (by dotted name) changed."""
    return lambda settings=None: _changed(TINY, {"run.dir": str(tmp_path / "run"), **(settings or {})})


@pytest.fixture(scope="session")
def changed() -> Callable[[Recipe, dict[str, Any]], Recipe]:
    """A recipe with settings, by dotted name, changed."""
    return _changed


@pytest.fixture(scope="session")
def lines_of() -> Callable[[Path], list[dict[str, Any]]]:
    """The lines of a run's metrics.jsonl; every one must be JSON in the strict sense, which knows no NaN."""

    def read(run: Path) -> list[dict[str, Any]]:
        text = (run / "metrics.jsonl").read_text()
        assert text.endswith("\n")
        return [json.loads(line, parse_constant=pytest.fail) for line in text.splitlines()]

    return read


@pytest.fixture
def console() -> Console:
    """Keeps what is printed, for console.file.getvalue()."""
    return Console(file=io.StringIO(), soft_wrap=True)


@pytest.fixture(scope="session")
def each_step() -> Callable[..., Any]:
    """`with each_step(see)`: see(step, student, its input) is called as each training step begins, counted from 1."""

    @contextmanager
    def watch(see: Callable[[int, nn.Module, Tensor], None]) -> Iterator[None]:
        count = itertools.count(1)

        def hook(module: nn.Module, inputs: tuple[Tensor]) -> None:
            if module.training and torch.is_grad_enabled() and isinstance(module, STUDENTS):
                see(next(count), module, inputs[0])

        handle = register_module_forward_pre_hook(hook)
        try:
            yield
        finally:
            handle.remove()

    return watch


TAUGHT = replace(
    TINY,
    student=Network("small_convnet"),
    teacher=Teacher(source="train"),
    optimization=Optimization(epochs=2, global_batch=64),
)


@pytest.fixture(scope="session")
def taught_recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """A convolutional network with a teacher to be trained, in the machine's precision."""
    return replace(TAUGHT, run=Run(dir=str(tmp_path_factory.mktemp("runs") / "taught"), device="cpu", threads=1))


@pytest.fixture(scope="session")
def taught(taught_recipe: Recipe) -> Path:
    """The finished run of `taught_recipe`; look only."""
    return train(taught_recipe, Console(file=io.StringIO())).directory
