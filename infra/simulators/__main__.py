"""
A simulated vendor on a loopback port, until it is interrupted.

    python -m infra.simulators runpod --port 9001 --boot-seconds 5 --fault no_capacity:2 --fault preempted:40
"""

import json
import signal
from collections.abc import Mapping
from contextlib import suppress
from typing import Annotated

import typer

from infra.simulators.cloud import ADMIN
from infra.simulators.faults import Fault, Faults
from infra.simulators.hosts import SIMULATED_HOSTS
from infra.simulators.loopback import served
from infra.simulators.vendors import SIMULATED

NAMES = (*SIMULATED, *(name for name in SIMULATED_HOSTS if name not in SIMULATED))


def simulate(
    vendor: Annotated[str, typer.Argument(help=f"Which: {', '.join(NAMES)}.")],
    port: Annotated[int, typer.Option(help="Port to listen on; a free one by default.", min=0, max=65535)] = 0,
    boot_seconds: Annotated[float, typer.Option(help="How long a machine takes to boot.", min=0)] = 2.0,
    fault: Annotated[
        list[str] | None, typer.Option(help="KIND[:TIMES], or KIND:VALUE[:TIMES], of what is to go wrong; repeatable.")
    ] = None,
) -> None:
    """Serve one vendor's API; of those that rent, with machines that are processes of this one and end with it."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if vendor not in NAMES:
        raise typer.BadParameter(f"{vendor!r} is not simulated; use one of {', '.join(NAMES)}.")
    if vendor not in SIMULATED:
        return serve_host(vendor, port)
    try:
        faults = Faults(*map(Fault.parse, fault or []))
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--fault") from None
    cloud = SIMULATED[vendor].cloud(faults, boot_seconds=boot_seconds)
    try:
        with served(SIMULATED[vendor].application(cloud), port) as address:
            where = f"{address}/{vendor}"
            _tell(vendor, where, SIMULATED[vendor].credentials(where))
            print(f"PEFT_STUDIO_PLATFORM_URLS='{json.dumps({vendor: where})}' leads a studio there;")
            print(f"what its machines would have cost: {address}{ADMIN}/ledger. Ctrl-C ends it.", flush=True)
            signal.pause()
    except KeyboardInterrupt:
        pass
    finally:
        cloud.close()


def serve_host(name: str, port: int) -> None:
    """Serve one platform that serves adapters."""
    host = SIMULATED_HOSTS[name]
    with suppress(KeyboardInterrupt), served(host.application(), port) as address:
        _tell(name, f"{address}/{name}", host.credentials(f"{address}/{name}"))
        print("Ctrl-C ends it.", flush=True)
        signal.pause()


def _tell(name: str, where: str, credentials: Mapping[str, str]) -> None:
    print(f"{name} is simulated at {where}; POST /platforms/{name}/connect takes")
    print(json.dumps({"credentials": dict(credentials)}))


if __name__ == "__main__":
    typer.run(simulate)
