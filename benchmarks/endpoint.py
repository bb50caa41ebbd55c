"""
The local endpoint under 16 requests at a time over 8 adapters, beside what a script would do with the same models.

A Llama of 31 million parameters in float32, adapters of rank 8 on ``q_proj`` and ``v_proj``, prompts and answers of 64
tokens. The script asks one at a time through PEFT, changing the active adapter; or has a merged model for each adapter,
and asks each for its share in one batch. All greedy, in turns with the endpoint, and the answers must be the same.
"""

import asyncio
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

import httpx
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.report import Figure
from benchmarks.studio import ROOT
from benchmarks.workload import write_model
from peft_studio.ports import free_port

ADAPTERS, REQUESTS, PROMPT, ANSWER, ROUNDS = 8, 16, 64, 64, 5
PROBES = 20  # requests of one token each, for what takes milliseconds
LARGE = "large"  # an adapter of about 20 MB
T = TypeVar("T")
Tokens = list[int]
Asked = Sequence[tuple[str, Tokens]]  # adapter and prompt


def measure() -> list[Figure]:
    """Alternate between all; ratios are of medians over the rounds."""
    with tempfile.TemporaryDirectory(prefix="peft-studio-bench-") as name:
        base, folders = _write(Path(name))
        names = [name for name in folders if name != LARGE]
        tokenizer: Any = AutoTokenizer.from_pretrained(base)
        choose = random.Random(0)
        asked = [(names[n % ADAPTERS], [choose.randrange(10, 2000) for _ in range(PROMPT)]) for n in range(REQUESTS)]
        script, merged = _Script(base, folders, names), _Merged(base, folders, names)
        seconds: dict[str, list[float]] = {"ours": [], "one at a time": [], "merged": []}
        with _endpoint(base) as url, httpx.Client(base_url=url, timeout=60) as client:
            for each in names:
                _load(client, each, folders[each])
            for _ in range(ROUNDS):
                ours = _timed(seconds["ours"], lambda: asyncio.run(_all_at_once(url, asked)))
                theirs = _timed(seconds["one at a time"], lambda: script.answer(asked))
                others = _timed(seconds["merged"], lambda: merged.answer(asked))
                if not ours == tokenizer.batch_decode(theirs, skip_special_tokens=True) or theirs != others:
                    raise RuntimeError("The answers are not the same.")
            figures = _switching(client, asked) + _loading(client, folders[LARGE])
            figures += asyncio.run(_first_tokens(url, asked))
    rate = {name: REQUESTS * ANSWER / median(some) for name, some in seconds.items()}
    return [
        Figure("the endpoint: tokens a second", rate["ours"], ""),
        Figure("transformers, one at a time", rate["one at a time"], ""),
        Figure("a merged model for each adapter", rate["merged"], ""),
        Figure("ours over one at a time", rate["ours"] / rate["one at a time"], "times", at_least=4),
        Figure("ours over merged models", rate["ours"] / rate["merged"], "times"),
        *figures,
    ]


def _write(folder: Path) -> tuple[Path, dict[str, Path]]:
    base = write_model("llama-30m", folder)
    plain: Any = AutoModelForCausalLM.from_pretrained(base)
    with torch.no_grad():  # what the tokenizer has no text for is never said: answers are compared as texts
        plain.get_input_embeddings().weight[len(AutoTokenizer.from_pretrained(base)) :] = 0
    plain.save_pretrained(base)
    settings: dict[str, dict[str, Any]] = {
        f"adapter-{n}": {"r": 8, "target_modules": ["q_proj", "v_proj"]} for n in range(ADAPTERS)
    }
    settings[LARGE] = {"r": 64, "target_modules": "all-linear"}
    for number, (name, setting) in enumerate(settings.items()):
        torch.manual_seed(number)
        model: Any = get_peft_model(
            AutoModelForCausalLM.from_pretrained(base), LoraConfig(task_type="CAUSAL_LM", **setting)
        )
        for key, weight in model.named_parameters():
            if "lora_B" in key:
                torch.nn.init.normal_(weight, std=0.05)
        model.save_pretrained(folder / name)
    return base, {name: folder / name for name in settings}


class _Script:
    """One model with all adapters, of which one is active."""

    def __init__(self, base: Path, folders: dict[str, Path], names: Sequence[str]):
        self._model: Any = PeftModel.from_pretrained(
            AutoModelForCausalLM.from_pretrained(base), folders[names[0]], adapter_name=names[0]
        )
        for name in names[1:]:
            self._model.load_adapter(folders[name], adapter_name=name)
        self._model.eval()

    def answer(self, asked: Asked) -> list[Tokens]:
        """Answer one after the other."""
        answers: list[Tokens] = []
        for name, prompt in asked:
            self._model.set_adapter(name)
            answers += _generate(self._model, [prompt])
        return answers


