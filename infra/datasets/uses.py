"""
A data set is not deleted while a job is being submitted that uses it, and no job is submitted while it is deleted.

Within this process. A job that is there already is found among the jobs.
"""

from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager

from peft_studio.errors import Conflict

_used: Counter[str] = Counter()
_going: set[str] = set()


@contextmanager
def using(dataset: str) -> Generator[None]:
    """Have a data set stay, by its id or path, for as long as the block lasts; raises ``Conflict`` where it goes."""
    if dataset in _going:
        raise Conflict("The data set is being deleted.", field="dataset_path")
    _used[dataset] += 1
    try:
        yield
    finally:
        _used[dataset] -= 1
        if not _used[dataset]:
            del _used[dataset]


@contextmanager
def deleting(dataset_id: str, path: str) -> Generator[None]:
    """Have nobody begin to use a data set in this block; raises ``Conflict`` where somebody has, or deletes it, too."""
    names = {dataset_id, path}
    if names & _going:
        raise Conflict("The data set is being deleted already.", dataset_id=dataset_id)
    if names & _used.keys():
        raise Conflict("A job that uses this data set is being submitted.", dataset_id=dataset_id)
    _going.update(names)
    try:
        yield
    finally:
        _going.difference_update(names)
