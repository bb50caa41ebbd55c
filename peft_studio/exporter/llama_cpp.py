"""
Has a GGUF file loaded by llama.cpp, in a process of its own: what aborts there must not take an export with it.

    python -m peft_studio.exporter.llama_cpp < QUESTION.json > ANSWER.json

The binding is ``xllamacpp``, which the extra ``gguf`` installs; without it nothing is asked.
"""

import json
import secrets
import subprocess
import sys
import urllib.request
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from typing import Any

from peft_studio.errors import ExportFailed

BINDING = "xllamacpp"
_SECONDS = 1800.0
_CONTEXT = 512


@dataclass(frozen=True)
class Question:
    """What llama.cpp is asked: the tokens of some texts, and so many tokens behind a prompt, the likeliest each."""

    path: str
    texts: Sequence[str]
    whole: bool  # with the tokens that begin and end a text
    prompt: Sequence[int]
    tokens: int


@dataclass(frozen=True)
class Answer:
    """The tokens of each text, and those that were written behind the prompt."""

    texts: list[list[int]]
    written: list[int]


def is_installed() -> bool:
    """Whether the binding is there."""
    return find_spec(BINDING) is not None


def ask(question: Question) -> Answer:
    """Have another process load the file and answer; raises ``ExportFailed`` where llama.cpp cannot."""
    command = [sys.executable, "-m", __spec__.name if __spec__ else __name__]
    try:
        done = subprocess.run(
            command, input=json.dumps(asdict(question)), capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise ExportFailed(f"llama.cpp took more than {_SECONDS:g} seconds to load the file and answer.") from error
    if done.returncode:
        told = next((line for line in reversed(done.stderr.splitlines()) if "error" in line.lower()), "without a word")
        raise ExportFailed(f"llama.cpp cannot load the file: {told.strip()}")
    return Answer(**json.loads(done.stdout))


def _answer(question: Question) -> Answer:
    import xllamacpp  # pyright: ignore[reportMissingImports]

    binding: Any = xllamacpp
    wanted: Any = binding.CommonParams()
    wanted.model.path = question.path
    wanted.n_ctx, wanted.n_parallel, wanted.n_gpu_layers = _CONTEXT, 1, 0
    wanted.warmup, wanted.verbosity = False, 1
    key = secrets.token_hex(16)  # its server listens on loopback, where others could ask it, too
    wanted.api_keys = [key]
    server = binding.Server(wanted)

    def post(path: str, body: dict[str, Any]) -> dict[str, Any]:
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
        request = urllib.request.Request(server.listening_address + path, json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request, timeout=_SECONDS) as response:
            return json.load(response)

    special = {"add_special": question.whole, "parse_special": True}
    texts = [post("/tokenize", {"content": text, **special}) for text in question.texts]
    # A text may end: were it told to go on, llama.cpp would write another token where the model writes the last one.
    greedy = {"temperature": 0, "n_predict": question.tokens, "return_tokens": True}
    written = post("/completion", {"prompt": list(question.prompt), "cache_prompt": False, **greedy})
    return Answer([one["tokens"] for one in texts], written["tokens"])


def main() -> None:
    """Answer the question on standard input; llama.cpp's own words go to standard error."""
    print(json.dumps(asdict(_answer(Question(**json.load(sys.stdin))))), flush=True)


if __name__ == "__main__":
    main()