class _Merged:
    """A whole model for each adapter."""

    def __init__(self, base: Path, folders: dict[str, Path], names: Sequence[str]):
        self._models: dict[str, Any] = {}
        for name in names:
            model: Any = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folders[name])
            self._models[name] = model.merge_and_unload().eval()

    def answer(self, asked: Asked) -> list[Tokens]:
        """Answer what each is asked, together."""
        answers: dict[int, Tokens] = {}
        for name, model in self._models.items():
            places = [place for place, (whose, _) in enumerate(asked) if whose == name]
            answers |= dict(zip(places, _generate(model, [asked[place][1] for place in places]), strict=True))
        return [answers[place] for place in range(len(asked))]


@torch.inference_mode()
def _generate(model: Any, prompts: list[Tokens]) -> list[Tokens]:
    ids = torch.tensor(prompts)
    made = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=ANSWER,
        eos_token_id=None,
        pad_token_id=2,
    )
    return made[:, ids.shape[1] :].tolist()


@contextmanager
def _endpoint(base: Path) -> Generator[str]:
    port = free_port()
    command = [sys.executable, "-m", "infra.serving.endpoint", "--base", str(base), "--port", str(port)]
    process = subprocess.Popen(command, cwd=ROOT)
    try:
        url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 120
        while not _answers(url):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("The endpoint did not start.")
            time.sleep(0.1)
        yield f"{url}/v1"
    finally:
        process.terminate()
        process.wait()


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health").status_code == 200
    except httpx.TransportError:
        return False


def _load(client: httpx.Client, name: str, folder: Path) -> None:
    client.post("/load_lora_adapter", json={"lora_name": name, "lora_path": str(folder)}).raise_for_status()


def _body(name: str, prompt: Tokens, tokens: int = ANSWER, **more: Any) -> dict[str, Any]:
    return {"model": name, "prompt": prompt, "max_tokens": tokens, "temperature": 0, **more}


async def _all_at_once(url: str, asked: Asked) -> list[str]:
    async with httpx.AsyncClient(base_url=url, timeout=120) as client:
        answers = await asyncio.gather(*(client.post("/completions", json=_body(*one)) for one in asked))
    for answer in answers:
        if answer.json()["usage"]["completion_tokens"] != ANSWER:
            raise RuntimeError("An answer ended early.")
    return [answer.json()["choices"][0]["text"] for answer in answers]


def _switching(client: httpx.Client, asked: Asked) -> list[Figure]:
    """Ask for one token, of the adapter that was asked before or of another one, in turns."""
    (first, prompt), (second, _) = asked[:2]
    same, other = list[float](), list[float]()
    for _ in range(PROBES):
        for name, where in ((first, None), (first, same), (second, other)):
            body = _body(name, prompt, 1)
            _timed([] if where is None else where, lambda body=body: client.post("/completions", json=body))
    return [Figure("switching to another loaded adapter", 1e3 * (median(other) - median(same)), "ms", at_most=5)]


def _loading(client: httpx.Client, folder: Path) -> list[Figure]:
    seconds = list[float]()
    for _ in range(ROUNDS):
        _timed(seconds, lambda: _load(client, LARGE, folder))
        client.post("/unload_lora_adapter", json={"lora_name": LARGE}).raise_for_status()
    size = (folder / "adapter_model.safetensors").stat().st_size / 1e6
    return [Figure(f"loading an adapter of {size:.0f} MB", 1e3 * median(seconds), "ms", at_most=200)]


async def _first_tokens(url: str, asked: Asked) -> list[Figure]:
    """Wait for the first token of a stream, with nothing else going on and while all others are answered."""
    name, prompt = asked[0]
    async with httpx.AsyncClient(base_url=url, timeout=120) as client:
        alone = [await _first_token(client, name, prompt) for _ in range(PROBES)]
        busy = asyncio.Event()

        async def keep_asking(one: tuple[str, Tokens]) -> None:
            while not busy.is_set():
                await client.post("/completions", json=_body(*one))

        others = [asyncio.create_task(keep_asking(one)) for one in asked[1:]]
        await asyncio.sleep(1)
        loaded = [await _first_token(client, name, prompt) for _ in range(PROBES)]
        busy.set()
        await asyncio.gather(*others)
    return [
        Figure("first token of a stream, alone", 1e3 * median(alone), "ms"),
        Figure(f"the same beside {len(others)} requests", 1e3 * median(loaded), "ms"),
        Figure("the latter over the former", median(loaded) / median(alone), "times", at_most=2),
    ]


async def _first_token(client: httpx.AsyncClient, name: str, prompt: Tokens) -> float:
    began = time.perf_counter()
    async with client.stream("POST", "/completions", json=_body(name, prompt, 4, stream=True)) as stream:
        async for line in stream.aiter_lines():
            if line.startswith("data:"):
                return time.perf_counter() - began
    raise RuntimeError("The stream was empty.")


def _timed(where: list[float], work: Callable[[], T]) -> T:
    began = time.perf_counter()
    done = work()
    where.append(time.perf_counter() - began)
    return done
