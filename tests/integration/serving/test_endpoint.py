"""The endpoint's HTTP: OpenAI's requests and answers, vLLM's routes for adapters, errors with their field."""

import asyncio
import json
import random
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from litestar import Litestar
from litestar.testing import TestClient

from infra.serving.endpoint import prepare
from infra.serving.routes import Serving, create_app
from tests.tiny import sentence, tiny_model, tiny_tokenizer
from tests.unit.serving.adapters import Answerer

Client = TestClient[Litestar]
TOKENIZER = tiny_tokenizer()
HELLO = [{"role": "user", "content": "who is the red cat"}]


@pytest.fixture(scope="module")
def serving(base_folder: Path) -> Serving:
    return prepare(str(base_folder), queue=200)


@pytest.fixture(scope="module")
def client(serving: Serving, adapters: Mapping[str, Path]) -> Iterator[Client]:
    with TestClient(create_app(serving), raise_server_exceptions=False) as client:
        for name, folder in adapters.items():
            load(client, name, folder)
        yield client


def load(client: Client, name: str, folder: Path) -> None:
    answer = client.post("/v1/load_lora_adapter", json={"lora_name": name, "lora_path": str(folder)})
    assert answer.status_code == 200, answer.text


def complete(client: Client, model: str, prompt: Any, **options: Any) -> dict[str, Any]:
    body = {"model": model, "prompt": prompt, "temperature": 0, **options}
    answer = client.post("/v1/completions", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def events(client: Client, path: str, body: dict[str, Any]) -> list[Any]:
    answer = client.post(path, json={**body, "stream": True, "temperature": 0})
    assert answer.headers["content-type"].startswith("text/event-stream")
    lines = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line]
    assert lines.pop() == "[DONE]"
    return [json.loads(line) for line in lines]


def stock_text(stock: Answerer, adapter: str | None, prompt: str, count: int) -> str:
    """What stock transformers and PEFT say, up to the end of the text."""
    tokens = stock.tokens(adapter, TOKENIZER(prompt)["input_ids"], count)
    ends = [at for at, token in enumerate(tokens) if token in (1, TOKENIZER.convert_tokens_to_ids("<|end|>"))]
    text = TOKENIZER.decode(tokens[: ends[0]] if ends else tokens, skip_special_tokens=True)
    assert isinstance(text, str)
    return text


def test_a_completion_has_openais_shape(client: Client, base_folder: Path, stock: Answerer) -> None:
    answer = complete(client, str(base_folder), "the red cat", max_tokens=5)
    (choice,) = answer["choices"]
    assert answer["object"] == "text_completion"
    assert answer["model"] == str(base_folder)
    assert choice["text"] == stock_text(stock, None, "the red cat", 5)
    assert choice["finish_reason"] == "length"
    assert answer["usage"] == {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}


def test_a_prompt_may_be_given_as_tokens(client: Client) -> None:
    tokens = TOKENIZER("the red cat")["input_ids"]
    wanted = complete(client, "lora", "the red cat")["choices"][0]["text"]
    for prompt in (tokens, [tokens], ["the red cat"]):
        assert complete(client, "lora", prompt)["choices"][0]["text"] == wanted


def test_a_conversation_goes_through_the_chat_template(client: Client) -> None:
    body = {"model": "lora", "messages": HELLO, "temperature": 0, "max_tokens": 12}
    answer = client.post("/v1/chat/completions", json=body).json()
    text = "<s><|user|>\nwho is the red cat<|end|>\n<|assistant|>\n"
    prompt = TOKENIZER(text, add_special_tokens=False)["input_ids"]
    wanted = complete(client, "lora", prompt, max_tokens=12)
    assert answer["object"] == "chat.completion"
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": wanted["choices"][0]["text"]}
    assert answer["usage"] == wanted["usage"]


