import pytest

from infra.adapters.reproduction import differences
from peft_studio.lineage import Lineage


@pytest.mark.parametrize("name", ["no-such-package", "", "\x00"])
def test_what_is_not_installed_here_is_a_difference_whatever_it_is_called(name: str) -> None:
    lineage = Lineage.model_construct(versions={name: "1.0"})
    [(found, difference)] = differences(lineage).items()
    assert (found, difference.then, difference.now) == (name, "1.0", None)
