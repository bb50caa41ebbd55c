"""What is sent to a registry: an adapter's files, its card, and a manifest by which a version is known and whole."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from infra.adapters.lineages import read_lineage
from infra.registries.model_card import model_card
from peft_studio.adapter_files import WEIGHTS
from peft_studio.adapter_folder import files_of
from peft_studio.adapters import Adapter
from peft_studio.lineage import FileRecord

MANIFEST, CARD = "manifest.json", "README.md"
_DIGITS = 16


class Manifest(BaseModel):
    """``manifest.json``: a version and all of its files; the last file of it that appears."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    format: Literal[1] = 1
    version: str
    adapter_id: str
    files: Mapping[str, FileRecord]


class Parcel(BaseModel):
    """One version of an adapter, ready to be sent; files that are not of the folder are in ``written``."""

    model_config = ConfigDict(frozen=True)

    folder: Path
    manifest: Manifest
    written: Mapping[str, str]

    @property
    def from_disk(self) -> dict[str, Path]:
        """The files of the folder."""
        return {name: self.folder / name for name in self.manifest.files if name not in self.written}

    @property
    def size_bytes(self) -> int:
        """What all files have together."""
        return sum(record.size_bytes for record in self.manifest.files.values())

    @property
    def last(self) -> bytes:
        """The manifest's own content."""
        return self.manifest.model_dump_json(indent=2).encode()


class Pushed(BaseModel):
    """A version that is in a registry, whole."""

    version: str
    revision: str
    url: str


def pack(adapter: Adapter, weights_sha256: str | None = None) -> Parcel:
    """
    Make a parcel of an adapter; the same files make the same version, so that sending it again changes nothing.

    What the store hashed when it took the files in (``weights_sha256`` of an uploaded adapter, the lineage of a trained
    one) is not read again: whoever sends the files hashes them as they go.
    """
    folder = Path(adapter.path).parent
    lineage = read_lineage(folder)
    known: dict[str, str] = {name: record.sha256 for name, record in lineage.files.items()} if lineage else {}
    if weights_sha256:
        known[WEIGHTS] = weights_sha256
    written = {CARD: model_card(adapter, lineage)}
    files = {
        name: FileRecord(size_bytes=path.stat().st_size, sha256=known.get(name) or _hash(path))
        for name, path in files_of(folder).items()
        if name not in (CARD, MANIFEST)
    }
    for name, text in written.items():
        content = text.encode()
        files[name] = FileRecord(size_bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
    manifest = Manifest(version=version_of(files), adapter_id=adapter.id, files=dict(sorted(files.items())))
    return Parcel(folder=folder, manifest=manifest, written=written)


def version_of(files: Mapping[str, FileRecord]) -> str:
    """Name a version by its content."""
    content = json.dumps({name: record.sha256 for name, record in files.items()}, sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:_DIGITS]


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
