"""Names of a package that are imported at their first use: to load all takes longer than most commands run."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["Names"]


class Names:
    """The names of a package, given by module: `{"engine": "connect transaction"}`. Public modules are under "".

    A package uses it like this: `__getattr__, __dir__ = names.find, names.listed`.
    """

    def __init__(self, package: str, names: Mapping[str, str]) -> None:
        self._package = package
        self._module_of = {name: module or name for module, found in names.items() for name in found.split()}
        self._modules = {*names.get("", "").split()}

    def __iter__(self) -> Iterator[str]:
        return iter(self._module_of)

    def load(self, name: str) -> Any:
        """Return the object of this name."""
        module = importlib.import_module(f"{self._package}.{self._module_of[name]}")
        return module if name in self._modules else getattr(module, name)

    def find(self, name: str) -> Any:
        """Return the object of this name, and keep it in the package.

        Raises:
            AttributeError: The package has no such name.
        """
        if name not in self._module_of:
            raise AttributeError(f"module {self._package!r} has no attribute {name!r}")
        found = self.load(name)
        setattr(sys.modules[self._package], name, found)
        return found

    def listed(self) -> list[str]:
        """Return all names of the package, unused ones included."""
        return sorted({*vars(sys.modules[self._package]), *self})
