"""Base models: what their files say, and what is said where they cannot be trained."""

import hashlib
import json
import os
import shutil
import struct
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from peft_studio.base_models import Hub, check_names, inspect_model
from peft_studio.config import ModelSource, TrainingConfig
from peft_studio.errors import InvalidConfig, ResourceUnavailable
from peft_studio.model_files import read_shapes
from peft_studio.model_shapes import linear_modules
from peft_studio.plan import ModelFacts
from tests.model_folders import PARAMETERS, SHAPES, split_weights, write_model, write_weights

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model")


def look(folder: Path, revision: str | None = None) -> ModelFacts:
    return inspect_model(str(folder), ModelSource.LOCAL, revision)


def refusal(name: str, field: str = "base_model", **arguments: Any) -> str:
    with pytest.raises(InvalidConfig) as caught:
        inspect_model(name, **arguments)
    assert caught.value.details["field"] == field
    assert field in caught.value.message
    return caught.value.message


def test_a_folder_tells_what_model_it_holds(model: Path) -> None:
    facts = look(model)
    assert (facts.id, facts.path) == (str(model), str(model))
    assert facts.architecture == "LlamaForCausalLM"
    assert facts.parameters == PARAMETERS
    assert facts.linear_modules == ["q_proj", "v_proj", "down_proj"]
    assert facts.context_length == 128
    assert facts.has_chat_template
    assert facts.license == "apache-2.0"


def test_a_folder_is_found_without_saying_that_it_is_local(model: Path) -> None:
    assert inspect_model(str(model)) == look(model)


def test_a_model_in_several_files_is_counted_whole(model: Path) -> None:
    whole = look(model)
    split_weights(model)
    assert look(model).model_dump(exclude={"revision"}) == whole.model_dump(exclude={"revision"})


@pytest.mark.parametrize(
    ("shapes", "modules"),
    [
        (
            ["transformer.wte", "transformer.wpe", "transformer.h.0.attn.c_attn", "transformer.h.0.mlp.c_fc"],
            "c_attn c_fc",
        ),
        (["gpt_neox.embed_in", "gpt_neox.layers.0.attention.query_key_value", "embed_out"], "query_key_value"),
        (["word_embeddings", "h.0.mlp.dense_h_to_4h", "score"], "dense_h_to_4h"),
        (["layers.0.moe.gate", "layers.0.moe.experts.7.w1", "layers.0.moe.shared_expert_gate"], "shared_expert_gate"),
        (["shared", "decoder.block.0.layer.0.SelfAttention.relative_attention_bias", "decoder.block.0.q"], "q"),
    ],
)
def test_linear_layers_are_told_from_embeddings_and_heads(shapes: list[str], modules: str) -> None:
    assert linear_modules({f"{name}.weight": [4, 4] for name in shapes}) == modules.split()


@pytest.mark.parametrize(
    ("config", "length"),
    [
        ({"n_positions": 64, "max_position_embeddings": None}, 64),
        ({"max_position_embeddings": None, "text_config": {"max_position_embeddings": 32}}, 32),
        ({"max_position_embeddings": None}, None),
    ],
)
def test_the_context_length_is_found_under_its_names(
    tmp_path: Path, config: dict[str, Any], length: int | None
) -> None:
    assert look(write_model(tmp_path, **config)).context_length == length


@pytest.mark.parametrize("file", ["chat_template.jinja", "chat_template.json"])
def test_a_chat_template_may_be_a_file_of_its_own(model: Path, file: str) -> None:
    (model / "tokenizer_config.json").write_text("{}")
    assert not look(model).has_chat_template
    (model / file).write_text("{{ messages }}")
    assert look(model).has_chat_template


@pytest.mark.parametrize(
    "card", ["", "no front matter", "---\n: [\n---\n", "---\nlicense: [a, b]\n---\n", "---\n- a\n---"]
)
def test_a_card_without_a_licence_is_no_obstacle(model: Path, card: str) -> None:
    (model / "README.md").write_text(card)
    assert look(model).license is None


