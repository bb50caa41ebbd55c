"""
Programs that start in an instant, because a process that has already imported what they need forks for them.

    python -m infra.warm serve SOCKET MODULE...     import the modules, then fork a child for every request
    python -m infra.warm run MODULE ARGUMENT...     the same as python -m MODULE ARGUMENT..., only faster

``run`` finds the server through ``PEFT_STUDIO_WARM_SOCKET``; without one it starts Python afresh, with the same effect.
The child has the caller's environment, working directory, standard streams, niceness and signals, and ends when the
caller does.
"""

import array
import atexit
import ctypes
import importlib
import json
import os
import runpy
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import setproctitle

SOCKET_VARIABLE = "PEFT_STUDIO_WARM_SOCKET"
GRACE_SECONDS = 10.0
HERE = b"here\n"  # the answer to who asks for nothing
KILLED = 128 + signal.SIGKILL
_PR_SET_PDEATHSIG = 1


def serve(path: Path, modules: list[str]) -> NoReturn:
    """Listen on ``path``, import ``modules`` and fork for every request, until killed."""
    die_with_parent(signal.SIGKILL)
    setproctitle.getproctitle()  # finds its place now, while the environment is as it was when the process began
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        path.chmod(0o600)
        listener.listen(64)  # who comes while the modules are imported waits: to import them as well takes longer
        for name in modules:
            importlib.import_module(name)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the children here: the kernel reaps them
        while True:
            connection, _ = listener.accept()
            with connection:
                request, streams = _receive(connection)
                if request is None:
                    with suppress(OSError):
                        connection.sendall(HERE)
                elif os.fork() == 0:
                    listener.close()
                    _become(connection, request, streams)
                for stream in streams:
                    os.close(stream)


def _receive(connection: socket.socket) -> tuple[dict[str, Any] | None, list[int]]:
    """Read one request: a JSON line and the caller's three standard streams."""
    connection.settimeout(5)
    streams = array.array("i")
    data = b""
    try:
        while not data.endswith(b"\n"):
            chunk, ancillary, _, _ = connection.recvmsg(1 << 16, socket.CMSG_LEN(3 * streams.itemsize))
            for _, _, content in ancillary:
                streams.frombytes(content)
            if not chunk:
                return None, list(streams)
            data += chunk
    except OSError:
        return None, list(streams)
    connection.settimeout(None)
    return json.loads(data), list(streams)


def _become(connection: socket.socket, request: dict[str, Any], streams: list[int]) -> NoReturn:
    """Be the program that was asked for, in the freshly forked child; leave as any Python program does."""
    code = 70
    connection = socket.socket(fileno=connection.detach())  # outlives the server's own frames

    def leave() -> None:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        connection.sendall(f"{code}\n".encode())
        # Taking apart what the server had imported would cost a second, in which the program seems to be running still.
        os._exit(code)

    atexit.register(leave)  # registered first, so it runs last
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["directory"])
    # Only the superuser may step forward again.
    os.nice(max(0, request["niceness"] - os.getpriority(os.PRIO_PROCESS, 0)))
    connection.sendall(f"{os.getpid()}\n".encode())
    threading.Thread(target=_end_with_caller, args=(connection,), daemon=True).start()
    _refresh_settings()
    code = _run_module(request["module"], request["arguments"], request["directory"])
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it is ending already
    sys.exit(code)


def _run_module(module: str, arguments: list[str], directory: str) -> int:
    """Run a module as ``python -m`` does; return the exit code that Python would give."""
    setproctitle.setproctitle(" ".join(["python", "-m", module, *arguments]))
    sys.argv = [module, *arguments]
    sys.path[0] = directory
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as stop:
        if isinstance(stop.code, str):
            print(stop.code, file=sys.stderr)
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        return 1
    return 0


def _refresh_settings() -> None:
    """Have libraries that read the environment when imported read it again."""
    if "prefect" in sys.modules:
        from prefect.context import refresh_global_settings_context

        refresh_global_settings_context()
    if "infra.settings" in sys.modules:
        sys.modules["infra.settings"].settings.cache_clear()


def _end_with_caller(connection: socket.socket) -> None:
    """Wait for the caller to go, then end this process: politely first."""
    while connection.recv(1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)


def run(module: str, arguments: list[str]) -> NoReturn:
    """Run a program through the warm server if there is one, else in this very process; exit with its code."""
    die_with_parent(signal.SIGKILL)
    try:
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(os.environ[SOCKET_VARIABLE])
    except (KeyError, OSError):
        os.execv(sys.executable, [sys.executable, "-m", module, *arguments])
    request = {
        "module": module,
        "arguments": arguments,
        "environment": dict(os.environ),
        "directory": str(Path.cwd()),
        "niceness": os.getpriority(os.PRIO_PROCESS, 0),
    }
    streams = array.array("i", [0, 1, 2])
    connection.sendmsg([b" "], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, streams)])
    connection.sendall(json.dumps(request).encode() + b"\n")
    replies = connection.makefile("rb")
    child = b""
    with suppress(OSError):
        child = replies.readline()
    if not child:
        os.execv(sys.executable, [sys.executable, "-m", module, *arguments])

    def forward(number: int, _: FrameType | None) -> None:
        os.kill(int(child), number)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, forward)
    code = replies.readline()
    os._exit(int(code) if code else KILLED)


def die_with_parent(number: signal.Signals) -> None:
    """Ask the kernel to send this process a signal when its parent dies (Linux; elsewhere nothing happens)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(number))


def main(arguments: list[str]) -> NoReturn:
    """Dispatch the command line."""
    match arguments:
        case ["serve", path, *modules]:
            serve(Path(path), modules)
        case ["run", module, *rest]:
            run(module, rest)
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
