"""Base models over HTTP: searched on all sources at once, looked at one by one; the sources lie on loopback."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from infra.simulators.accounts import GOOD
from infra.simulators.exchange import Reply
from infra.simulators.loopback import served
from infra.simulators.sources import COMMIT, Repositories, Trouble, create_civitai, create_hub, create_ollama
from tests.integration.api.fixtures import Client, Connect
from tests.model_folders import PARAMETERS, write_model

OPEN, GATED, PRIVATE, MASKED = "org/realistic-llama", "org/gated-llama", "org/private-llama", "org/masked"
BUSY = Reply({"error": "slow down"}, 429, {"Retry-After": "30"})


@dataclass
class Sources:
    """The sources, and what goes wrong with them."""

    urls: dict[str, str] = field(default_factory=dict[str, str])
    huggingface: Trouble = field(default_factory=Trouble)
    civitai: Trouble = field(default_factory=Trouble)
    ollama: Trouble = field(default_factory=Trouble)


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sources]:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    folders = {name: write_model(tmp_path / "hub" / name) for name in (OPEN, GATED, PRIVATE, "gpt2")}
    folders[MASKED] = write_model(tmp_path / "hub" / MASKED, architectures=["BertForMaskedLM"])
    hub = Repositories(folders, gated=frozenset([GATED]), private=frozenset([PRIVATE]))
    there = Sources()
    with (
        served(create_hub(hub, there.huggingface)) as huggingface,
        served(create_civitai(there.civitai)) as civitai,
        served(create_ollama(there.ollama)) as ollama,
    ):
        there.urls = {"huggingface": huggingface, "civitai": civitai, "ollama": ollama}
        yield there


@pytest.fixture
def client(connect: Connect, sources: Sources, tmp_path: Path) -> Client:
    write_model(tmp_path / "data" / "models" / "realistic-one")
    return connect(platform_urls=sources.urls, model_search_seconds=2)


def search(client: Client, query: str = "realistic", **more: Any) -> Any:
    return client.get("/api/v1/models/search", params={"q": query, **more})


def ids(answer: Any) -> list[str]:
    return [model["id"] for model in answer.json()["models"]]


def missing(answer: Any) -> list[str]:
    return [source["source"] for source in answer.json()["unavailable_sources"]]


def look(client: Client, source: str, model_id: str, **more: Any) -> Any:
    return client.get(f"/api/v1/models/{source}/{model_id}", params=more)


def test_all_sources_are_searched_at_once(client: Client) -> None:
    answer = search(client)
    assert ids(answer) == ["realistic-one", OPEN, "4201"]
    assert {model["source"] for model in answer.json()["models"]} == {"local", "huggingface", "civitai"}
    assert answer.json() | {"models": []} == {
        "models": [],
        "total": 3,
        "page": 1,
        "next_cursor": None,
        "unavailable_sources": [],
    }


@pytest.mark.parametrize(
    ("source", "query", "expected"),
    [
        ("huggingface", "llama", [OPEN, GATED]),
        ("huggingface", "", [OPEN, GATED, "gpt2", MASKED]),
        ("civitai", "vision", ["4201"]),
        ("ollama", "LLAMA", ["llama3.2:3b"]),
        ("local", "model", ["demo/model"]),
        ("local", "realistic one", ["realistic-one"]),
        ("huggingface", "no such thing ☃", []),
    ],
)
def test_one_source_is_searched(client: Client, source: str, query: str, expected: list[str]) -> None:
    assert ids(search(client, query, source=source)) == expected


def test_what_was_found_is_told(client: Client) -> None:
    (found,) = search(client, "realistic-llama", source="huggingface").json()["models"]
    assert found == {
        "id": OPEN,
        "name": "realistic-llama",
        "source": "huggingface",
        "size_gb": 4 * PARAMETERS / 1e9,
        "license": "apache-2.0",
        "downloads": 1000,
        "tags": ["text-generation"],
        "gated": False,
    }
    (found,) = search(client, source="civitai").json()["models"]
    assert (found["name"], found["size_gb"], found["downloads"]) == ("Realistic Vision", 2.097, 120)
    assert found["tags"] == ["Checkpoint", "SDXL 1.0", "photo"]


def test_pages_follow_one_another_without_gaps(client: Client) -> None:
    whole, found, cursor = ids(search(client, "", limit=100)), list[str](), None
    while len(found) == 0 or cursor:
        page = search(client, "", limit=2, **({"cursor": cursor} if cursor else {}))
        found += ids(page)
        cursor = page.json()["next_cursor"]
    assert found == whole
    assert len(whole) == 8


@pytest.mark.parametrize(
    "trouble", [Reply({}, 500), Reply({}, 403), Reply(b"<html>"), Reply([1]), Reply({"items": 3}), BUSY]
)
def test_a_source_that_fails_keeps_no_other_from_answering(client: Client, sources: Sources, trouble: Reply) -> None:
    sources.civitai.reply = trouble
    answer = search(client)
    assert answer.status_code == 200
    assert ids(answer) == ["realistic-one", OPEN]
    assert missing(answer) == ["civitai"]


@pytest.mark.parametrize(
    "trouble", [Reply({}, 500), Reply({}, 401), Reply(b"<html>"), Reply({"id": 1}), Reply([[]]), BUSY]
)
def test_a_hub_that_fails_keeps_no_other_from_answering(client: Client, sources: Sources, trouble: Reply) -> None:
    sources.huggingface.reply = trouble
    answer = search(client)
    assert answer.status_code == 200
    assert "4201" in ids(answer)
    assert OPEN not in ids(answer)


def test_sources_that_are_away_are_named(connect: Connect) -> None:
    nowhere = dict.fromkeys(["huggingface", "civitai", "ollama"], "http://127.0.0.1:9")
    answer = search(connect(platform_urls=nowhere), "model")
    assert ids(answer) == ["demo/model"]
    assert sorted(missing(answer)) == ["civitai", "huggingface", "ollama"]


def test_a_source_that_hangs_delays_the_answer_by_its_time_out_alone(connect: Connect, sources: Sources) -> None:
    client = connect(platform_urls=sources.urls, model_search_seconds=0.5)
    sources.civitai.silent_seconds = 30
    began = time.perf_counter()
    answer = search(client)
    assert time.perf_counter() - began < 2.5  # generous: the machine may be busy
    assert OPEN in ids(answer)
    assert missing(answer) == ["civitai"]


def test_a_repeated_search_asks_nobody(client: Client, sources: Sources) -> None:
    first = search(client)
    asked = [len(sources.huggingface.asked), len(sources.civitai.asked), len(sources.ollama.asked)]
    sources.huggingface.silent_seconds = 30
    assert search(client).json() == first.json()
    assert [len(sources.huggingface.asked), len(sources.civitai.asked), len(sources.ollama.asked)] == asked


def test_a_source_that_asks_to_wait_is_left_alone(client: Client, sources: Sources) -> None:
    sources.huggingface.reply = BUSY
    answer = search(client, "one", source="huggingface")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "RESOURCE_UNAVAILABLE")
    assert answer.headers["Retry-After"] == "30"
    asked = len(sources.huggingface.asked)
    sources.huggingface.reply = None
    assert search(client, "another", source="huggingface").status_code == 503
    assert len(sources.huggingface.asked) == asked


@pytest.mark.parametrize("source", ["huggingface", "civitai", "ollama"])
def test_the_only_source_that_was_asked_says_that_it_is_away(connect: Connect, source: str) -> None:
    client = connect(platform_urls={source: "http://127.0.0.1:9"})
    for answer in (search(client, source=source), look(client, source, "4201")):
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "RESOURCE_UNAVAILABLE")


@pytest.mark.parametrize(("source", "model_id"), [("huggingface", OPEN), ("local", "realistic-one")])
def test_a_model_that_can_be_trained_is_shown_with_what_that_takes(client: Client, source: str, model_id: str) -> None:
    model = look(client, source, model_id).json()
    assert (model["id"], model["source"], model["architecture"]) == (model_id, source, "LlamaForCausalLM")
    assert (model["parameters"], model["context_length"], model["has_chat_template"]) == (PARAMETERS, 128, True)
    assert (model["license"], model["gated"], model["not_trainable"]) == ("apache-2.0", False, None)
    assert {"lora", "qlora", "dora"} <= set(model["compatible_algorithms"])
    assert model["target_modules"] == ["q_proj", "v_proj", "down_proj"]
    assert model["revision"]


def test_algorithms_that_do_not_go_on_an_architecture_are_not_offered_for_it(client: Client, tmp_path: Path) -> None:
    write_model(tmp_path / "data" / "models" / "gpt", architectures=["GPT2LMHeadModel"])
    offered = look(client, "local", "gpt").json()["compatible_algorithms"]
    assert "lora" in offered and "oft" not in offered
    assert "oft" in look(client, "local", "realistic-one").json()["compatible_algorithms"]


def test_the_demonstrations_model_tells_its_memory(client: Client) -> None:
    model = look(client, "local", "demo/model").json()
    needs = model["hardware_requirements"]
    assert needs["min_vram_gb"] <= needs["recommended_vram_gb"]
    ways = {(way["algorithm"], way["quantization"]) for way in needs["vram"]}
    assert {("lora", "none"), ("qlora", "int4"), ("dora", "int8")} <= ways
    assert ("qlora", "none") not in ways and ("loha", "int4") not in ways
    assert {algorithm for algorithm, _ in ways} == set(model["compatible_algorithms"])
    assert all(way["min_gb"] <= way["recommended_gb"] for way in needs["vram"])


@pytest.mark.parametrize("revision", ["main", COMMIT])
def test_a_revision_is_pinned_to_its_commit(client: Client, revision: str) -> None:
    assert look(client, "huggingface", OPEN, revision=revision).json()["revision"] == COMMIT


def test_an_id_without_an_owner_is_an_id(client: Client) -> None:
    assert look(client, "huggingface", "gpt2").json()["id"] == "gpt2"


def test_gated_models_are_told_from_missing_ones(client: Client) -> None:
    gated = look(client, "huggingface", GATED).json()
    assert gated["gated"] is True
    assert gated["compatible_algorithms"] == []
    assert "is gated: accept its conditions" in gated["not_trainable"]
    assert (gated["architecture"], gated["parameters"]) == ("LlamaForCausalLM", PARAMETERS)
    for name in ("org/missing", PRIVATE):
        answer = look(client, "huggingface", name)
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "NOT_FOUND")
        assert answer.json()["error"]["details"]["field"] == "model_id"


def test_a_connected_account_sees_what_it_may(client: Client, sources: Sources) -> None:
    assert PRIVATE not in ids(search(client, "private", source="huggingface"))
    connected = client.post("/api/v1/platforms/huggingface/connect", json={"credentials": {"api_key": GOOD}})
    assert connected.status_code == 200
    assert PRIVATE in ids(search(client, "private-llama", source="huggingface"))
    for name in (PRIVATE, GATED):
        assert look(client, "huggingface", name).json()["target_modules"] == ["q_proj", "v_proj", "down_proj"]
    assert sources.huggingface.tokens == {"", GOOD}


@pytest.mark.parametrize(
    ("source", "model_id", "reason"),
    [
        ("civitai", "4201", "image models"),
        ("ollama", "llama3.2:3b", "quantized GGUF"),
        ("huggingface", MASKED, "does not write text"),
    ],
)
def test_a_model_that_cannot_be_trained_says_why(client: Client, source: str, model_id: str, reason: str) -> None:
    model = look(client, source, model_id).json()
    assert model["id"] == model_id
    assert model["compatible_algorithms"] == [] and model["hardware_requirements"] is None
    assert reason in model["not_trainable"]


def test_what_ollama_and_civitai_know_is_shown(client: Client) -> None:
    model = look(client, "ollama", "llama3.2:3b").json()
    assert (model["architecture"], model["context_length"], model["parameters"]) == ("llama", 131072, 3212749888)
    assert (model["license"], model["has_chat_template"]) == ("LLAMA 3.2 COMMUNITY LICENSE AGREEMENT", True)
    assert (model["size_gb"], model["tags"]) == (2.019, ["llama", "3.2B", "Q4_K_M"])
    model = look(client, "civitai", "4201").json()
    assert (model["description"], model["architecture"]) == ("Photos & more.", "SDXL 1.0")


@pytest.mark.parametrize("source", ["local", "huggingface", "civitai", "ollama"])
def test_what_is_no_model_is_not_found(client: Client, source: str) -> None:
    outside = [
        "..%2f..%2fetc%2fpasswd",
        "..%2Frealistic-one",
        "realistic-one%2f..%2frealistic-one",
        "%2Fetc",
        "demo/..",
    ]
    odd = ["realistic-one%2Fconfig.json", "%00", "realistic-one%00", "a%5c..%5cb", "x" * 5000, "%E2%98%83", "a/b/c/d"]
    for model_id in (*outside, *odd, "demo", "search", "missing/search"):
        answer = client.get(f"/api/v1/models/{source}/{model_id}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "NOT_FOUND"), model_id
        assert "root:" not in answer.text
        assert len(answer.content) < 2000


@pytest.mark.parametrize("path", ["/models/nowhere/org/model", "/models/search/llama", "/models/%E2%98%83/x"])
def test_an_unknown_source_is_not_found(client: Client, path: str) -> None:
    answer = client.get(f"/api/v1{path}")
    assert (answer.status_code, answer.json()["error"]["details"]["field"]) == (404, "source")


@pytest.mark.parametrize("revision", ["nope", "../main", "a b", "x" * 150])
@pytest.mark.parametrize(
    ("source", "model_id"), [("huggingface", OPEN), ("local", "realistic-one"), ("civitai", "4201")]
)
def test_an_unknown_revision_is_not_found(client: Client, source: str, model_id: str, revision: str) -> None:
    assert look(client, source, model_id, revision=revision).status_code == 404


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=many", "limit"),
        ("source=nowhere", "source"),
        ("cursor=1", "cursor"),
        ("cursor=11", "cursor"),
        ("cursor=x", "cursor"),
        ("q=" + "x" * 201, "q"),
    ],
)
def test_a_search_that_cannot_be_is_refused_by_field(client: Client, query: str, field: str) -> None:
    answer = client.get(f"/api/v1/models/search?{query}")
    assert (answer.status_code, answer.json()["error"]["details"]["field"]) == (400, field)


def test_broken_folders_are_no_obstacle(client: Client, tmp_path: Path) -> None:
    broken = tmp_path / "data" / "models" / "broken"
    broken.mkdir()
    (broken / "config.json").write_text(json.dumps({"architectures": "?"}))
    assert "broken" in ids(search(client, "broken", source="local"))
    model = look(client, "local", "broken").json()
    assert model["compatible_algorithms"] == [] and model["not_trainable"]