def test_the_revision_of_a_folder_follows_its_content(model: Path, tmp_path: Path) -> None:
    first = look(model).revision
    assert look(write_model(tmp_path / "copy")).revision == first
    (model / "README.md").write_text("another card")
    assert look(model).revision == first
    write_weights(model / "model.safetensors", SHAPES, fill=1)
    second = look(model).revision
    (model / "tokenizer.json").write_text('{"a": 1}')
    third = look(model).revision
    write_model(model, rope_theta=5)
    assert len({first, second, third, look(model).revision}) == 4


def test_a_large_file_is_told_by_its_header_size_and_time(model: Path) -> None:
    shapes = {"model.layers.0.q_proj.weight": [4096, 5000]}
    write_weights(model / "model.safetensors", shapes)
    first = look(model).revision
    assert look(model).revision == first
    os.utime(model / "model.safetensors", (1, 1))
    assert look(model).revision != first


def test_a_folder_can_be_held_to_its_revision(model: Path) -> None:
    revision = look(model).revision
    assert look(model, revision).revision == revision
    assert "not 'main'" in refusal(str(model), "model_revision", revision="main")


def test_a_folder_that_lacks_something_is_refused_with_the_reason(model: Path) -> None:
    (model / "tokenizer.json").unlink()
    assert "no tokenizer" in refusal(str(model))
    (model / "model.safetensors").unlink()
    assert "no safetensors weights" in refusal(str(model))
    (model / "pytorch_model.bin").write_bytes(b"x")
    assert "can run code when they are loaded" in refusal(str(model))
    (model / "config.json").unlink()
    assert "no config.json" in refusal(str(model))
    (model / "adapter_config.json").write_text("{}")
    assert "is an adapter" in refusal(str(model))


def test_a_missing_shard_is_named(model: Path) -> None:
    split_weights(model)
    (model / "two.safetensors").unlink()
    assert "lacks 'two.safetensors'" in refusal(str(model))


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"architectures": ["BertForMaskedLM"]}, "does not write text"),
        ({"architectures": None, "model_type": None}, "names no architecture"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantized already"),
    ],
)
def test_a_model_that_cannot_be_trained_is_refused(tmp_path: Path, config: dict[str, Any], said: str) -> None:
    assert said in refusal(str(write_model(tmp_path, **config)))


def test_a_configuration_that_is_no_object_is_refused(model: Path) -> None:
    (model / "config.json").write_text("[]")
    assert "not a JSON object" in refusal(str(model))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x05",
        struct.pack("<Q", 1 << 62) + b"{}",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 9) + b'{"a": {}}',
    ],
)
def test_a_file_that_is_no_safetensors_file_is_refused(model: Path, content: bytes) -> None:
    (model / "model.safetensors").write_bytes(content)
    assert "is not a safetensors file" in refusal(str(model))


def test_weights_that_were_cut_off_are_refused(model: Path) -> None:
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    assert "fetch it again" in refusal(str(model))


def test_weights_without_linear_layers_are_refused(model: Path) -> None:
    write_weights(model / "model.safetensors", {"model.embed_tokens.weight": [4, 4], "norm.weight": [4]})
    assert "no linear layers" in refusal(str(model))


def test_shapes_are_read_from_the_header(model: Path) -> None:
    assert read_shapes(model / "model.safetensors") == SHAPES


def test_what_is_no_model_folder_is_refused(model: Path) -> None:
    assert "is a file" in refusal(str(model / "config.json"))
    assert "there is no folder" in refusal("/nowhere", source=ModelSource.LOCAL)
    assert "neither a folder here nor" in refusal("/nowhere", hub=Hub("http://127.0.0.1:9"))
    assert "neither a folder here nor" in refusal("a/b/c", hub=Hub("http://127.0.0.1:9"))
    assert "neither a folder here nor" in refusal("a\0b", hub=Hub("http://127.0.0.1:9"))


@pytest.mark.parametrize("source", [ModelSource.CIVITAI, ModelSource.OLLAMA])
def test_sources_without_trainable_weights_are_refused(source: ModelSource) -> None:
    assert "Hugging Face layout" in refusal("llama3.2:3b", "model_source", source=source)


