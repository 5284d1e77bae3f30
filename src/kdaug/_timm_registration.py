"""Puts kdaug's networks into timm's registry as soon as timm is there, without importing timm ourselves."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


def install() -> None:
    """Registers now if timm is imported already, else right after it is."""
    if "timm" in sys.modules:
        importlib.import_module("kdaug.networks")
    else:
        sys.meta_path.insert(0, _WaitForTimm())


class _WaitForTimm(MetaPathFinder):
    """Puts `_ThenRegister` around timm's own loader, until timm is imported."""

    _looking = False

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "timm" or self._looking:
            return None
        self._looking = True
        try:
            spec = importlib.util.find_spec("timm")
        finally:
            self._looking = False
        if spec is not None and spec.loader is not None:
            spec.loader = _ThenRegister(spec.loader, self)
        return spec


class _ThenRegister(Loader):
    def __init__(self, timms_own: Loader, finder: MetaPathFinder) -> None:
        self.timms_own, self.finder = timms_own, finder

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.timms_own.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self.timms_own.exec_module(module)
        if self.finder in sys.meta_path:
            sys.meta_path.remove(self.finder)
        if module.__spec__ is not None:
            module.__spec__.loader = self.timms_own
        importlib.import_module("kdaug.networks")
