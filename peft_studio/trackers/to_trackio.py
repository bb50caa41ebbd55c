"""
trackio, by its own library: a folder of this machine, or a server of one's own.

The library is imported only once it is told where to write. It hands over in the background; what has arrived is asked
at the end, of the same place that is asked for the last step when the run is opened again.
"""

import os
import time
from collections.abc import Sequence
from typing import Any

from peft_studio.trackers.contract import Destination, Ending, Opened, Row, TrackerUnavailable

_ARRIVAL_SECONDS = 40.0


class Trackio:
    """One run; trackio has no state of runs, so that it is written as metrics and into the configuration."""

    _run: Any
    _destination: Destination

    def open(self, destination: Destination) -> Opened:
        """Begin the run, or go on with it; its name is the job's id, by which it is found again."""
        os.environ |= {"TRACKIO_DIR": destination.folder, "TRACKIO_STORAGE_MODE": "sqlite"}
        self._destination = destination
        if token := destination.secret("write_token"):
            os.environ["TRACKIO_WRITE_TOKEN"] = token
        import trackio  # pyright: ignore[reportMissingImports]

        last = self._last_step()
        address = {"server_url": destination.url} if destination.url else {}
        self._run = trackio.init(
            destination.project,
            name=destination.run_id,
            config={**destination.config, "name": destination.name, "tags": destination.tags},
            resume="allow",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
            **address,
        )
        shown = {"url": f"{destination.url}/?project={destination.project}"} if destination.url else {}
        return Opened(last_step=last, folder=None if destination.url else destination.folder, **shown)

    def log(self, rows: Sequence[Row]) -> None:
        """Hand rows to the library."""
        for row in rows:
            self._run.log(dict(row.metrics), step=row.step)

    def finish(self, ending: Ending) -> None:
        """Write the final metrics and the state as one more step, and wait until it is there."""
        last = (ending.last_step or 0) + 1
        final = {f"final/{name}": value for name, value in ending.metrics.items()}
        self._run.log({**final, "status": ending.status.value}, step=last)
        self._run.finish()
        deadline = time.monotonic() + _ARRIVAL_SECONDS
        while self._last_step() != last:
            if time.monotonic() > deadline:
                raise TrackerUnavailable("not all that was sent has arrived")
            time.sleep(0.2)

    def _last_step(self) -> int | None:
        """Ask how far the run has come."""
        project, name = self._destination.project, self._destination.run_id
        if not self._destination.url:
            from trackio.sqlite_storage import SQLiteStorage  # pyright: ignore[reportMissingImports]

            return SQLiteStorage.get_max_step_for_run(project, name)
        from trackio.remote_client import RemoteClient  # pyright: ignore[reportMissingImports]

        try:
            client = RemoteClient(self._destination.url, hf_token=None, verbose=False)
            found = client.predict(project=project, run=name, api_name="/get_run_summary")
        except Exception as error:  # of whatever its transport raises
            status = getattr(getattr(error, "response", None), "status_code", None)
            reason = f"it answered {status}" if status else f"it cannot be reached ({type(error).__name__})"
            raise TrackerUnavailable(reason, refused=status in (401, 403)) from None
        last = found.get("last_step") if isinstance(found, dict) else None
        return last if isinstance(last, int) else None
