"""Room on the disk: refused before it runs out, and said plainly when it does."""

import errno
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from peft_studio.errors import ResourceUnavailable


def require_space(folder: Path, needed: int, reserve: int) -> None:
    """Raise ``ResourceUnavailable`` where ``needed`` bytes more would leave less than ``reserve`` free."""
    existing = next(place for place in (folder, *folder.parents) if place.exists())
    free = shutil.disk_usage(existing).free
    if free - needed < reserve:
        raise ResourceUnavailable(
            f"The studio's disk has {max(0, free - reserve)} bytes to spare, this needs {needed}; "
            "delete data sets or adapters that are no longer used, or give the studio a larger disk.",
            needed_bytes=needed,
            spare_bytes=max(0, free - reserve),
        )


@contextmanager
def full_disk_told() -> Generator[None]:
    """Turn the operating system's error of a full disk into ``ResourceUnavailable``."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise ResourceUnavailable(
            "The studio's disk is full; delete data sets or adapters that are no longer used, then try again."
        ) from error
