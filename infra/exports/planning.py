"""What an export stands on: looked up and checked before anybody is told that there will be one."""

from pathlib import Path

from infra.adapters.bases import usable_base
from infra.adapters.uploaded import UploadedAdapters
from infra.disk_space import require_space
from infra.platforms.connections import Platforms, not_connected
from infra.platforms.vendors import VENDORS
from infra.settings import Settings
from peft_studio.adapters import Adapter
from peft_studio.export_rules import check_export, needed_bytes
from peft_studio.exports import ExportConfig, ExportFormat, ExportTask

_OLLAMA = "ollama"


async def is_created(config: ExportConfig, platforms: Platforms) -> bool:
    """Whether the daemon is to create the model; raises ``PlatformNotConnected`` where that was asked for."""
    if config.format is not ExportFormat.OLLAMA or config.create is False:
        return False
    if await platforms.connected([_OLLAMA]):
        return True
    if config.create:
        raise not_connected(VENDORS[_OLLAMA], "create")
    return False


def plan_export(
    adapter: Adapter, config: ExportConfig, create: bool, uploads: UploadedAdapters, settings: Settings
) -> ExportTask:
    """
    Put together all that an export needs; may ask a hub about the base model: call it in a thread.

    Raises ``InvalidConfig`` with the field that cannot be honoured, and ``ResourceUnavailable`` where the disk has no
    room for the files.
    """
    model = usable_base(adapter, uploads, settings)
    check_export(config, adapter, model)
    needed = needed_bytes(config, adapter, model)
    require_space(settings.exports, needed, settings.disk_reserve_bytes)
    return ExportTask(
        adapter_id=adapter.id,
        config=config,
        adapter=str(Path(adapter.path).parent),
        base_model=model.path or model.id,
        revision=None if model.path else model.revision,
        algorithm=adapter.algorithm,
        rank=adapter.metadata.rank,
        needed_bytes=needed,
        create=create,
    )
