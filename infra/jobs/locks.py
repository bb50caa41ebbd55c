"""Two changes of one job come one after the other, within this process: each decides by the state it finds."""

import asyncio
from weakref import WeakValueDictionary

_locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()


def changing(job_id: str) -> asyncio.Lock:
    """Return the lock that whoever changes the job holds."""
    return _locks.setdefault(job_id, asyncio.Lock())
