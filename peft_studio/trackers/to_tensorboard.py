"""
TensorBoard: event files in the data directory, written with its own library.

A file that a killed process left with half a record at its end is read up to there, as TensorBoard itself does; what
follows goes into a file of its own.
"""

import json
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]
from tensorboard.compat.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]
from tensorboard.plugins.text import metadata as text
from tensorboard.summary.writer.event_file_writer import EventFileWriter
from tensorboard.util.tensor_util import make_tensor_proto

from peft_studio.trackers.contract import Destination, Ending, Opened, Row, TrackerUnavailable


class TensorBoard:
    """One run: a folder of event files."""

    _writer: EventFileWriter

    def open(self, destination: Destination) -> Opened:
        """Begin the folder, or go on in it."""
        folder = Path(destination.folder)
        last = max(_steps(folder), default=None)
        try:
            self._writer = EventFileWriter(str(folder))
        except OSError as error:
            raise TrackerUnavailable(f"its folder cannot be written ({error.strerror})") from None
        if last is None:
            shown: dict[str, Any] = {"name": destination.name, "tags": destination.tags, **destination.config}
            self._text("configuration", shown, destination.started_at)
        return Opened(last_step=last, url=folder.as_uri(), folder=str(folder))

    def log(self, rows: Sequence[Row]) -> None:
        """Write rows; they are on the disk when this returns."""
        for row in rows:
            values = [Summary.Value(tag=name, simple_value=value) for name, value in row.metrics.items()]
            self._writer.add_event(Event(wall_time=row.time, step=row.step, summary=Summary(value=values)))
        self._writer.flush()

    def finish(self, ending: Ending) -> None:
        """Write how it ended."""
        self._text("result", {"status": ending.status.value, **ending.metrics}, ending.time)
        self._writer.close()

    def _text(self, tag: str, values: dict[str, Any], at: float) -> None:
        table = "| | |\n|---|---|\n" + "".join(f"| {name} | {json.dumps(value)} |\n" for name, value in values.items())
        value = Summary.Value(
            tag=tag,
            metadata=text.create_summary_metadata(display_name=tag, description=""),
            tensor=make_tensor_proto([table]),
        )
        self._writer.add_event(Event(wall_time=at or time.time(), step=0, summary=Summary(value=[value])))
        self._writer.flush()


def _steps(folder: Path) -> Iterable[int]:
    """Yield the steps that are there."""
    for file in sorted(folder.glob("events.out.tfevents.*")):
        for record in RawEventFileLoader(str(file)).Load():
            event = Event.FromString(record)
            if any(value.WhichOneof("value") == "simple_value" for value in event.summary.value):
                yield int(event.step)
