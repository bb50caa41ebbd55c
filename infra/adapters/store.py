"""The adapter store on local disk: adapters that are whole or not there at all, and never anything beside them."""

import os
import shutil
from pathlib import Path
from uuid import uuid4

from infra.planning.planner import RESERVED
from infra.settings import Settings
from peft_studio.adapter_files import WEIGHTS
from peft_studio.adapter_folder import OWN
from peft_studio.config import TrainingConfig
from peft_studio.errors import Conflict, TrainingFailed
from peft_studio.hashed_file import HashedFile
from peft_studio.jobs import Artifact
from peft_studio.lineage import LINEAGE, FileRecord, Lineage

_PIECE = 1 << 20
DELETED = ".deleted."


def store(
    source: Path, job_id: str, config: TrainingConfig, settings: Settings, lineage: Lineage | None = None
) -> tuple[str, Artifact]:
    """
    Copy a finished adapter into the store, its lineage with it; return its id and its weights' record.

    Files are hashed as they are copied, so that each is read once.

    The id follows from the job's, so that doing it again replaces and never doubles. With ``output_dir`` the
    adapter goes to that folder of the data directory instead, below the job's id: two jobs never overwrite each other.
    """
    if not (source / WEIGHTS).is_file():
        raise TrainingFailed("The trained adapter is gone; submit the job again with force: true.", path=str(source))
    home = settings.data_dir / config.output_dir if config.output_dir else settings.adapters
    target = home / job_id
    temporary = home / f".{job_id}.{uuid4().hex[:8]}"
    home.mkdir(parents=True, exist_ok=True)
    try:
        files = _copied(source, temporary)
        if lineage:
            whole = lineage.model_copy(update={"files": {name: one for name, one in files.items() if name not in OWN}})
            (temporary / LINEAGE).write_text(whole.model_dump_json(indent=2))
        if target.exists():
            shutil.rmtree(target)
        os.replace(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    weights = files[WEIGHTS]
    artifact = Artifact(path=str(target / WEIGHTS), size_bytes=weights.size_bytes, hash=f"sha256:{weights.sha256}")
    return adapter_id_of(job_id), artifact


def _copied(source: Path, target: Path) -> dict[str, FileRecord]:
    """Copy a folder; return its files by their paths in it."""
    files: dict[str, FileRecord] = {}

    def copy(origin: str, copied: str) -> str:
        with Path(origin).open("rb", buffering=0) as file, Path(copied).open("wb") as out:
            hashed = HashedFile(file)
            shutil.copyfileobj(hashed, out, _PIECE)
            size, digest = file.tell(), hashed.digest()
        files[Path(origin).relative_to(source).as_posix()] = FileRecord(size_bytes=size, sha256=digest)
        return copied

    shutil.copytree(source, target, copy_function=copy)
    return files


def adapter_id_of(job_id: str) -> str:
    """Return the id of the adapter that a job makes."""
    return "adapter_" + job_id.removeprefix("job_")


def set_aside(adapter: Path, settings: Settings) -> Path:
    """
    Take an adapter out of the store, in one step, and return where it is until it is deleted.

    Raises ``Conflict`` for a folder that is not the store's, whatever a record says: nothing else is ever deleted.
    """
    folder, home = adapter.resolve(), settings.data_dir.resolve()
    is_named_as_adapters_are = folder.name.startswith(("job_", "adapter_"))
    if not (is_named_as_adapters_are and folder.is_relative_to(home) and folder != home):
        raise Conflict(f"The adapter lies in {str(adapter)!r}, outside the studio's store: delete it there.")
    if folder.relative_to(home).parts[0] in RESERVED:
        raise Conflict(f"The adapter lies in {str(adapter)!r}, a folder of the studio's own: it is not deleted.")
    aside = folder.with_name(f"{DELETED}{folder.name}.{uuid4().hex[:8]}")
    os.rename(folder, aside)
    return aside


def put_back(aside: Path, adapter: Path) -> None:
    """Undo ``set_aside``."""
    os.rename(aside, adapter.resolve())


def delete(aside: Path) -> None:
    """Delete what was set aside."""
    shutil.rmtree(aside, ignore_errors=True)


def sweep_deleted(settings: Settings) -> None:
    """Delete what was set aside by an API that was killed before it could delete it; for when it starts again."""
    for home in (settings.adapters, settings.exports):
        for aside in home.glob(f"{DELETED}*"):
            delete(aside)
