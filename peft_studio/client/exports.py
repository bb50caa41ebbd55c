"""Exports: adapters made into what others load."""

from pathlib import Path
from typing import Any

from peft_studio.answers import Deleted
from peft_studio.client.bodies import Progress
from peft_studio.client.calls import Call, model, operation, path
from peft_studio.client.saving import download_of
from peft_studio.exports import Export, ExportConfig, ExportPage


class ExportOperations:
    """Export adapters, look at exports, download and delete them."""

    @operation
    def create_export(
        self, adapter_id: str, config: ExportConfig | dict[str, Any], *, idempotency_key: str | None = None
    ) -> Call[Export]:
        """Have an adapter made into what others load; ``get_export`` shows how far it is."""
        if isinstance(config, ExportConfig):
            config = config.model_dump(mode="json", exclude_unset=True)
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
        return Call("POST", path("adapters", adapter_id, "exports"), model(Export), json=config, headers=headers)

    @operation
    def get_export(self, export_id: str) -> Call[Export]:
        """Return an export as it is now: how far it is, what came of it, or why it failed."""
        return Call("GET", path("exports", export_id), model(Export))

    @operation
    def list_exports(
        self,
        *,
        adapter_id: str | None = None,
        status: str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> Call[ExportPage]:
        """Return exports, newest first; ``cursor`` is a page's ``next_cursor``, and gives the page behind it."""
        wanted = {"adapter_id": adapter_id, "status": status, "limit": limit, "cursor": cursor}
        return Call("GET", "/exports", model(ExportPage), wanted)

    @operation
    def download_export(
        self,
        export_id: str,
        to: str | Path,
        *,
        file: str | None = None,
        sha256: str | None = None,
        progress: Progress | None = None,
    ) -> Call[Path]:
        """
        Save an export as a zip of its files, or one ``file`` of it.

        The file ``to`` is complete and checked, or as it was before: one file against the hash that the studio sends
        with it, or against ``sha256`` where you know it, as from the export's ``result.files``.
        """
        return download_of(path("exports", export_id, "download"), to, file, sha256, progress)

    @operation
    def cancel_export(self, export_id: str) -> Call[Export]:
        """Stop an export; nothing half made is left of it."""
        return Call("POST", path("exports", export_id, "cancel"), model(Export))

    @operation
    def delete_export(self, export_id: str) -> Call[Deleted]:
        """Delete an export that has ended; the adapter is kept."""
        return Call("DELETE", path("exports", export_id), model(Deleted))
