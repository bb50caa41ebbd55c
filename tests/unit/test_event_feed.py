import asyncio
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from infra.jobs import event_feed
from infra.jobs.event_feed import EventFeeds, Follower, Place, find, read_lines
from peft_studio.events import Log, Metrics
from peft_studio.run_dir import EventReader, RunDir

pytestmark = pytest.mark.anyio
SECONDS = 20.0


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir(tmp_path / "job_1")


def say(run: RunDir, *steps: int, width: int = 0) -> None:
    for step in steps:
        run.append(Metrics(job_id="job_1", metrics={"step": step}))
        if width:
            run.append(Log(job_id="job_1", message="x" * width))


async def read(follower: Follower, count: int, pause: float = 0.0) -> list[int]:
    """Read so many events; return their sequence numbers."""
    seen: list[int] = []
    async with asyncio.timeout(SECONDS):
        while len(seen) < count:
            seen += [seq for seq, _ in await follower.read(wait=1)]
            await asyncio.sleep(pause)
    return seen


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(SECONDS):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("after", [0, 1, 4, 5, 6, 12])
async def test_what_is_there_comes_first_then_what_is_written(run: RunDir, after: int) -> None:
    say(run, *range(1, 6))
    async with EventFeeds().following(run, after) as follower:
        reading = asyncio.create_task(read(follower, 20 - after))
        await asyncio.to_thread(say, run, *range(6, 21))
        assert await reading == list(range(after + 1, 21))
        assert follower.seq == 20


async def test_a_file_that_is_not_there_yet_is_waited_for(run: RunDir) -> None:
    async with EventFeeds().following(run) as follower:
        assert await follower.read(wait=0.01) == []
        say(run, 1)
        assert await read(follower, 1) == [1]


async def test_many_followers_get_every_event_once_while_several_write(run: RunDir) -> None:
    feeds, count = EventFeeds(), 3000
    writers = [threading.Thread(target=say, args=(run, *range(count // 3))) for _ in range(3)]

    async def follow(after: int, pause: float) -> list[int]:
        async with feeds.following(run, after) as follower:
            return await read(follower, count - after, pause)

    say(run, *range(100))
    count += 100
    following = [asyncio.create_task(follow(after, pause)) for after in (0, 50, 100) for pause in (0, 0.001, 0.02)]
    for writer in writers:
        writer.start()
    for number, seen in enumerate(await asyncio.gather(*following)):
        assert seen == list(range((0, 50, 100)[number // 3] + 1, count + 1))
    for writer in writers:
        writer.join()


async def test_a_slow_follower_reads_by_itself_what_the_feed_has_forgotten(run: RunDir) -> None:
    feeds, count = EventFeeds(), 3 * event_feed._KEPT_EVENTS
    async with feeds.following(run) as quick, feeds.following(run) as slow:
        writing = asyncio.create_task(asyncio.to_thread(say, run, *range(count)))
        assert await read(quick, count) == list(range(1, count + 1))
        await writing
        (feed,) = feeds._feeds.values()
        assert len(feed._recent) <= event_feed._KEPT_EVENTS
        assert await read(slow, count) == list(range(1, count + 1))


async def test_a_feed_holds_so_many_bytes_and_no_more(run: RunDir) -> None:
    feeds = EventFeeds()
    async with feeds.following(run) as follower:
        await asyncio.to_thread(say, run, *range(40), width=event_feed._BATCH_BYTES)
        (feed,) = feeds._feeds.values()
        await until(lambda: feed._end.seq == 80)
        assert feed._end.offset - feed._start.offset <= event_feed._KEPT_BYTES
        assert await read(follower, 80) == list(range(1, 81))


async def test_torn_lines_keep_their_numbers(run: RunDir) -> None:
    say(run, 1)
    with run.events_path.open("ab") as file:
        file.write(b'{"type": "metr')
    async with EventFeeds().following(run) as follower:
        assert await read(follower, 1) == [1]
        assert await follower.read(wait=0.1) == []
        say(run, 3)
        assert await read(follower, 1) == [3]
    assert [seq for seq, _ in EventReader(run).read()] == [1, 3]


async def test_the_rest_is_what_is_there_now(run: RunDir) -> None:
    say(run, 1, 2)
    async with EventFeeds().following(run, 1) as follower:
        say(run, 3)
        assert [seq async for seq, _ in follower.read_rest()] == [2, 3]
        assert [seq async for seq, _ in follower.read_rest()] == []


async def test_one_feed_serves_all_and_ends_with_the_last(run: RunDir) -> None:
    feeds = EventFeeds()
    async with feeds.following(run):
        async with feeds.following(run):
            (feed,) = feeds._feeds.values()
            assert feed.followers == 2
        assert not feed._looking.done()
    assert feeds._feeds == {}
    assert feed._looking.cancelled()


async def test_a_file_that_cannot_be_read_is_no_silence(run: RunDir) -> None:
    run.events_path.mkdir(parents=True)
    feeds = EventFeeds()
    async with feeds.following(run) as follower:
        with pytest.raises(IsADirectoryError):
            await read(follower, 1)
    assert feeds._feeds == {}


@pytest.mark.parametrize("batch", [1, 7, 64, 1 << 18])
def test_places_are_found_whatever_the_blocks(run: RunDir, batch: int) -> None:
    say(run, *range(30))
    ends = [0, *(line.end.offset for line in read_lines(run.events_path, Place()))]
    for seq, offset in enumerate(ends):
        assert find(run.events_path, seq, batch) == Place(seq, offset)
        lines = read_lines(run.events_path, Place(seq, offset), batch)
        assert bool(lines) == (seq < 30)
        assert [line.end for line in lines] == [Place(n, ends[n]) for n in range(seq + 1, seq + 1 + len(lines))]
    assert find(run.events_path, None, batch) == find(run.events_path, 1000, batch) == Place(30, ends[-1])