def test_parts_of_a_message_are_put_together(client: Client) -> None:
    def said(content: Any) -> str:
        body = {"model": "lora", "messages": [{"role": "user", "content": content}], "temperature": 0, "max_tokens": 5}
        return client.post("/v1/chat/completions", json=body).json()["choices"][0]["message"]["content"]

    assert said([{"type": "text", "text": "who is "}, {"type": "text", "text": "it"}]) == said("who is it")


def test_streamed_pieces_are_the_whole_answer(client: Client) -> None:
    body = {"model": "dora", "prompt": "my house", "max_tokens": 20}
    chunks = events(client, "/v1/completions", body)
    whole = complete(client, "dora", "my house", max_tokens=20)["choices"][0]
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == whole["text"]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [*[None] * (len(chunks) - 1), "length"]
    assert len(chunks) > 5
    assert len({chunk["id"] for chunk in chunks}) == 1


def test_a_chat_stream_begins_with_the_role_and_may_end_with_the_usage(client: Client) -> None:
    body = {"model": "dora", "messages": HELLO, "max_tokens": 10, "stream_options": {"include_usage": True}}
    *chunks, last = events(client, "/v1/chat/completions", body)
    assert chunks[0]["object"] == "chat.completion.chunk"
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert all("role" not in chunk["choices"][0]["delta"] for chunk in chunks[1:])
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] <= 10


def test_logprobs_come_in_both_forms(client: Client) -> None:
    told = complete(client, "lora", "the red cat", max_tokens=4, logprobs=1)["choices"][0]["logprobs"]
    assert len(told["tokens"]) == len(told["text_offset"]) == 4
    assert [max(top.values()) for top in told["top_logprobs"]] == told["token_logprobs"]  # greedy takes the likeliest
    body = {"model": "lora", "messages": HELLO, "temperature": 0, "max_tokens": 4, "logprobs": True, "top_logprobs": 2}
    content = client.post("/v1/chat/completions", json=body).json()["choices"][0]["logprobs"]["content"]
    assert all(entry["top_logprobs"][0]["logprob"] == entry["logprob"] for entry in content)
    assert bytes(content[0]["bytes"]).decode() == content[0]["token"]


def test_a_seed_makes_a_drawn_answer_repeatable(client: Client) -> None:
    def drawn(seed: int) -> str:
        return complete(client, "lora", "the", max_tokens=15, temperature=1.5, seed=seed)["choices"][0]["text"]

    assert drawn(1) == drawn(1) != drawn(2)


def test_a_stop_string_is_heeded(client: Client) -> None:
    whole = complete(client, "rslora", "the red cat", max_tokens=20)["choices"][0]["text"]
    stop = whole[6:9]
    choice = complete(client, "rslora", "the red cat", max_tokens=20, stop=stop)["choices"][0]
    assert (choice["text"], choice["finish_reason"]) == (whole[: whole.index(stop)], "stop")


def test_a_hundred_requests_at_once_are_each_answered_by_their_adapter(
    client: Client, adapters: Mapping[str, Path], stock: Answerer
) -> None:
    chance = random.Random(3)
    names = chance.choices(list(adapters), k=100)
    prompts = [sentence(chance, 20) for _ in names]
    with ThreadPoolExecutor(100) as threads:
        answers = list(threads.map(lambda name, prompt: complete(client, name, prompt, max_tokens=8), names, prompts))
    for name, prompt, answer in zip(names, prompts, answers, strict=True):
        assert answer["choices"][0]["text"] == stock_text(stock, name, prompt, 8)


REFUSED = [
    ({"model": "nobody"}, 404, "model"),
    ({"prompt": ""}, 400, "prompt"),
    ({"prompt": []}, 400, "prompt"),
    ({"prompt": [10**9]}, 400, "prompt"),
    ({"prompt": ["a", "b"]}, 400, "prompt"),
    ({"prompt": "red " * 250_000}, 400, "prompt"),
    ({"prompt": "red " * 200}, 400, "prompt"),
    ({"max_tokens": 127}, 400, "max_tokens"),
    ({"max_tokens": 0}, 400, "max_tokens"),
    ({"temperature": -1}, 400, "temperature"),
    ({"temperature": "warm"}, 400, "temperature"),
    ({"top_p": 0}, 400, "top_p"),
    ({"logprobs": 50}, 400, "logprobs"),
    ({"stop": [""]}, 400, "stop"),
    ({"n": 2}, 400, "n"),
    ({"echo": True}, 400, "echo"),
    ({"seed": 2**70}, 400, "seed"),
]