def test_named_modules_must_be_there(model: Path) -> None:
    def check(*names: str) -> None:
        check_names(TrainingConfig(base_model="m", dataset_path="d", target_modules=list(names)), look(model))

    check("q_proj", "self_attn.v_proj")
    check_names(TrainingConfig(base_model="m", dataset_path="d"), look(model))
    with pytest.raises(InvalidConfig) as caught:
        check("q_proj", "query", "lm_head")
    assert caught.value.details["field"] == "target_modules"
    assert "no linear layer 'query', 'lm_head'; it has q_proj, v_proj, down_proj" in caught.value.message
    with pytest.raises(InvalidConfig) as caught:
        check(*(f"layer{number}" for number in range(10_000)), "layer0")
    assert "'layer3', 'layer4' and 9995 more; it has q_proj" in caught.value.message


class ModelHub(ThreadingHTTPServer):
    """A hub on loopback that serves the folders below ``root``, and notes what it was asked."""

    def __init__(self, root: Path):
        super().__init__(("127.0.0.1", 0), _Answers)
        self.root = root
        self.asked: list[str] = []
        self.tokens: set[str | None] = set()
        self.broken = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Answers(BaseHTTPRequestHandler):
    server: ModelHub

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.server.asked.append(f"{self.command} {self.path}")
        self.server.tokens.add(self.headers.get("authorization"))
        path = self.path.partition("?")[0].removeprefix("/api/models").strip("/")
        owner, name, *rest = path.split("/")
        folder = self.server.root / owner / name
        if self.server.broken:
            self.answer(503, b"{}")
        elif not folder.is_dir():
            self.answer(401, b'{"error": "Repository not found"}', "RepoNotFound")
        elif owner == "gated":
            self.answer(403, b'{"error": "Access is restricted"}', "GatedRepo")
        elif rest[:1] == ["revision"] and rest[1] not in ("main", COMMIT):
            self.answer(404, b'{"error": "Invalid rev id"}', "RevisionNotFound")
        elif rest[:1] == ["resolve"]:
            self.file(folder / rest[2])
        else:
            siblings = [{"rfilename": file.name} for file in folder.iterdir()]
            about = {"id": f"{owner}/{name}", "sha": COMMIT, "siblings": siblings, "cardData": {"license": "mit"}}
            self.answer(200, json.dumps(about).encode())

    def file(self, path: Path) -> None:
        if not path.is_file():
            self.answer(404, b"", "EntryNotFound")
            return
        content = path.read_bytes()
        if wanted := self.headers.get("range"):
            start, _, stop = wanted.removeprefix("bytes=").partition("-")
            content = content[int(start) : int(stop) + 1]
        self.answer(206 if wanted else 200, content)

    def answer(self, status: int, content: bytes, error: str = "") -> None:
        self.send_response(status)
        self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        if error:
            self.send_header("X-Error-Code", error)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


