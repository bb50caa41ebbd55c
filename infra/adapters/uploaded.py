"""
Adapters that users bring: received beside the store, checked, and put into it whole by one rename.

An uploaded adapter is a folder that stock PEFT loads, named as the adapter's id, with the studio's record in it.
"""

import json
import os
import shutil
import time
from contextlib import suppress
from pathlib import Path
from uuid import NAMESPACE_URL, uuid4, uuid5

from pydantic import BaseModel, ConfigDict, ValidationError

from infra.disk_space import require_space
from infra.settings import Settings
from peft_studio.adapter_config import CONFIG, Parameters, parameters_of, read_config, written_config
from peft_studio.adapter_files import WEIGHTS, Layers, check_against_model, read_layers, refuse_file
from peft_studio.adapter_folder import RECORD
from peft_studio.adapters import Adapter, AdapterMetadata, UploadMetadata
from peft_studio.base_models import exists_here, inspect_model, is_hub_id
from peft_studio.config import ModelSource
from peft_studio.errors import Conflict
from peft_studio.events import now
from peft_studio.model_files import folder_shapes
from peft_studio.run_dir import make_durable, replace_file

PREFIX = "adapter_"
_RECEIVING = ".upload-"
_ABANDONED_SECONDS = 3600.0  # an upload that goes on writes to its files all the time


class UploadRecord(BaseModel):
    """What is known of an uploaded adapter."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    adapter: Adapter
    sha256: str
    sent: UploadMetadata


class UploadedAdapters:
    """The uploaded adapters of the store. All of it may take a while: call it in a thread."""

    def __init__(self, settings: Settings):
        self._home = settings.adapters
        self._reserve = settings.disk_reserve_bytes
        self._known: dict[str, tuple[int, UploadRecord]] = {}

    def begin(self, size: int | None = None) -> Path:
        """Make a folder to receive an upload in; raises ``ResourceUnavailable`` where the disk has no room for it."""
        self._home.mkdir(parents=True, exist_ok=True)
        self.sweep()
        require_space(self._home, size or 0, self._reserve)
        folder = self._home / f"{_RECEIVING}{uuid4().hex}"
        folder.mkdir()
        return folder

    def end(self, folder: Path) -> None:
        """Drop what is left of an upload."""
        shutil.rmtree(folder, ignore_errors=True)

    def accept(
        self, metadata: UploadMetadata, weights: Path, sha256: str, config: bytes | None, key: str | None = None
    ) -> Adapter:
        """
        Check received weights and put them into the store; raises ``InvalidConfig`` with the field that is wrong.

        With a ``key``, the same upload again is the same adapter, and another one is refused.
        """
        layers = read_layers(weights)
        sent = read_config(config) if config is not None else None
        parameters = parameters_of(layers, metadata, sent)
        base, revision = _base_of(metadata, layers, sent.revision if sent else None)
        folder = weights.parent / "adapter"
        folder.mkdir()
        os.rename(weights, folder / WEIGHTS)
        written = written_config(layers, parameters, sent, base, revision)
        replace_file(folder / CONFIG, json.dumps(written, indent=2).encode())
        adapter_id = PREFIX + (uuid5(NAMESPACE_URL, f"peft-studio:adapter:{key}").hex if key else uuid4().hex)
        size = (folder / WEIGHTS).stat().st_size
        adapter = _shown(adapter_id, metadata, parameters, layers, self._home / adapter_id / WEIGHTS, size)
        record = UploadRecord(adapter=adapter, sha256=sha256, sent=metadata)
        replace_file(folder / RECORD, record.model_dump_json(indent=2).encode())
        return self._place(folder, record).adapter

    def get(self, adapter_id: str) -> UploadRecord | None:
        """Return one; None where there is none of this id."""
        digits = adapter_id.removeprefix(PREFIX)
        if digits == adapter_id or len(digits) != 32 or not digits.isalnum() or not digits.isascii():
            return None  # nothing else may ever be read by way of an id
        return self._read(self._home / adapter_id)

    def weights_hash(self, adapter_id: str) -> str | None:
        """Return the SHA-256 of an uploaded adapter's weights; None where there is none of this id."""
        record = self.get(adapter_id)
        return record.sha256 if record else None

    def all(self) -> list[UploadRecord]:
        """Return all, the newest first."""
        found = [record for folder in self._home.glob(f"{PREFIX}*") if (record := self._read(folder))]
        return sorted(found, key=lambda record: (record.adapter.created_at, record.adapter.id), reverse=True)

    def sweep(self) -> None:
        """Drop uploads that a killed process was receiving."""
        for folder in self._home.glob(f"{_RECEIVING}*"):
            with suppress(FileNotFoundError):
                newest = max(path.stat().st_mtime for path in (folder, *folder.iterdir()))
                if newest < time.time() - _ABANDONED_SECONDS:
                    shutil.rmtree(folder, ignore_errors=True)

    def _place(self, folder: Path, record: UploadRecord) -> UploadRecord:
        for path in (*folder.iterdir(), folder):
            make_durable(path)
        target = self._home / record.adapter.id
        try:
            os.rename(folder, target)
        except OSError:
            # A folder that is not empty is never replaced: of two uploads with one key, one is first.
            if (first := self.get(record.adapter.id)) is None:
                raise
            if (first.sha256, first.sent) != (record.sha256, record.sent):
                raise Conflict(
                    "This Idempotency-Key was used before, with another adapter.", field="Idempotency-Key"
                ) from None
            return first
        make_durable(self._home)
        return record

    def _read(self, folder: Path) -> UploadRecord | None:
        try:
            changed = (folder / RECORD).stat().st_mtime_ns
            if (known := self._known.get(folder.name)) and known[0] == changed:
                return known[1]
            record = UploadRecord.model_validate_json((folder / RECORD).read_bytes())
        except (OSError, ValidationError):
            self._known.pop(folder.name, None)
            return None
        # Where it lies is known best by where it was found: the data directory may have moved.
        adapter = record.adapter.model_copy(update={"path": str(folder / WEIGHTS)})
        record = record.model_copy(update={"adapter": adapter})
        self._known[folder.name] = changed, record
        return record


def _base_of(metadata: UploadMetadata, layers: Layers, revision: str | None) -> tuple[str, str | None]:
    """Return the base model's folder or hub id, and its revision there; a folder must have what is adapted."""
    name = metadata.base_model
    if exists_here(name):
        facts = inspect_model(name, ModelSource.LOCAL, metadata.model_revision)
        check_against_model(layers, folder_shapes(name, Path(str(facts.path))), name)
        return str(facts.path), None
    if not is_hub_id(name):
        raise refuse_file(f"there is no folder {name!r} on the machine that runs the studio", "base_model")
    return name, metadata.model_revision or revision


def _shown(
    adapter_id: str, metadata: UploadMetadata, parameters: Parameters, layers: Layers, path: Path, size: int
) -> Adapter:
    modules = metadata.target_modules or {name.rpartition(".")[2] for name in layers}
    return Adapter(
        id=adapter_id,
        job_id=metadata.job_id,
        name=metadata.name or f"{Path(metadata.base_model).name}-{parameters.algorithm}",
        base_model=metadata.base_model,
        algorithm=parameters.algorithm,
        path=str(path),
        size_bytes=size,
        created_at=now(),
        metadata=AdapterMetadata(rank=parameters.rank, alpha=parameters.alpha, target_modules=sorted(modules)),
    )
