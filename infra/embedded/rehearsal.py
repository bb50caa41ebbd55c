"""
A studio whose vendors are simulated, for a rehearsal at no cost: ``peft-studio up --simulate runpod,vast``.

    python -m infra.embedded.rehearsal VENDOR...      connect the running studio to its simulated vendors

It has a data directory of its own: a simulated vendor must not be shown a real key, and a job of a rehearsal must not
be taken up by a studio that pays.
"""

import asyncio
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import SecretStr

from infra.embedded.environment import child_environment, inherited_environment
from infra.embedded.programs import answers
from infra.embedded.supervisor import Program
from infra.settings import Settings
from infra.warm import SOCKET_VARIABLE
from peft_studio.errors import Conflict, InvalidConfig, ResourceUnavailable
from peft_studio.ports import free_port
from peft_studio.remote import LAUNCHER_VARIABLE

MARK = "rehearsal"  # a file in the data directory
DATA_DIR = Path.home() / ".peft-studio-rehearsal"
VENDORS = ("runpod", "vast", "lambda", "kubernetes", "ssh")  # a simulated huggingface would hide the hub's models
_CONNECT_SECONDS = 60


def vendors_of(text: str) -> list[str]:
    """Read the list that the command line gives; raises ``InvalidConfig``."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names or not set(names) <= set(VENDORS):
        raise InvalidConfig(f"--simulate {text!r}: name one or more of {','.join(VENDORS)}.", field="simulate")
    return list(dict.fromkeys(names))


def keep_apart(data_dir: Path, vendors: Sequence[str]) -> None:
    """Raise ``Conflict`` where a rehearsal would use a real studio's data directory, or the other way round."""
    mark = data_dir / MARK
    if vendors and not mark.exists():
        if (data_dir / "secrets").exists():
            raise Conflict(f"{data_dir} is a real studio's: rehearse in another one (--data-dir).")
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        mark.touch()
    elif mark.exists() and not vendors:
        raise Conflict(f"{data_dir} is a rehearsal's: give --simulate again, or another --data-dir.")


def with_simulated(settings: Settings, vendors: Sequence[str]) -> Settings:
    """Return settings that lead to simulated vendors, on ports that are free now."""
    urls = {name: f"http://127.0.0.1:{free_port()}/{name}" for name in vendors}
    return settings.model_copy(update={"platform_urls": settings.platform_urls | urls})


def simulators(settings: Settings, vendors: Sequence[str], scratch: Path) -> list[Program]:
    """Return the programs that simulate vendors; their machines start warm, as the studio's own trainers do."""
    launcher = f"{sys.executable} -m infra.warm run"
    environment = inherited_environment() | {
        "TMPDIR": str(scratch),
        SOCKET_VARIABLE: str(scratch / "warm.sock"),
        LAUNCHER_VARIABLE: launcher,
    }
    return [_simulator(name, settings.platform_urls[name], environment) for name in vendors]


def connect(settings: Settings, vendors: Sequence[str]) -> None:
    """Have a studio that is ready be connected to its simulated vendors; raises ``ResourceUnavailable``."""
    command = [sys.executable, "-P", "-m", "infra.embedded.rehearsal", *vendors]
    environment = inherited_environment() | child_environment(settings)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=_CONNECT_SECONDS)
    if done.returncode:
        said = (done.stderr.strip() or "nothing").splitlines()[-1]
        raise ResourceUnavailable(f"The studio could not be connected to its simulated vendors: {said}")


def _simulator(name: str, url: str, environment: Mapping[str, str]) -> Program:
    port = url.rpartition(":")[2].partition("/")[0]
    return Program(
        name=f"simulated-{name}",
        command=[sys.executable, "-P", "-m", "infra.simulators", name, "--port", port],
        environment=dict(environment),
        is_ready=answers("127.0.0.1", int(port), "/_simulator/ledger"),
        stop_seconds=5.0,
    )


async def _connect(vendors: Sequence[str]) -> None:
    from infra.credentials import CredentialsInPrefect
    from infra.platforms.connections import Platforms
    from infra.settings import settings
    from infra.simulators.vendors import SIMULATED

    platforms = Platforms(CredentialsInPrefect(), settings())
    for name in vendors:
        given = SIMULATED[name].credentials(settings().platform_urls[name].rpartition("/")[0])
        await platforms.connect(name, {field: SecretStr(value) for field, value in given.items()})


if __name__ == "__main__":
    asyncio.run(_connect(sys.argv[1:]))
