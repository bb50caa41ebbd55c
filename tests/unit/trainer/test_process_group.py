import pytest

from peft_studio.trainer.process_group import ProcessGroup
from peft_studio.trainer.stop import Stopped, StopSignal


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_every_batch_is_somebodys_and_nobody_elses(size: int) -> None:
    batches = list(range(7))
    shares = [ProcessGroup(rank, size).share(batches) for rank in range(size)]
    assert sorted(batch for share in shares for batch in share) == batches


@pytest.mark.parametrize(
    ("rows", "wanted", "size", "expected"), [(4, 4, 2, 2), (5, 4, 2, 3), (16, 4, 2, 4), (1, 4, 2, 1), (4, 4, 1, 4)]
)
def test_batches_become_smaller_where_there_would_be_none_for_some(
    rows: int, wanted: int, size: int, expected: int
) -> None:
    assert ProcessGroup(0, size).batch_size(wanted, rows) == expected


def test_one_alone_stops_anywhere_and_a_member_only_where_all_meet() -> None:
    stop = StopSignal()
    stop.set("enough")
    with pytest.raises(Stopped, match="enough"):
        ProcessGroup().check(stop)
    ProcessGroup().agree(stop)  # looks elsewhere
    assert ProcessGroup().between(stop) is stop
    assert not ProcessGroup(0, 2).between(stop).requested
