"""
A simulated vendor on a loopback port, until it is interrupted.

    python -m infra.simulators runpod --port 9001 --boot-seconds 5 --fault no_capacity:2 --fault preempted:40
"""

import json
import signal
from typing import Annotated

import typer

from infra.simulators.cloud import ADMIN
from infra.simulators.faults import Fault, Faults
from infra.simulators.loopback import served
from infra.simulators.vendors import SIMULATED


def simulate(
    vendor: Annotated[str, typer.Argument(help=f"Which: {', '.join(SIMULATED)}.")],
    port: Annotated[int, typer.Option(help="Port to listen on; a free one by default.", min=0, max=65535)] = 0,
    boot_seconds: Annotated[float, typer.Option(help="How long a machine takes to boot.", min=0)] = 2.0,
    fault: Annotated[
        list[str] | None, typer.Option(help="KIND[:TIMES], or KIND:VALUE[:TIMES], of what is to go wrong; repeatable.")
    ] = None,
) -> None:
    """Serve one vendor's API with machines that are processes of this one; they end with it."""
    if vendor not in SIMULATED:
        raise typer.BadParameter(f"{vendor!r} is not simulated; use one of {', '.join(SIMULATED)}.")
    try:
        faults = Faults(*map(Fault.parse, fault or []))
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--fault") from None
    cloud = SIMULATED[vendor].cloud(faults, boot_seconds=boot_seconds)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with served(SIMULATED[vendor].application(cloud), port) as address:
            where = f"{address}/{vendor}"
            print(f"{vendor} is simulated at {where}; POST /platforms/{vendor}/connect takes")
            print(json.dumps({"credentials": dict(SIMULATED[vendor].credentials(where))}))
            print(f"PEFT_STUDIO_PLATFORM_URLS='{json.dumps({vendor: where})}' leads a studio there;")
            print(f"what its machines would have cost: {address}{ADMIN}/ledger. Ctrl-C ends it.", flush=True)
            signal.pause()
    except KeyboardInterrupt:
        pass
    finally:
        cloud.close()


if __name__ == "__main__":
    typer.run(simulate)
