"""Where data sets come from: files, an object store, a hub; and the error that says what is wrong with one."""

import os
import re
import shutil
import stat
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import fsspec

from peft_studio.errors import InvalidConfig, ResourceUnavailable

Row = dict[str, Any]

# All that any layout looks at: other columns of a columnar file are not even read.
COLUMNS = (
    *("messages", "conversations", "prompt", "completion", "instruction", "input", "output", "text", "tools"),
    *("chosen", "rejected", "label", "tokens", "tags", "ner_tags", "anchor", "positive", "negative"),
)
HUB_SECONDS = 10
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?", re.ASCII)
_FILE_SUFFIX = re.compile(r"\.[A-Za-z][A-Za-z0-9]{0,7}")


def refuse(issue: str, row: int | None = None) -> InvalidConfig:
    """Return the error that says what is wrong with the data set, and in which row."""
    if row is None:
        return InvalidConfig.of("dataset_path", issue)
    issue = f"row {row} {issue}"
    return InvalidConfig.of("dataset_path", issue, row=row)


def is_hub_id(path: str) -> bool:
    """Whether the path names a data set on a hub: nothing is there on disk, and it does not look like a file."""
    return bool(_HUB_ID.fullmatch(path)) and not _FILE_SUFFIX.fullmatch(Path(path).suffix) and not Path(path).exists()


def open_file(path: str) -> BinaryIO:
    """
    Open a file or an ``s3://`` object for reading, with seeking.

    An object is first copied into a temporary file without a name: Parquet needs to seek, and inspection reads twice.
    """
    if path.startswith("s3://"):
        return _fetch(path)
    if "://" in path:
        raise refuse("only local paths, s3:// addresses and hub data set ids can be read")
    try:
        status = Path(path).stat()
        if stat.S_ISDIR(status.st_mode):
            raise refuse(f"{path!r} is a directory; name one file in it")
        if not stat.S_ISREG(status.st_mode):
            raise refuse(f"{path!r} is not a regular file")
        return Path(path).open("rb")
    except FileNotFoundError:
        raise refuse(f"there is no file {path!r} on the machine that runs the studio") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a path"
        raise refuse(f"{path[:200]!r} cannot be opened: {reason}") from None


def _fetch(path: str) -> BinaryIO:
    copy = cast(BinaryIO, tempfile.TemporaryFile())  # noqa: SIM115 - the caller closes it
    try:
        # Not fsspec.open: it would follow chained addresses ("s3://a::file:///b") out of the object store.
        with fsspec.filesystem("s3").open(path, "rb") as remote:
            shutil.copyfileobj(remote, copy, 1 << 20)
    except FileNotFoundError:
        copy.close()
        raise refuse(f"there is no object {path!r}") from None
    except PermissionError:
        copy.close()
        raise refuse(f"the studio's S3 credentials do not allow reading {path!r}") from None
    except Exception as error:
        copy.close()
        raise ResourceUnavailable(
            f"dataset_path: {path!r} could not be fetched ({type(error).__name__}); try again", field="dataset_path"
        ) from error
    copy.seek(0)
    return copy


def hub_rows(path: str, wanted: Collection[str]) -> Iterator[object]:
    """Read the train split of a data set on a hub, kept in the hub's local cache."""
    import datasets

    name, commit = _look_up(path)
    datasets.disable_progress_bars()
    try:
        table: Any = datasets.load_dataset(name, split="train", revision=commit)
    except (ConnectionError, TimeoutError) as error:
        raise _hub_down(path) from error
    except Exception as error:
        raise refuse(f"no 'train' split of the hub data set {path!r} can be read ({type(error).__name__})") from error
    names = [name for name in table.column_names if name in wanted]
    yield from table.select_columns(names) if names else table


def _look_up(path: str) -> tuple[str, str | None]:
    """
    Find a data set on the hub: its full name, and its commit unless only the cache could be asked.

    Always a name with an owner: ``load_dataset`` takes a bare "json" for a loader, and reads the working directory.
    """
    import httpx2
    from datasets import config
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

    try:
        found = HfApi(endpoint=os.environ.get("HF_ENDPOINT")).dataset_info(path, timeout=HUB_SECONDS)
    except RepositoryNotFoundError:
        raise refuse(
            f"there is no file {path!r} here and no data set of that name on the hub that this studio may read; "
            "private and gated ones need HF_TOKEN"
        ) from None
    except (HfHubHTTPError, httpx2.HTTPError, ConnectionError) as error:
        if "/" in path and Path(config.HF_DATASETS_CACHE, path.replace("/", "___")).is_dir():
            return path, None
        raise _hub_down(path) from error
    if "/" not in found.id:
        raise refuse(f"the hub knows no owner of {path!r}; give the id as owner/name")
    return found.id, found.sha


def _hub_down(path: str) -> ResourceUnavailable:
    return ResourceUnavailable(
        f"dataset_path: there is no file {path!r} here, and the hub cannot be reached to look for it there; "
        "try again later, or give a file",
        field="dataset_path",
    )
