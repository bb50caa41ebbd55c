"""One export, from an adapter's files to those that others load: made and checked in a folder of its own."""

from pathlib import Path

import torch

from peft_studio.errors import InvalidConfig
from peft_studio.export_rules import is_plain_lora
from peft_studio.exporter.gguf_file import write_gguf
from peft_studio.exporter.low_rank import write_plain_lora
from peft_studio.exporter.merge import Say, Source, load_tokenizer, merge, save_merged
from peft_studio.exporter.modelfile import OllamaModel, ollama_model
from peft_studio.exporter.verify import verify_gguf, verify_merged
from peft_studio.exports import ExportedFile, ExportFormat, ExportResult, ExportTask, GgufType

_UNVERIFIED = "llama.cpp did not load the file: its binding is not installed here (pip install 'peft-studio[gguf]')."


def make(wanted: ExportTask, folder: Path, say: Say) -> ExportResult:
    """
    Make an export's files in an empty folder, and say what came of it; of the files, those that were hashed on the way.

    Raises ``InvalidConfig`` for an adapter that cannot be exported so, ``ExportFailed`` where whoever is to load the
    files cannot, or gives something else than the adapter.
    """
    source = source_of(wanted)
    if not source.adapter.is_dir():
        raise InvalidConfig("The adapter is gone.", field="adapter_id", issue="It was deleted meanwhile")
    match wanted.config.format:
        case ExportFormat.MERGED:
            return _merged(wanted, source, folder, say)
        case ExportFormat.GGUF:
            return _gguf(wanted, source, folder, say, None)
        case ExportFormat.OLLAMA:
            return _gguf(wanted, source, folder, say, talks_of(wanted))
        case ExportFormat.LORA:
            return _lora(wanted, source, folder, say)


def source_of(wanted: ExportTask) -> Source:
    """Return where the adapter and its base model are."""
    return Source(Path(wanted.adapter), wanted.base_model, wanted.revision)


def talks_of(wanted: ExportTask) -> OllamaModel:
    """Say how a model talks that is made for Ollama; raises ``InvalidConfig`` where its template is not understood."""
    return ollama_model(load_tokenizer(source_of(wanted)))


def _merged(wanted: ExportTask, source: Source, folder: Path, say: Say) -> ExportResult:
    dtype = getattr(torch, wanted.config.weights) if wanted.config.weights else None
    merged = merge(source, say, dtype)
    say("writing", 0.5)
    dtype = save_merged(merged, folder, dtype)
    say("verifying", 0.8)
    notes = [f"The weights are in {str(dtype).removeprefix('torch.')}."]
    return ExportResult(files=[], notes=notes, verification=verify_merged(merged, folder))


def _gguf(wanted: ExportTask, source: Source, folder: Path, say: Say, talks: OllamaModel | None) -> ExportResult:
    kind = wanted.config.gguf_type or GgufType.F16
    path = folder / f"{wanted.name}.gguf"
    begins, notes = (talks.begins, list(talks.notes)) if talks else (None, [])
    merged = merge(source, say)
    say("writing", 0.5)
    sha256 = write_gguf(merged, path, kind, wanted.name, begins)
    file = ExportedFile(name=path.name, size_bytes=path.stat().st_size, sha256=sha256)
    if talks:
        (folder / "Modelfile").write_text(talks.modelfile(path.name))
    say("verifying", 0.7)
    verification = verify_gguf(merged, path, kind, begins)
    return ExportResult(files=[file], verification=verification, notes=notes + ([] if verification else [_UNVERIFIED]))


def _lora(wanted: ExportTask, source: Source, folder: Path, say: Say) -> ExportResult:
    if is_plain_lora(source.adapter):
        issue = "the adapter is a plain LoRA already; download it as it is"
        raise InvalidConfig.of("format", issue)
    found = write_plain_lora(source, folder, wanted.config.rank or wanted.rank, say)
    notes = [f"A plain LoRA of rank {found.rank}, which misses {found.error:.2%} of what the adapter changes."]
    return ExportResult(files=[], approximation=found, notes=notes)
