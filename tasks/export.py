"""Make an adapter into what others load, and hand it to those who asked for it."""

import asyncio

from prefect import task
from prefect.cache_policies import NO_CACHE

from infra.credentials import CredentialsInPrefect
from infra.disk_space import full_disk_told, require_space
from infra.exports.ollama import create_model
from infra.exports.record import ExportRecord
from infra.hubs.access import address_of
from infra.settings import settings
from peft_studio.errors import ResourceUnavailable
from peft_studio.exporter.make import make, talks_of
from peft_studio.exports import ExportResult, ExportTask
from tasks.retrying import retry_on

_OLLAMA = "ollama"
_LONGEST_SECONDS = 6 * 3600  # a large model on a slow disk


@task(name="convert", cache_policy=NO_CACHE, retries=0, timeout_seconds=_LONGEST_SECONDS)
def convert(wanted: ExportTask) -> ExportResult:
    """Make the files, check them, and put them where they stay: whole, or not at all."""
    record = ExportRecord.current()
    if (stored := record.folder.result()) is not None:
        return stored  # by a process that died before it could say so
    require_space(settings().exports, wanted.needed_bytes, settings().disk_reserve_bytes)
    folder = record.folder.begin()
    try:
        with full_disk_told():
            result = make(wanted, folder, record.say)
            record.say("storing", 0.95)
            return record.folder.place(result)
    except BaseException:
        record.folder.drop()
        raise


@task(
    name="hand over",
    cache_policy=NO_CACHE,
    retries=3,
    retry_delay_seconds=[2, 10, 60],
    retry_condition_fn=retry_on(ResourceUnavailable),
    timeout_seconds=_LONGEST_SECONDS,
)
def hand_over(wanted: ExportTask, result: ExportResult) -> ExportResult:
    """Have the connected Ollama daemon create the model; done twice it is the same model."""
    record = ExportRecord.current()
    record.say("creating the Ollama model", 0.97)
    weights = next(file for file in result.files if file.name.endswith(".gguf"))
    path, talks = record.folder.files / weights.name, talks_of(wanted)
    url = asyncio.run(address_of(_OLLAMA, CredentialsInPrefect(), settings()))
    asyncio.run(create_model(url, wanted.name, path, weights.sha256, talks.template, {"stop": talks.stops}))
    return result.model_copy(update={"ollama_model": wanted.name})
