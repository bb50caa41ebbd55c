"""What is to go wrong at a simulated vendor, as it is written and as it comes."""

import pytest

from infra.simulators.faults import Fault, FaultKind, Faults


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("no_capacity", Fault(kind=FaultKind.NO_CAPACITY)),
        ("no_capacity:2", Fault(kind=FaultKind.NO_CAPACITY, times=2)),
        ("preempted:40", Fault(kind=FaultKind.PREEMPTED, value=40)),
        ("price_drift:1.5:3", Fault(kind=FaultKind.PRICE_DRIFT, value=1.5, times=3)),
    ],
)
def test_a_fault_is_read_from_its_words(text: str, expected: Fault) -> None:
    assert Fault.parse(text) == expected


@pytest.mark.parametrize("text", ["", "bogus", "no_capacity:1:2", "preempted:1:2:3", "preempted:soon", "no_capacity:0"])
def test_words_that_are_no_fault_are_refused(text: str) -> None:
    with pytest.raises(ValueError):
        Fault.parse(text)


def test_a_fault_comes_as_often_as_it_was_told_to_and_a_key_stays_revoked() -> None:
    faults = Faults(Fault(kind=FaultKind.NO_CAPACITY, times=2), Fault(kind=FaultKind.REVOKED_KEY))
    assert faults.to_come(FaultKind.NO_CAPACITY) == 2
    assert [faults.take(FaultKind.NO_CAPACITY) is not None for _ in range(3)] == [True, True, False]
    assert faults.to_come(FaultKind.NO_CAPACITY) == 0
    assert all(faults.take(FaultKind.REVOKED_KEY) for _ in range(3))


def test_what_goes_wrong_at_one_vendor_still_comes_at_the_next() -> None:
    fault = Fault(kind=FaultKind.PREEMPTED, value=11)
    for _ in range(2):
        faults = Faults()
        faults.add(fault)
        assert [faults.take(FaultKind.PREEMPTED) is not None for _ in range(2)] == [True, False]
        faults = Faults(fault)
        assert [faults.take(FaultKind.PREEMPTED) is not None for _ in range(2)] == [True, False]
    assert fault.times == 1
