"""Previews of data sets, made by the trainer's own code in a process of its own: the API never loads torch."""

import asyncio
import logging
import subprocess
import sys
from contextlib import suppress

from pydantic import ValidationError

from infra.embedded.environment import inherited_environment
from infra.settings import Settings
from peft_studio.base_models import inspect_model
from peft_studio.config import Column, LongRows, ModelSource
from peft_studio.errors import InternalError, InvalidConfig, ResourceUnavailable, StudioError
from peft_studio.previews import DatasetPreview, PreviewAnswer, PreviewRequest
from peft_studio.stored_datasets import Dataset

log = logging.getLogger(__name__)
PROGRAM = "peft_studio.trainer.preview"
_AT_ONCE = 2
_KINDS: dict[str, type[StudioError]] = {kind.code: kind for kind in (InvalidConfig, ResourceUnavailable)}


class Previews:
    """Shows data sets the way base models see them."""

    def __init__(self, settings: Settings):
        self._seconds = settings.preview_seconds
        self._turns = asyncio.Semaphore(_AT_ONCE)

    async def preview(
        self,
        dataset: Dataset,
        base_model: str,
        source: ModelSource,
        limit: int,
        max_length: int,
        *,
        columns: dict[Column, str],
        long_rows: LongRows,
    ) -> DatasetPreview:
        """Render and tokenize a data set's first rows; raises ``ResourceUnavailable`` where that takes too long."""
        model = await asyncio.to_thread(inspect_model, base_model, source, None)
        request = PreviewRequest(
            path=dataset.path,
            base_model=model.path or model.id,
            model_source=source,
            model_revision=None if model.path else model.revision,
            limit=limit,
            max_length=max_length,
            columns=columns,
            long_rows=long_rows,
        )
        try:
            async with asyncio.timeout(self._seconds), self._turns:
                answer = await _ask(request)
        except TimeoutError:
            raise ResourceUnavailable(
                f"The preview was not there within {self._seconds:g} seconds; try again, or with fewer rows."
            ) from None
        if answer.preview is None:
            kind = _KINDS.get(answer.code or "", InternalError)
            raise kind(answer.message, **answer.details)
        return answer.preview.model_copy(update={"base_model": base_model})


async def _ask(request: PreviewRequest) -> PreviewAnswer:
    # Started from the event loop's thread: the kernel ends the process together with the thread that started it.
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "infra.warm", "run", PROGRAM),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=inherited_environment(),  # the database is none of its business
    )
    try:
        output, said = await process.communicate(request.model_dump_json().encode())
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    try:
        return PreviewAnswer.model_validate_json(output)
    except ValidationError:
        log.error("The preview ended with code %s: %s", process.returncode, said.decode(errors="replace")[-3000:])
        raise InternalError("The preview failed; the log of the API says why.") from None