@pytest.fixture
def model_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelHub]:
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
    server = ModelHub(tmp_path / "hub")
    Thread(target=server.serve_forever, args=[0.02], daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def hub(model_hub: ModelHub, tmp_path: Path) -> Hub:
    return Hub(model_hub.url, str(tmp_path / "cache"), timeout_seconds=5)


def in_cache(hub: Hub, name: str, model: Path) -> Path:
    """Lay a model into the hub's cache as a whole download would have left it."""
    store = Path(str(hub.cache_dir)) / f"models--{name.replace('/', '--')}"
    shutil.copytree(model, store / "snapshots" / COMMIT)
    (store / "refs").mkdir()
    (store / "refs" / "main").write_text(COMMIT)
    return store / "snapshots" / COMMIT


@pytest.mark.parametrize("shards", [1, 2])
def test_a_hub_model_is_told_from_its_headers(model_hub: ModelHub, hub: Hub, shards: int) -> None:
    folder = write_model(model_hub.root / "org" / "m")
    if shards > 1:
        split_weights(folder)
    facts = inspect_model("org/m", hub=hub)
    assert (facts.id, facts.revision, facts.path) == ("org/m", COMMIT, None)
    assert (facts.architecture, facts.parameters) == ("LlamaForCausalLM", PARAMETERS)
    assert sorted(facts.linear_modules) == ["down_proj", "q_proj", "v_proj"]
    assert (facts.context_length, facts.has_chat_template, facts.license) == (128, True, "mit")


def test_a_commit_is_read_only_once(model_hub: ModelHub, hub: Hub) -> None:
    write_model(model_hub.root / "org" / "m")
    first = inspect_model("org/m", hub=hub)
    model_hub.asked.clear()
    assert inspect_model("org/m", revision="main", hub=hub) == first
    assert model_hub.asked == ["GET /api/models/org/m/revision/main"]


def test_the_hub_and_the_token_come_from_the_environment(
    model_hub: ModelHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_model(model_hub.root / "org" / "m")
    monkeypatch.setenv("HF_ENDPOINT", model_hub.url)
    monkeypatch.setenv("HF_TOKEN", "hf_of_the_operator")
    inspect_model("org/m", hub=Hub(cache_dir=str(tmp_path / "cache")))
    assert model_hub.tokens == {"Bearer hf_of_the_operator"}


def test_a_hub_model_that_is_not_there_is_refused(model_hub: ModelHub, hub: Hub) -> None:
    assert "no model of that name" in refusal("org/missing", hub=hub)


def test_a_gated_model_is_refused_with_the_way_in(model_hub: ModelHub, hub: Hub) -> None:
    write_model(model_hub.root / "gated" / "m")
    said = refusal("gated/m", hub=hub)
    assert f"{model_hub.url}/gated/m" in said
    assert "HF_TOKEN" in said


def test_a_revision_that_is_not_there_is_refused(model_hub: ModelHub, hub: Hub) -> None:
    write_model(model_hub.root / "org" / "m")
    assert "no revision 'v9'" in refusal("org/m", "model_revision", revision="v9", hub=hub)
    assert "no commit, tag or branch" in refusal("org/m", "model_revision", revision="../x", hub=hub)


@pytest.mark.parametrize(
    ("without", "having", "said"),
    [
        ("config.json", (), "no config.json"),
        ("config.json", ("adapter_config.json",), "is an adapter"),
        ("tokenizer.json", (), "no tokenizer"),
        ("model.safetensors", (), "no safetensors weights"),
        ("model.safetensors", ("pytorch_model.bin",), "can run code"),
    ],
)
def test_a_hub_model_that_lacks_something_is_refused_with_the_reason(
    model_hub: ModelHub, hub: Hub, without: str, having: tuple[str, ...], said: str
) -> None:
    folder = write_model(model_hub.root / "org" / "m")
    (folder / without).unlink()
    for file in having:
        (folder / file).write_text("{}")
    assert said in refusal("org/m", hub=hub)


def test_broken_weights_on_a_hub_are_refused(model_hub: ModelHub, hub: Hub) -> None:
    folder = write_model(model_hub.root / "org" / "m")
    (folder / "model.safetensors").write_bytes(b"not safetensors at all")
    assert "cannot be read" in refusal("org/m", hub=hub)


def test_a_model_that_is_whole_in_the_cache_is_read_there(model_hub: ModelHub, hub: Hub, model: Path) -> None:
    write_model(model_hub.root / "org" / "m")
    folder = in_cache(hub, "org/m", model)
    facts = inspect_model("org/m", hub=hub)
    assert (facts.revision, facts.path) == (COMMIT, str(folder))
    assert model_hub.asked == ["GET /api/models/org/m"]


@pytest.mark.parametrize("revision", [None, "main", COMMIT])
def test_the_cache_serves_while_the_hub_is_down(
    model_hub: ModelHub, hub: Hub, model: Path, revision: str | None
) -> None:
    folder = in_cache(hub, "org/m", model)
    model_hub.broken = True
    facts = inspect_model("org/m", revision=revision, hub=hub)
    assert (facts.id, facts.revision, facts.path) == ("org/m", COMMIT, str(folder))
    unreachable = Hub("http://127.0.0.1:9", hub.cache_dir)
    assert inspect_model("org/m", revision=revision, hub=unreachable) == facts


def test_half_a_model_in_the_cache_does_not_serve(model_hub: ModelHub, hub: Hub, model: Path) -> None:
    (in_cache(hub, "org/m", model) / "model.safetensors").unlink()
    model_hub.broken = True
    with pytest.raises(ResourceUnavailable, match="it answered 503"):
        inspect_model("org/m", hub=hub)


def test_a_hub_that_cannot_be_reached_is_said_to_be(tmp_path: Path) -> None:
    with pytest.raises(ResourceUnavailable, match=r"127\.0\.0\.1:9 cannot be reached \(ConnectError\)"):
        inspect_model("org/m", hub=Hub("http://127.0.0.1:9", str(tmp_path)))
