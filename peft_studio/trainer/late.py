"""
Packages that run when something of theirs is asked for, not when they are imported, which most jobs leave it at.

transformers imports PyTorch's compiler for its decorators, which change nothing where nothing is compiled, and lists
twice what each file of its hundreds of architectures holds.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any


def _as_it_is(function: Any = None, *_: Any, **__: Any) -> Any:
    """Decorate a function, with settings or without, and change nothing."""
    return _as_it_is if function is None else function


def _nothing() -> None:
    return None


@dataclass(frozen=True)
class Manners:
    """What works of a package that has not run: answers for some of its names, and submodules (None: all of them)."""

    answers: Mapping[str, Callable[..., Any]] = field(default_factory=dict[str, Callable[..., Any]])
    alone: frozenset[str] | None = frozenset()


LATE: Mapping[str, Manners] = {
    "torch._dynamo": Manners(
        {
            "allow_in_graph": _as_it_is,
            "assume_constant_result": _as_it_is,
            "disable": _as_it_is,
            "graph_break": _nothing,
        },
        alone=frozenset({"_trace_wrapped_higher_order_op"}),
    ),
    "torch.export": Manners(),
    "transformers.models": Manners(alone=None),
}


def run_late(packages: Mapping[str, Manners] = LATE) -> None:
    """Have packages run late from here on; those that are loaded already stay as they are."""
    sys.meta_path.insert(0, _Finder(packages))


class _Late(ModuleType):
    """A package that may not have run; what it cannot answer makes it run."""

    def __getattr__(self, name: str) -> Any:
        loader = getattr(self.__spec__, "loader", None)
        if isinstance(loader, _LateLoader) and (name == "__all__" or not name.startswith("__")):
            if not loader.has_run and name in loader.manners.answers:
                return loader.manners.answers[name]
            loader.run(self)
            there = sys.modules[self.__name__]  # which may be what the package has replaced itself with
            if there is not self:
                return getattr(there, name)
        return super().__getattribute__(name)


class _LateLoader(Loader):
    """Makes a package, and runs it when it is told to, once."""

    def __init__(self, stock: Loader, manners: Manners):
        self._stock, self.manners, self.has_run = stock, manners, False

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Make the package."""
        return _Late(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Leave it at that."""

    def run(self, module: ModuleType) -> None:
        """Run it, unless it has."""
        if not self.has_run:
            self.has_run = True
            self._stock.exec_module(module)


class _Loaded(Loader):
    """Loads a module that was imported while it was looked for."""

    def __init__(self, module: ModuleType):
        self._module, self._spec = module, module.__spec__

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Return it."""
        return self._module

    def exec_module(self, module: ModuleType) -> None:
        """Leave it as it was."""
        module.__spec__ = self._spec


class _Finder(MetaPathFinder):
    """Finds packages that run late, and their submodules before which they have to."""

    def __init__(self, packages: Mapping[str, Manners]):
        self._packages = packages

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find one of them; None where that is left to others."""
        if manners := self._packages.get(fullname):
            spec = PathFinder.find_spec(fullname, path, target)
            if spec and spec.loader:
                spec.loader = _LateLoader(spec.loader, manners)
            return spec
        above, _, name = fullname.rpartition(".")
        package = sys.modules.get(above)
        loader = getattr(package and package.__spec__, "loader", None)
        if package is None or not isinstance(loader, _LateLoader) or loader.has_run:
            return None
        if loader.manners.alone is None or name in loader.manners.alone:
            return None
        loader.run(package)
        there = sys.modules.get(fullname)
        spec = copy(there.__spec__) if there else None
        if there and spec:
            spec.loader = _Loaded(there)
            there.__spec__ = spec  # which the import system takes, where a module has appeared meanwhile
        return spec
