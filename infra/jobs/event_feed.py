"""
The events of jobs as they are written: each job's file is read once for all who follow it.

A feed looks at the end of a file and keeps the newest events. Followers take them from there; what is older than that,
each reads by itself until it has caught up, so that a slow one holds up nobody and nothing piles up for it.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from pydantic import ValidationError

from peft_studio.events import Event, parse_event
from peft_studio.run_dir import RunDir

_LOOK_SECONDS = 0.05  # how often the end of a file is looked at, however many follow
_KEPT_EVENTS = 4096
_KEPT_BYTES = 4 << 20
_BATCH_BYTES = 1 << 18
_BATCH_EVENTS = 256


@dataclass(frozen=True)
class Place:
    """A place between two lines of a file: how many come before it, and how many bytes."""

    seq: int = 0
    offset: int = 0


@dataclass(frozen=True)
class Line:
    """A line and the place behind it; ``event`` is None for a killed writer's torn one, which keeps its number."""

    end: Place
    event: Event | None


class EventFeed:
    """The newest lines of one file."""

    def __init__(self, path: Path):
        self.path = path
        self.followers = 0
        self._recent: deque[Line] = deque()
        self._start = self._end = Place()
        self._news = asyncio.Event()
        self._looking = asyncio.create_task(self._look())

    async def close(self) -> None:
        """Look no longer."""
        self._looking.cancel()
        await asyncio.gather(self._looking, return_exceptions=True)

    async def place_of(self, seq: int) -> Place:
        """Return the place behind line ``seq``, or at the end where there are not so many lines."""
        if seq == 0:
            return Place()
        if self._start.seq < seq <= self._end.seq:
            return self._recent[seq - self._start.seq - 1].end
        return await asyncio.to_thread(find, self.path, seq)

    async def lines_from(self, place: Place, wait: float) -> list[Line]:
        """Return some lines behind a place, maybe not all; where there are none, wait a while for them."""
        if place.seq >= self._end.seq:
            news = self._news
            with suppress(TimeoutError):
                await asyncio.wait_for(news.wait(), wait)
        if self._looking.done():
            self._looking.result()  # the file cannot be read
        if place.seq < self._start.seq:
            return await asyncio.to_thread(read_lines, self.path, place)
        skipped = place.seq - self._start.seq
        return list(islice(self._recent, skipped, skipped + _BATCH_EVENTS))

    async def _look(self) -> None:
        """Begin at the end of what is there, then read what comes."""
        self._start = self._end = await asyncio.to_thread(find, self.path)
        while True:
            if lines := await asyncio.to_thread(read_lines, self.path, self._end):
                self._recent.extend(lines)
                self._end = lines[-1].end
                self._forget()
                self._news.set()
                self._news = asyncio.Event()
            else:
                await asyncio.sleep(_LOOK_SECONDS)

    def _forget(self) -> None:
        while len(self._recent) > _KEPT_EVENTS or self._end.offset - self._start.offset > _KEPT_BYTES:
            self._start = self._recent.popleft().end


class Follower:
    """Someone who reads a feed's events, each once, from a sequence number on."""

    def __init__(self, feed: EventFeed, place: Place, after: int):
        self._feed = feed
        self._place = place
        self._after = after

    @property
    def seq(self) -> int:
        """The sequence number of the last event that was read, or after which reading began."""
        return max(self._place.seq, self._after)

    async def read(self, wait: float) -> list[tuple[int, Event]]:
        """Return the next events, not more than a batch; where there are none, wait a while for them."""
        return self._take(await self._feed.lines_from(self._place, wait))

    async def read_rest(self) -> AsyncGenerator[tuple[int, Event]]:
        """Yield what is in the file at this moment and was not read yet."""
        while lines := await asyncio.to_thread(read_lines, self._feed.path, self._place):
            for found in self._take(lines):
                yield found

    def _take(self, lines: list[Line]) -> list[tuple[int, Event]]:
        if lines:
            self._place = lines[-1].end
        return [(line.end.seq, line.event) for line in lines if line.event and line.end.seq > self._after]


class EventFeeds:
    """The feeds of a process: one for each job that somebody follows."""

    def __init__(self) -> None:
        self._feeds: dict[Path, EventFeed] = {}

    @asynccontextmanager
    async def following(self, run: RunDir, after: int = 0) -> AsyncGenerator[Follower]:
        """Follow a job's events behind a sequence number, for as long as the block lasts."""
        path = run.events_path
        if path not in self._feeds:
            self._feeds[path] = EventFeed(path)
        feed = self._feeds[path]
        feed.followers += 1
        try:
            yield Follower(feed, await feed.place_of(after), after)
        finally:
            feed.followers -= 1
            if not feed.followers:
                del self._feeds[path]
                await feed.close()


def find(path: Path, seq: int | None = None, at_a_time: int = _BATCH_BYTES) -> Place:
    """Return the place behind line ``seq``, or behind the last whole line where there are not so many."""
    place = Place()
    try:
        with path.open("rb") as file:
            while block := file.read(at_a_time):
                lines = block.count(b"\n")
                if seq is not None and place.seq + lines >= seq:
                    start = file.tell() - len(block)
                    return Place(seq, start + _behind(block, seq - place.seq)) if seq > place.seq else place
                if lines:
                    place = Place(place.seq + lines, file.tell() - len(block) + block.rfind(b"\n") + 1)
    except FileNotFoundError:
        pass
    return place


def read_lines(path: Path, place: Place, most: int = _BATCH_BYTES) -> list[Line]:
    """Return the whole lines behind a place, about ``most`` bytes of them; none where the file is not there yet."""
    try:
        with path.open("rb") as file:
            file.seek(place.offset)
            data = file.read(most)
            while len(data) >= most and b"\n" not in data[-most:]:  # a line that is longer than that
                if not (more := file.read(most)):
                    break
                data += more
    except FileNotFoundError:
        return []
    lines: list[Line] = []
    for text in data.split(b"\n")[:-1]:
        place = Place(place.seq + 1, place.offset + len(text) + 1)
        lines.append(Line(place, _event(text)))
    return lines


def _event(text: bytes) -> Event | None:
    try:
        return parse_event(text)
    except ValidationError:
        return None


def _behind(block: bytes, count: int) -> int:
    """Return the offset behind the ``count``-th newline of a block."""
    offset = 0
    for _ in range(count):
        offset = block.index(b"\n", offset) + 1
    return offset
