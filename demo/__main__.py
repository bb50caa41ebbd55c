"""
From nothing to an evaluated adapter: starts a studio, submits a real job over REST and follows it to its end.

    python -m demo [--model ID_OR_PATH] [--dataset FILE_OR_ID] [--keep/--no-keep]
"""

import os
import signal
import socket
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from peft_studio.cli.watching import show_work
from peft_studio.client import Client
from peft_studio.errors import StudioError
from peft_studio.jobs import HeldOut, Job

ROOT = Path(__file__).parent.parent
DATA = ROOT / ".demo"
console = Console(highlight=False)


def main(
    model: Annotated[str, typer.Option(help="A Hugging Face model id, or a folder in its layout.")] = "",
    dataset: Annotated[str, typer.Option(help="A data set file, or the id of one on the hub.")] = "",
    keep: Annotated[bool | None, typer.Option(help="Leave the studio running afterwards, until Ctrl-C.")] = None,
) -> None:
    """Show what PEFT Studio does, on this machine."""
    os.chdir(ROOT)
    port, prefect_port = free_port(8000), free_port(4200)
    console.print(f"Starting the studio in [bold]{DATA.name}/[/] …")
    studio = start_studio(port, prefect_port)
    try:
        with Client(f"http://127.0.0.1:{port}", api_key()) as client:
            job = run_job(client, job_config(model, dataset))
            report(client, job, port, prefect_port)
        if job.status != "completed":
            raise typer.Exit(1)
        if sys.stdin.isatty() if keep is None else keep:
            console.print("The studio stays up. [bold]Ctrl-C[/] ends it.")
            studio.wait()
    except StudioError as error:
        console.print(f"[red]{error.message}[/] {error.details.get('issue', '')}")
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        pass
    finally:
        stop(studio)


def job_config(model: str, dataset: str) -> dict[str, Any]:
    """Return the demonstration's job, for another model or data set where asked."""
    config = yaml.safe_load((ROOT / "demo" / "job.yaml").read_text())
    if model or dataset:
        config.pop("test_prompt", None)
    if model:
        # The settings below suit the model that ships with the project: tiny, hence a large learning rate.
        config = {"base_model": model, "project_name": "demo", "dataset_path": config["dataset_path"]}
        config["model_source"] = "local" if Path(model).is_dir() else "huggingface"
    if dataset:
        config["dataset_path"] = str(Path(dataset).resolve()) if Path(dataset).exists() else dataset
    return config


def start_studio(port: int, prefect_port: int) -> subprocess.Popen[str]:
    """Start the studio and wait until it says that it is ready."""
    command = [sys.executable, "-m", "peft_studio.cli", "up", "--data-dir", str(DATA)]
    command += ["--port", str(port), "--prefect-port", str(prefect_port)]
    studio = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert studio.stdout is not None
    for line in studio.stdout:
        console.print(f"  {line.rstrip()}")
        if "is ready" in line:
            return studio
    raise typer.Exit(studio.wait())


def stop(studio: subprocess.Popen[str]) -> None:
    """Stop the studio and wait for it."""
    if studio.poll() is None:
        console.print("Stopping the studio …")
        studio.send_signal(signal.SIGTERM)
        studio.wait()


def api_key() -> str:
    """Create a key for this run of the demonstration."""
    name = f"demo-{datetime.now():%Y%m%d-%H%M%S}"
    command = [sys.executable, "-m", "peft_studio.cli", "keys", "create", name, "--data-dir", str(DATA)]
    return subprocess.run(
        command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ).stdout.strip()


def run_job(client: Client, config: dict[str, Any]) -> Job:
    """Submit the job and show it at work."""
    console.print(f"\n[bold]POST /api/v1/jobs[/]  {config['base_model']} on {config['dataset_path']}")
    job_id = client.create_job(config | {"force": True}).job_id
    console.print(f"The job is {job_id}\n")
    show_work(client.follow(job_id), console)
    return client.get_job(job_id)


def report(client: Client, job: Job, port: int, prefect_port: int) -> None:
    """Print what came of it, and where to look further."""
    console.print()
    if job.evaluation and job.evaluation.base and job.evaluation.adapter:
        console.print(worth(job.evaluation.base, job.evaluation.adapter))
    if job.evaluation and (answer := job.evaluation.answer):
        console.print(f"\n[bold]Prompt[/]      {escape(answer.prompt)}")
        for who, text in (("Base model", answer.base), ("Adapter", answer.adapter)):
            console.print(f"[bold]{who}[/]", escape(text.strip()) or "(nothing)", sep="\n")
    if job.artifact:
        console.print(f"\n[bold]Adapter[/]     {Path(job.artifact.path).parent}  ({job.artifact.size_bytes:,} bytes)")
    steps = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in job.step_seconds.items())
    console.print(f"[bold]Steps[/]       {steps}")
    console.print(f"[bold]This job[/]    http://127.0.0.1:{port}/api/v1/jobs/{job.job_id}")
    console.print(f"[bold]API docs[/]    http://127.0.0.1:{port}/docs")
    console.print(f"[bold]Prefect UI[/]  http://127.0.0.1:{prefect_port}\n")


def worth(base: HeldOut, adapter: HeldOut) -> Table:
    """Put what both models do on the held-out rows side by side."""
    table = Table(
        "on held-out rows", "before", "after", "change", title="What the adapter is worth", title_justify="left"
    )
    for name, before, after in (
        ("loss", base.loss, adapter.loss),
        ("perplexity", base.perplexity, adapter.perplexity),
    ):
        if before is None or after is None:
            continue
        table.add_row(name, f"{before:.3f}", f"{after:.3f}", f"{100 * (after / before - 1):+.1f} %")
    if base.accuracy is not None and adapter.accuracy is not None:
        before, after = 100 * base.accuracy, 100 * adapter.accuracy
        table.add_row("tokens right", f"{before:.1f} %", f"{after:.1f} %", f"{after - before:+.1f} points")
    return table


def free_port(preferred: int) -> int:
    """Return the preferred port, or any free one where it is taken."""
    for port in (preferred, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return probe.getsockname()[1]
    raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
