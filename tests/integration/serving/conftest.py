"""The tiny base model and its adapters, as the unit tests of serving make them."""

from tests.unit.serving.conftest import adapters, base_folder, stock

__all__ = ["adapters", "base_folder", "stock"]
