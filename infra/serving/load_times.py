"""How long models took to be loaded on this machine, and how long the next one will likely take."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

from pydantic import BaseModel, ConfigDict, ValidationError

from peft_studio.run_dir import replace_file

_FILE = "load_times.json"
_REMEMBERED = 100
_SAMPLE_BYTES = 64 << 20
# From a request to a small model's answering, without its weights: the worker's look at the records, the process, the
# imports. Measured on two cores, with the warm server; it counts only until something was loaded on this machine.
_START_SECONDS = 4.0


class Loaded(BaseModel):
    """A base model that was loaded: how large its weights are, where that is known, and how long it took."""

    model_config = ConfigDict(frozen=True)

    base_model: str
    size_bytes: int | None
    seconds: float


class _Remembered(BaseModel):
    loads: list[Loaded] = []


class LoadTimes:
    """What was measured, in a file of the data directory: the worker writes it, the API reads it."""

    def __init__(self, data_dir: Path, clock: Callable[[], float] = time.perf_counter):
        self._path = data_dir / _FILE
        self._clock = clock

    def note(self, base_model: str, seconds: float) -> None:
        """Remember how long a base model took from the start of its process to its first answer."""
        known = [*self._read(), Loaded(base_model=base_model, size_bytes=size_of(base_model), seconds=seconds)]
        self._path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(self._path, _Remembered(loads=known[-_REMEMBERED:]).model_dump_json().encode())

    def estimate(self, base_model: str) -> float | None:
        """
        Return the seconds that loading will likely take; None where nothing is known of the model.

        The median of what this very model took here, or else what the one nearest in size took, scaled where this one
        is larger, or else, as long as nothing was loaded here, the time that reading its weights takes.
        """
        known = self._read()
        if same := [load.seconds for load in known if load.base_model == base_model]:
            return median(same)
        if (size := size_of(base_model)) is None:
            return None
        return _by_size(size, known) or _START_SECONDS + size * self._seconds_per_byte(base_model)

    def _seconds_per_byte(self, base_model: str) -> float:
        """Read the beginning of the weights, as loading them will, and see how long it takes."""
        largest = max(Path(base_model).glob("*.safetensors"), key=lambda path: path.stat().st_size)
        began = self._clock()
        with largest.open("rb") as file:
            read = len(file.read(_SAMPLE_BYTES))
        return (self._clock() - began) / max(1, read)

    def _read(self) -> list[Loaded]:
        try:
            return _Remembered.model_validate_json(self._path.read_bytes()).loads
        except (FileNotFoundError, ValidationError):
            return []  # only ever an estimate is lost


def size_of(base_model: str) -> int | None:
    """Return the bytes of a model's weights, where they lie in a folder here."""
    try:
        return sum(path.stat().st_size for path in Path(base_model).glob("*.safetensors")) or None
    except OSError:
        return None


def _by_size(size: int, known: Sequence[Loaded]) -> float | None:
    sized = [(load.size_bytes, load.seconds) for load in known if load.size_bytes]
    if not sized:
        return None
    nearest, seconds = min(sized, key=lambda load: abs(load[0] - size))
    return seconds * max(1.0, size / nearest)
