"""Adapters: what jobs have made, and what was made elsewhere."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from peft_studio.adapters import Adapter, UploadMetadata
from peft_studio.answers import AdapterList, AdapterPublishing, AdapterUploaded, Deleted
from peft_studio.client.bodies import Progress, form
from peft_studio.client.calls import Call, model, operation, path
from peft_studio.client.saving import TRANSFER_SECONDS, download_of
from peft_studio.registries import HuggingFaceRegistry, S3Registry

Registry = HuggingFaceRegistry | S3Registry


class AdapterOperations:
    """List, upload, download and delete adapters."""

    @operation
    def upload_adapter(
        self,
        file: str | Path,
        metadata: UploadMetadata | dict[str, Any],
        *,
        config: str | Path | None = None,
        progress: Progress | None = None,
        idempotency_key: str | None = None,
    ) -> Call[AdapterUploaded]:
        """
        Upload an adapter's weights (safetensors) with what is known of it; the studio checks one against the other.

        ``metadata`` says at least ``base_model``; ``config`` is its ``adapter_config.json``, where it has one.
        ``progress(sent, total)`` is told how far it is.
        """
        files = {"file": Path(file)} | ({"config": Path(config)} if config else {})
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
        if isinstance(metadata, UploadMetadata):
            metadata = metadata.model_dump(mode="json", exclude_unset=True)
        body = form(files, {"metadata": metadata}, progress)
        return Call(
            "POST", "/adapters/upload", model(AdapterUploaded), body=body, headers=headers, seconds=TRANSFER_SECONDS
        )

    @operation
    def get_adapter(self, adapter_id: str) -> Call[Adapter]:
        """Return an adapter: which job made it of which base model, and where it lies."""
        return Call("GET", path("adapters", adapter_id), model(Adapter))

    @operation
    def list_adapters(
        self, *, job_id: str | None = None, limit: int | None = None, cursor: str | None = None
    ) -> Call[AdapterList]:
        """Return adapters, newest first; ``cursor`` is a page's ``next_cursor``, and gives the page behind it."""
        return Call("GET", "/adapters", model(AdapterList), {"job_id": job_id, "limit": limit, "cursor": cursor})

    @operation
    def download_adapter(
        self,
        adapter_id: str,
        to: str | Path,
        *,
        file: str | None = None,
        sha256: str | None = None,
        progress: Progress | None = None,
    ) -> Call[Path]:
        """
        Save an adapter as a zip of its folder in PEFT's layout, or one ``file`` of it (``adapter_model.safetensors``).

        The file ``to`` is complete and checked, or as it was before: one file against the hash that the studio sends
        with it, or against ``sha256`` where you know it, as from a job's ``artifact.hash``.
        """
        return download_of(path("adapters", adapter_id, "download"), to, file, sha256, progress)

    @operation
    def publish_adapter(
        self, adapter_id: str, registries: Sequence[Registry | dict[str, Any]], *, idempotency_key: str | None = None
    ) -> Call[AdapterPublishing]:
        """
        Have an adapter sent to registries, such as ``{"kind": "huggingface", "repository": "me/my-adapter"}``.

        It takes a while; ``get_adapter`` tells what came of it, and asking again changes nothing.
        """
        named = [one if isinstance(one, dict) else one.model_dump(mode="json") for one in registries]
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
        where = path("adapters", adapter_id, "publish")
        return Call("POST", where, model(AdapterPublishing), json={"registries": named}, headers=headers)

    @operation
    def delete_adapter(self, adapter_id: str) -> Call[Deleted]:
        """Delete an adapter; refused while it is deployed."""
        return Call("DELETE", path("adapters", adapter_id), model(Deleted))
