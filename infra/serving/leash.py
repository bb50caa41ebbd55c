"""
Runs a program, and ends it with all that it has started once whoever asked for it has gone.

    python -m infra.serving.leash COMMAND ARGUMENT...

vLLM's engine is a process of its own: it outlives a server that was killed, and keeps the GPU's memory
(vllm-project/vllm#55510). Here the two are one group, which goes as soon as the server does.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress

from infra.warm import die_with_parent

UNSERVABLE = 2  # the exit code that says that trying again is of no use
GRACE_SECONDS = 4.0  # that the program has to end by itself; whoever ends this one by force must wait for longer
_HEARD = (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def main(command: Sequence[str]) -> int:
    """Run a command until it ends or this process is told to; return its exit code."""
    die_with_parent(signal.SIGTERM)
    signal.pthread_sigmask(signal.SIG_BLOCK, _HEARD)
    try:
        child = subprocess.Popen(command, process_group=0, preexec_fn=_as_usual)
    except OSError as error:
        print(f"{command[0]} cannot be started: {error.strerror}", file=sys.stderr)
        return UNSERVABLE
    while child.poll() is None:
        if signal.sigwait(_HEARD) is not signal.SIGCHLD:
            child.terminate()
            with suppress(subprocess.TimeoutExpired):
                child.wait(GRACE_SECONDS)
            break
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    code = child.wait()
    return code if code >= 0 else 128 - code  # as shells do


def _as_usual() -> None:
    """In the child, which hears of signals as programs do."""
    die_with_parent(signal.SIGKILL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _HEARD)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
