"""
Packages that run when something of theirs is asked for, not when they are imported, which most jobs leave it at.

transformers imports PyTorch's compiler for its decorators, which change nothing where nothing is compiled, and lists
twice what each file of its hundreds of architectures holds. PyTorch has the shapes of all operations in Python, which
tensors without memory are computed with, and those of most in C++ as well.
"""

import operator
import sys
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any, TypeVar

T = TypeVar("T")
SHAPES = "torch._meta_registrations"
INDEXING = "torch._dynamo._trace_wrapped_higher_order_op"


def _as_it_is(function: Any = None, *_: Any, **__: Any) -> Any:
    """Decorate a function, with settings or without, and change nothing."""
    return _as_it_is if function is None else function


def _nothing() -> None:
    return None


def _indexing() -> Any:
    """Make the mode that transformers computes masks in, where it computes any."""
    _run(INDEXING)
    return sys.modules[INDEXING].TransformGetItemToIndex()


@dataclass(frozen=True)
class Manners:
    """
    What works of a package that has not run, and what has to run before it.

    It has ``answers`` for some of its names, and submodules that do ``alone`` (None: all of them).
    """

    answers: Mapping[str, Callable[..., Any]] = field(default_factory=dict[str, Callable[..., Any]])
    alone: frozenset[str] | None = frozenset()
    behind: str = ""


LATE: Mapping[str, Manners] = {
    "torch._dynamo": Manners(
        {
            "allow_in_graph": _as_it_is,
            "assume_constant_result": _as_it_is,
            "disable": _as_it_is,
            "graph_break": _nothing,
        },
        alone=frozenset({INDEXING.rpartition(".")[2]}),
        behind=SHAPES,
    ),
    INDEXING: Manners({"TransformGetItemToIndex": _indexing}),
    "torch.export": Manners(behind=SHAPES),
    SHAPES: Manners(),
    # Asked by every backward pass; of numbers, for nothing makes symbols before this has run.
    "torch.fx.experimental.symbolic_shapes": Manners({"expect_true": _as_it_is, "sym_eq": operator.eq}),
    "transformers.models": Manners(alone=None),
}


def run_late(packages: Mapping[str, Manners] = LATE) -> None:
    """Have packages run late from here on; those that are loaded already stay as they are."""
    sys.meta_path.insert(0, _Finder(packages))


def with_all_shapes(build: Callable[[], T]) -> T:
    """Build what has no memory; where PyTorch knows no shape of a result, have it know all, and build it again."""
    try:
        return build()
    except NotImplementedError:
        if not _run(SHAPES):
            raise
        return build()


def _run(name: str) -> bool:
    """Have a package run now; say whether it had not."""
    module = sys.modules.get(name)
    loader = getattr(module and module.__spec__, "loader", None)
    if module is None or not isinstance(loader, _LateLoader) or loader.has_run:
        return False
    loader.run(module)
    return True


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
            _run(self.manners.behind)
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
        manners = self._packages.get(above)
        if manners is None or manners.alone is None or name in manners.alone or not _run(above):
            return None
        there = sys.modules.get(fullname)
        spec = copy(there.__spec__) if there else None
        if there and spec:
            spec.loader = _Loaded(there)
            there.__spec__ = spec  # which the import system takes, where a module has appeared meanwhile
        return spec