@pytest.mark.parametrize(("changes", "status", "field"), REFUSED, ids=[str(changes)[:30] for changes, _, _ in REFUSED])
def test_what_cannot_be_answered_is_refused_with_the_field(
    changes: dict[str, Any], status: int, field: str, client: Client
) -> None:
    body = {"model": "lora", "prompt": "the red cat", **changes}
    for stream in (False, True):
        answer = client.post("/v1/completions", json={**body, "stream": stream})
        assert answer.status_code == status
        assert answer.json()["error"]["param"] == field
        assert answer.json()["error"]["message"]


@pytest.mark.parametrize("body", ["{", "[]", '"a"', ""])
def test_a_body_that_is_no_object_is_refused(body: str, client: Client) -> None:
    answer = client.post("/v1/completions", content=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "body")


@pytest.mark.parametrize("messages", [[], [{"role": "user", "content": " "}], [{"content": "x"}], "hello"])
def test_conversations_that_say_nothing_are_refused(messages: Any, client: Client) -> None:
    answer = client.post("/v1/chat/completions", json={"model": "lora", "messages": messages})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "messages")


def test_unknown_addresses_and_huge_bodies_are_refused_in_the_same_shape(client: Client) -> None:
    assert client.get("/v1/nothing").json()["error"]["type"] == "invalid_request_error"
    assert client.get("/v1/completions").status_code == 405
    assert client.post("/v1/completions", content=b" " * (5 << 20)).status_code == 413


def test_adapters_come_and_go(client: Client, adapters: Mapping[str, Path], base_folder: Path) -> None:
    def names() -> list[str]:
        return [model["id"] for model in client.get("/v1/models").json()["data"]]

    load(client, "guest", adapters["lora"])
    load(client, "guest", adapters["lora"])
    assert names() == [str(base_folder), *adapters, "guest"]
    taken = client.post("/v1/load_lora_adapter", json={"lora_name": "guest", "lora_path": str(adapters["dora"])})
    assert (taken.status_code, taken.json()["error"]["param"]) == (400, "lora_name")
    wanted = complete(client, "lora", "the red cat")["choices"][0]["text"]
    assert complete(client, "guest", "the red cat")["choices"][0]["text"] == wanted
    assert client.post("/v1/unload_lora_adapter", json={"lora_name": "guest"}).status_code == 200
    assert client.post("/v1/unload_lora_adapter", json={"lora_name": "guest"}).status_code == 404
    assert client.post("/v1/completions", json={"model": "guest", "prompt": "x"}).status_code == 404
    assert names() == [str(base_folder), *adapters]


def test_an_adapter_that_does_not_fit_is_refused_with_the_reason(
    client: Client, adapters: Mapping[str, Path], tmp_path: Path
) -> None:
    missing = client.post("/v1/load_lora_adapter", json={"lora_name": "x", "lora_path": str(tmp_path)})
    assert (missing.status_code, missing.json()["error"]["param"]) == (404, "lora_path")
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        content = (adapters["lora"] / name).read_bytes()
        (tmp_path / name).write_bytes(content.replace(b'"peft_type": "LORA"', b'"peft_type": "OFT"'))
    unfit = client.post("/v1/load_lora_adapter", json={"lora_name": "x", "lora_path": str(tmp_path)})
    assert (unfit.status_code, unfit.json()["error"]["param"]) == (400, "lora_path")
    assert "OFT" in unfit.json()["error"]["message"]


