"""
A simulated vendor on a loopback port, until it is interrupted.

    python -m infra.simulators runpod --port 9001 --boot-seconds 5 --fault no_capacity:2 --fault preempted:40
"""

import json
import signal
from collections.abc import Callable, Mapping
from typing import Annotated

import typer

from infra.simulators.cloud import ADMIN
from infra.simulators.exchange import App
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
    try:
        faults = Faults(*map(Fault.parse, fault or []))
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--fault") from None
    if vendor in SIMULATED:
        cloud = SIMULATED[vendor].cloud(faults, boot_seconds=boot_seconds)
        _serve(vendor, SIMULATED[vendor].application(cloud), SIMULATED[vendor].credentials, port, cloud.close)
    else:
        host = SIMULATED_HOSTS[vendor]
        hosting = host.hosting(faults, boot_seconds)
        _serve(host.platform or vendor, host.application(hosting), host.credentials, port, hosting.close)


def _serve(
    platform: str,
    app: App,
    credentials: Callable[[str], Mapping[str, str]],
    port: int,
    close: Callable[[], None],
) -> None:
    """Serve an application, and say how a studio is led there, until it is interrupted."""
    try:
        with served(app, port) as address:
            where = f"{address}/{platform}"
            print(f"{platform} is simulated at {where}; POST /platforms/{platform}/connect takes")
            print(json.dumps({"credentials": dict(credentials(where))}))
            print(f"PEFT_STUDIO_PLATFORM_URLS='{json.dumps({platform: where})}' leads a studio there;")
            print(f"what it would have cost: {address}{ADMIN}/ledger. Ctrl-C ends it.", flush=True)
            signal.pause()
    except KeyboardInterrupt:
        pass
    finally:
        close()


if __name__ == "__main__":
    typer.run(simulate)
