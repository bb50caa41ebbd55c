"""
The local endpoint: one base model and any number of adapters behind an OpenAI-compatible API.

    python -m infra.serving.endpoint --base MODEL (--port PORT | --socket PATH) [--revision REVISION]

Adapters are loaded and unloaded while it runs, by vLLM's two routes. With PEFT_STUDIO_ENDPOINT_TOKEN in the
environment every request must bear it. Exit code 2: the base model cannot be served, and trying again is of no use.
"""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
import uvicorn

from infra.serving.endpoint_client import TOKEN_VARIABLE
from infra.serving.engine import Engine
from infra.serving.leash import UNSERVABLE
from infra.serving.lora import AdaptedLayers
from infra.serving.model import cache_tokens, load_base
from infra.serving.routes import Serving, create_app
from infra.serving.scheduler import Limits, Scheduler
from infra.serving.served import Models
from peft_studio.config import Precision
from peft_studio.errors import InvalidConfig


def prepare(
    source: str,
    revision: str | None = None,
    precision: Precision = Precision.AUTO,
    rows: int = 32,
    queue: int = 256,
) -> Serving:
    """Load a base model and put together what serves it; nothing runs yet."""
    base = load_base(source, revision, precision)
    layers = AdaptedLayers(base.model)
    limits = Limits(rows=rows, queue=queue, cache_tokens=cache_tokens(base))
    engine = Engine(Scheduler(base.model, layers, base.tokenizer, limits))
    return Serving(Models(base, layers, engine), engine)


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until told to stop; return the exit code."""
    asked = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    if threads := os.environ.get("PEFT_STUDIO_THREADS"):
        torch.set_num_threads(int(threads))
    try:
        serving = prepare(asked.base, asked.revision, asked.precision, asked.rows, asked.queue)
    except InvalidConfig as error:
        print(error.message, file=sys.stderr)
        return UNSERVABLE
    app = create_app(serving, os.environ.get(TOKEN_VARIABLE) or None)
    uvicorn.run(
        app,
        uds=str(asked.socket) if asked.socket else None,
        host=asked.host,
        port=asked.port or 0,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=1,
    )
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("infra.serving.endpoint", description="Serve a base model and its adapters.")
    parser.add_argument("--base", required=True, help="a model's folder, or its id on a hub")
    parser.add_argument("--revision", help="commit, tag or branch of a hub's model")
    parser.add_argument("--precision", type=Precision, choices=list(Precision), default=Precision.AUTO)
    parser.add_argument("--host", default="127.0.0.1")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--port", type=int)
    where.add_argument("--socket", type=Path, help="listen on a Unix socket instead")
    parser.add_argument("--rows", type=int, default=32, help="requests answered at the same time")
    parser.add_argument("--queue", type=int, default=256, help="requests that may wait; more are refused")
    return parser


if __name__ == "__main__":
    sys.exit(main())
