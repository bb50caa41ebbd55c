"""Another way for a kind of module to compute what it computes, put in its place where it is found to be the same."""

from collections.abc import Callable
from types import MethodType
from typing import Any


def replace(
    model: Any, is_kind: Callable[[Any], bool], is_same: Callable[[Any], bool], forward: Callable[..., Any]
) -> int:
    """
    Have a model's modules of a kind pass forward otherwise; return how many do.

    Whether that is the same is found out on one module of each class, and holds for all of the class.
    """
    found = [module for module in model.modules() if is_kind(module)]
    first = {type(module): module for module in reversed(found)}
    alike = {kind for kind, module in first.items() if is_same(module)}
    replaced = [module for module in found if type(module) in alike]
    for module in replaced:
        module.forward = MethodType(forward, module)
    return len(replaced)