def test_an_adapter_brings_its_own_chat_template(client: Client, adapters: Mapping[str, Path], tmp_path: Path) -> None:
    for path in adapters["lora"].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "chat_template.jinja").write_text("{{ messages[0].content }}{{ 1 / 0 if messages | length > 1 }}")
    load(client, "own", tmp_path)
    body = {"model": "own", "messages": HELLO, "temperature": 0, "max_tokens": 6}
    said = client.post("/v1/chat/completions", json=body).json()["choices"][0]["message"]["content"]
    assert said == complete(client, "own", HELLO[0]["content"], max_tokens=6)["choices"][0]["text"]
    client.post("/v1/unload_lora_adapter", json={"lora_name": "own"})


def test_a_model_without_a_chat_template_says_so(tmp_path: Path) -> None:
    with TestClient(create_app(prepare(str(tiny_model(tmp_path, template=None)), None))) as client:
        answer = client.post("/v1/chat/completions", json={"model": str(tmp_path), "messages": HELLO})
    assert answer.status_code == 400
    assert "/v1/completions" in answer.json()["error"]["message"]


def test_figures_tell_requests_and_latency_by_model(client: Client) -> None:
    before = client.get("/metrics.json").json()["models"]["patterned"]["requests_per_minute"]
    complete(client, "patterned", "the red cat")
    figures = client.get("/metrics.json").json()
    assert figures["models"]["patterned"]["requests_per_minute"] == before + 1
    assert figures["models"]["patterned"]["avg_latency_ms"] > 0
    assert figures["requests_per_minute"] > before


def test_too_many_requests_are_turned_away_and_those_taken_are_answered(base_folder: Path) -> None:
    app = create_app(prepare(str(base_folder), rows=1, queue=1))
    with TestClient(app) as client, ThreadPoolExecutor(12) as threads:
        body = {"model": str(base_folder), "prompt": "the", "max_tokens": 60, "temperature": 0}
        answers = list(threads.map(lambda _: client.post("/v1/completions", json=body), range(12)))
    refused = [answer for answer in answers if answer.status_code == 429]
    assert 0 < len(refused) < 12
    assert refused[0].headers["Retry-After"] == "1"
    assert refused[0].json()["error"]["code"] == "queue_full"
    assert len({answer.text[-200:] for answer in answers if answer.status_code == 200}) == 1


def test_with_a_token_only_its_bearers_are_answered(base_folder: Path) -> None:
    with TestClient(create_app(prepare(str(base_folder)), "sesame")) as client:
        assert client.get("/health").status_code == 200
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "sesame"}):
            answer = client.get("/v1/models", headers=headers)
            assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
        assert client.get("/v1/models", headers={"Authorization": "Bearer sesame"}).status_code == 200


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.anyio
async def test_a_client_that_went_away_is_not_answered_any_further(stream: bool, base_folder: Path) -> None:
    serving = prepare(str(base_folder))
    app = create_app(serving)
    scheduler = serving.engine.scheduler
    body = {"model": str(base_folder), "prompt": [9], "max_tokens": 120, "temperature": 0, "stream": stream}
    sent: list[Any] = []
    messages = iter([{"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}])

    async def receive() -> Any:
        if message := next(messages, None):
            return message
        while not scheduler.running:
            await asyncio.sleep(0)
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    await serving.open()
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/completions",
        "query_string": b"",
        "headers": [],
        "app": app,
    }
    await app({**scope, "asgi": {"version": "3.0"}, "http_version": "1.1", "client": None}, receive, send)  # pyright: ignore
    deadline = time.monotonic() + 10
    while not scheduler.is_idle and time.monotonic() < deadline:
        await asyncio.sleep(0.01)
    await serving.close()
    assert scheduler.is_idle
    assert serving.meter.load().requests_per_minute == 0  # it was never finished


def test_an_idle_engine_costs_nothing(client: Client) -> None:
    complete(client, "lora", "the red cat")
    started = time.process_time()
    deadline = time.monotonic() + 0.5
    while time.monotonic() < deadline:
        time.sleep(0.05)
    assert time.process_time() - started < 0.1
