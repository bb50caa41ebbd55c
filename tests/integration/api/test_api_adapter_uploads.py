"""Adapters that users bring, over HTTP: checked before they are there, whole or not at all."""

import hashlib
import io
import json
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest

from peft_studio.adapter_files import WEIGHTS
from peft_studio.algorithm_table import METHODS
from tests.adapter_files import PREFIX, header_of, packed, shapes, weights
from tests.integration.api.fixtures import Client, Connect
from tests.integration.api.machines import made
from tests.integration.api.studio_in_memory import JobsInMemory
from tests.model_folders import write_model

BASE = "org/model"


def upload(client: Client, content: bytes | None = None, config: Any = None, key: str | None = None, **metadata: Any):
    files: dict[str, Any] = {"file": ("adapter.safetensors", weights() if content is None else content)}
    if config is not None:
        files["config"] = ("adapter_config.json", config if isinstance(config, bytes) else json.dumps(config).encode())
    given = {"base_model": BASE, **metadata}
    headers = {"Idempotency-Key": key} if key else {}
    return client.post("/api/v1/adapters/upload", files=files, data={"metadata": json.dumps(given)}, headers=headers)


def uploaded(client: Client, **metadata: Any) -> str:
    answer = upload(client, **metadata)
    assert answer.status_code == 201, answer.text
    return answer.json()["adapter_id"]


def refused(answer: Any, status: int = 400) -> tuple[str, str]:
    """Which field is wrong, and why."""
    assert answer.status_code == status, answer.text
    details = answer.json()["error"]["details"]
    return details["field"], details.get("issue", "")


def folder_of(tmp_path: Path, adapter_id: str) -> Path:
    return tmp_path / "data" / "adapters" / adapter_id


def stored(tmp_path: Path) -> list[str]:
    """What lies in the store, hidden things too."""
    home = tmp_path / "data" / "adapters"
    return sorted(os.listdir(home)) if home.exists() else []


def test_an_uploaded_adapter_is_a_folder_that_peft_understands(client: Client, tmp_path: Path) -> None:
    answer = upload(client, name="mine", alpha=4, model_revision="abc")
    adapter_id = answer.json()["adapter_id"]
    assert answer.json() == {
        "adapter_id": adapter_id,
        "registry_url": f"http://testserver.local/api/v1/adapters/{adapter_id}/download",
        "success": True,
    }
    assert stored(tmp_path) == [adapter_id]
    folder = folder_of(tmp_path, adapter_id)
    assert (folder / WEIGHTS).read_bytes() == weights()
    config = json.loads((folder / "adapter_config.json").read_bytes())
    layers = [f"model.layers.{n}.self_attn.{name}" for n in range(2) for name in ("q_proj", "v_proj")]
    assert (config["r"], config["lora_alpha"], config["use_dora"]) == (2, 4, False)
    assert (config["target_modules"], config["base_model_name_or_path"], config["revision"]) == (layers, BASE, "abc")
    adapter = client.get(f"/api/v1/adapters/{adapter_id}").json()
    assert adapter["metadata"] == {"rank": 2, "alpha": 4.0, "target_modules": ["q_proj", "v_proj"]}
    assert (adapter["job_id"], adapter["name"], adapter["algorithm"]) == (None, "mine", "lora")
    assert (adapter["path"], adapter["size_bytes"]) == (str(folder / WEIGHTS), len(weights()))


def bad_files() -> dict[str, tuple[bytes, str]]:
    header, size = header_of(shapes())
    data = bytes(size)
    first, second, *_ = shapes()
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("data.pkl", b"x")

    def lying(**entry: Any) -> bytes:
        return packed({**header, second: {**header[second], **entry}}, data)

    twice = json.dumps(header).replace(json.dumps(second), json.dumps(first)).encode()
    return {
        "empty": (b"", "too few"),
        "short": (b"abc", "too few"),
        "pickle": (pickle.dumps({"a": list(range(100))}), "is a pickle"),
        "zip": (archive.getvalue(), "zip archive"),
        "text": (b"hello, I am an adapter", "cut off, or not a safetensors file"),
        "truncated": (weights()[:-1], "its header asks for"),
        "longer": (weights() + b"\0", "its header asks for"),
        "giant header": ((1 << 62).to_bytes(8, "little") + b"{}", "cut off"),
        "large header": ((20 << 20).to_bytes(8, "little") + bytes(21 << 20), "more than"),
        "no JSON": ((9).to_bytes(8, "little") + b"{'a': 1} " + data, "not JSON"),
        "no object": (packed([1], data), "not a JSON object"),
        "deep": ((100_000).to_bytes(8, "little") + b"[" * 100_000, "not JSON"),
        "overlapping": (lying(data_offsets=header[first]["data_offsets"]), "overlaps"),
        "out of range": (lying(data_offsets=[size, size + 64]), "leaves a gap"),
        "negative": (lying(data_offsets=[-64, 0]), "impossible offsets"),
        "backwards": (lying(data_offsets=[64, 0]), "impossible offsets"),
        "wrong size": (lying(dtype="F16"), "not what F16"),
        "not a type": (lying(dtype=4), "not dtype, shape and data_offsets"),
        "not a shape": (lying(shape=[2, -1]), "impossible shape"),
        "true": (lying(shape=[True, 16]), "impossible shape"),
        "more fields": (lying(more=1), "not dtype, shape and data_offsets"),
        "named twice": (len(twice).to_bytes(8, "little") + twice + data, "names something twice"),
        "odd notes": (packed({**header, "__metadata__": {"a": 1}}, data), "__metadata__"),
        "no tensors": (packed({}, b""), "no weights"),
        "integers": (weights(dtype="I32"), "is of type I32"),
        "full model": (weights({"model.layers.0.q_proj.weight": [2, 2]}), "only LoRA and DoRA"),
        "traversal": (weights({"base_model.model.../../x.lora_A.weight": [2, 2]}), "only LoRA and DoRA"),
        "half": (weights({f"{PREFIX}.0.x.lora_A.weight": [2, 8]}), "only one of"),
        "no ranks": (weights({f"{PREFIX}.0.x.lora_A.weight": [2, 8], f"{PREFIX}.0.x.lora_B.weight": [8, 3]}), "rank x"),
        "rank 0": (weights({f"{PREFIX}.0.x.lora_A.weight": [0, 8], f"{PREFIX}.0.x.lora_B.weight": [8, 0]}), "rank x"),
        "three sides": (
            weights({f"{PREFIX}.0.x.lora_A.weight": [2, 8, 1], f"{PREFIX}.0.x.lora_B.weight": [8, 2]}),
            "rank x",
        ),
        "some magnitudes": (weights({**shapes(), **shapes(layers=1, dora=True)}), "some of its layers only"),
        "long magnitudes": (
            weights({**shapes(dora=True), f"{PREFIX}.0.self_attn.q_proj.lora_magnitude_vector": [9]}),
            "not [8]",
        ),
    }


@pytest.mark.parametrize(("content", "issue"), bad_files().values(), ids=bad_files())
def test_a_file_that_cannot_be_trusted_is_refused_and_leaves_nothing(
    client: Client, tmp_path: Path, content: bytes, issue: str
) -> None:
    field, found = refused(upload(client, content))
    assert field == "file" and issue in found
    assert stored(tmp_path) == []


@pytest.mark.parametrize(
    ("dtype", "width", "number"),
    [
        ("F32", 4, b"\0\0\x80\x7f"),
        ("F32", 4, b"\x01\0\x80\xff"),
        ("F16", 2, b"\0\x7c"),
        ("F16", 2, b"\xff\xff"),
        ("BF16", 2, b"\x80\x7f"),
        ("BF16", 2, b"\xc0\xff"),
        ("F64", 8, b"\0\0\0\0\0\0\xf0\x7f"),
        ("F64", 8, b"\x01\0\0\0\0\0\xf0\xff"),
    ],
)
def test_one_number_that_is_infinite_or_none_is_found(
    client: Client, tmp_path: Path, dtype: str, width: int, number: bytes
) -> None:
    good = weights(dtype=dtype, width=width)
    field, issue = refused(upload(client, good[: -len(number)] + number))
    assert field == "file" and "1.self_attn.v_proj.lora_B.weight' holds numbers that are infinite" in issue
    largest = {"F32": b"\xff\xff\x7f\x7f", "F16": b"\xff\x7b", "BF16": b"\x7f\xff", "F64": b"\xff" * 6 + b"\xef\x7f"}
    assert upload(client, good[:-width] + largest[dtype]).status_code == 201
    assert len(stored(tmp_path)) == 1


@pytest.mark.parametrize(
    ("metadata", "field"),
    [
        ({"base_model": ""}, "base_model"),
        ({"base_model": None}, "base_model"),
        ({"base_model": "/nowhere/at/all"}, "base_model"),
        ({"base_model": "../../etc"}, "base_model"),
        ({"base_model": "x" * 201}, "base_model"),
        ({"rank": 3}, "rank"),
        ({"rank": 0}, "rank"),
        ({"rank": "many"}, "rank"),
        ({"alpha": 0}, "alpha"),
        ({"alpha": 1e300}, "alpha"),
        ({"algorithm": "dora"}, "algorithm"),
        ({"algorithm": "magic"}, "algorithm"),
        ({"target_modules": ["q_proj"]}, "target_modules"),
        ({"target_modules": ["q_proj", "v_proj", "k_proj"]}, "target_modules"),
        ({"target_modules": ["(a+)+$"]}, "target_modules"),
        ({"target_modules": []}, "target_modules"),
        ({"target_modules": ["q_proj"] * 10_000}, "target_modules"),
        ({"name": "a\nb"}, "name"),
        ({"job_id": "job_" + "0" * 32}, "job_id"),
        ({"job_id": "../../etc/passwd"}, "job_id"),
        ({"tags": ["a"] * 10_000}, "tags"),
    ],
)
def test_metadata_that_is_wrong_or_does_not_fit_is_refused_with_the_field(
    client: Client, tmp_path: Path, metadata: dict[str, Any], field: str
) -> None:
    assert refused(upload(client, **metadata))[0] == field
    assert stored(tmp_path) == []


@pytest.mark.parametrize(
    ("form", "field", "status"),
    [
        ({"files": {"file": b"x"}}, "metadata", 400),
        ({"data": {"metadata": "{}"}, "files": {"other": b"x"}}, "other", 400),
        ({"files": {"file": weights(), "metadata": b"no JSON"}}, "metadata", 400),
        ({"files": {"file": weights(), "metadata": b"[" * 100_000}}, "metadata", 400),
        ({"files": {"file": weights(), "metadata": b"[1]"}}, "body", 400),
        ({"files": {"metadata": b'{"base_model": "m"}'}}, "file", 400),
        ({"files": {"file": weights(), "metadata": b" " * ((1 << 20) + 1)}}, "metadata", 413),
    ],
)
def test_a_form_without_its_parts_is_refused(client: Client, form: dict[str, Any], field: str, status: int) -> None:
    assert refused(client.post("/api/v1/adapters/upload", **form), status)[0] == field


def test_an_adapter_that_is_too_large_is_refused(connect: Connect, tmp_path: Path) -> None:
    client = connect(max_adapter_bytes=len(weights()) - 1)
    assert refused(upload(client), 413)[0] == "file"
    assert stored(tmp_path) == []
    assert upload(connect(max_adapter_bytes=len(weights()))).status_code == 201


def test_a_key_that_may_only_read_uploads_nothing(connect: Connect, tmp_path: Path) -> None:
    assert upload(connect("reads")).status_code == 403
    assert stored(tmp_path) == []


def test_what_the_config_says_counts_where_it_agrees(client: Client, tmp_path: Path) -> None:
    config = {
        "peft_type": "LORA",
        "r": 4,
        "lora_alpha": 8,
        "use_rslora": True,
        "target_modules": ["q_proj", "v_proj"],
        "rank_pattern": {"0.self_attn.q_proj": 2, "v_proj": 2},
        "alpha_pattern": {"^model.layers.1.self_attn.q_proj": 3},
        "auto_mapping": {"parent_library": "os"},
        "megatron_core": "os",
        "lora_dropout": 0.5,
    }
    layer = f"{PREFIX}.1.self_attn.q_proj"
    tensors = {**shapes(2), f"{layer}.lora_A.weight": [4, 8], f"{layer}.lora_B.weight": [8, 4]}
    answer = upload(client, weights(tensors), config)
    written = json.loads((folder_of(tmp_path, answer.json()["adapter_id"]) / "adapter_config.json").read_bytes())
    name = "model.layers.{}.self_attn.{}_proj"
    assert written["rank_pattern"] == {f"^{name.format(*at)}": 2 for at in ((0, "q"), (0, "v"), (1, "v"))}
    assert written["alpha_pattern"] == {f"^{name.format(1, 'q')}": 3}
    assert (written["r"], written["lora_alpha"], written["use_rslora"]) == (4, 8, True)
    assert not {"auto_mapping", "megatron_core"} & written.keys()


@pytest.mark.parametrize(
    ("config", "field"),
    [
        (b"no JSON", "config"),
        ([], "config"),
        ({"peft_type": "IA3"}, "config"),
        ({"r": 0}, "config"),
        ({"r": 3}, "rank"),
        ({"lora_alpha": "much"}, "config"),
        ({"bias": "all"}, "config"),
        ({"init_lora_weights": "pissa"}, "config"),
        ({"modules_to_save": ["lm_head"]}, "config"),
        ({"use_dora": True}, "config"),
        ({"rank_pattern": {"(a+)+$": 2}}, "config"),
        ({"alpha_pattern": {"q_proj": "x"}}, "config"),
        ({"target_modules": ["k_proj"]}, "config"),
        ({"base_model_name_or_path": "other/model"}, "base_model"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(client: Client, tmp_path: Path, config: Any, field: str) -> None:
    if isinstance(config, dict):
        config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, **config}
    assert refused(upload(client, config=config))[0] == field
    assert stored(tmp_path) == []


def test_metadata_and_config_must_agree(client: Client) -> None:
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4}
    assert refused(upload(client, config=config, alpha=8))[0] == "alpha"
    assert refused(upload(client, config=config, rank=4))[0] == "rank"
    assert upload(client, config=config, rank=2, alpha=4).status_code == 201


def test_layers_of_a_local_base_model_must_be_there_in_the_right_sizes(client: Client, tmp_path: Path) -> None:
    base = str(write_model(tmp_path / "base"))
    assert upload(client, base_model=base).status_code == 201
    assert "no layer 'model.layers.2" in refused(upload(client, weights(shapes(layers=3)), base_model=base))[1]
    layer = f"{PREFIX}.0.self_attn.q_proj"
    wide = {f"{layer}.lora_A.weight": [2, 16], f"{layer}.lora_B.weight": [8, 2]}
    field, issue = refused(upload(client, weights({**shapes(), **wide}), base_model=base))
    assert field == "base_model" and "takes 16 and gives 8" in issue and "8 x 8" in issue
    (tmp_path / "base" / "config.json").unlink()
    assert refused(upload(client, base_model=base))[0] == "base_model"


def test_an_adapter_of_a_job_names_it(connect: Connect, jobs: JobsInMemory, tmp_path: Path) -> None:
    client = connect(data_dir=tmp_path / "data")
    job = made(jobs, tmp_path / "data")
    adapter_id = uploaded(client, job_id=job.job_id)
    found = client.get(f"/api/v1/adapters?job_id={job.job_id}").json()["adapters"]
    assert [adapter["id"] for adapter in found] == [adapter_id, job.job_id.replace("job_", "adapter_")]


def test_the_same_key_is_the_same_adapter_and_never_another(client: Client, connect: Connect, tmp_path: Path) -> None:
    first = upload(client, key="once", name="a").json()
    assert upload(client, key="once", name="a").json() == first
    assert stored(tmp_path) == [first["adapter_id"]]
    assert refused(upload(client, key="once", name="b"), 409)[0] == "Idempotency-Key"
    assert upload(connect("rules"), key="once", name="b").json()["adapter_id"] != first["adapter_id"]


def test_what_a_killed_upload_left_is_dropped_once_it_is_old(client: Client, tmp_path: Path) -> None:
    home = tmp_path / "data" / "adapters"
    for name in (".upload-old", ".upload-new"):
        (home / name).mkdir(parents=True)
        (home / name / "file").write_bytes(b"half")
    for path in (home / ".upload-old" / "file", home / ".upload-old"):
        os.utime(path, (0, 0))
    adapter_id = uploaded(client)
    assert stored(tmp_path) == [".upload-new", adapter_id]


def test_uploads_and_what_jobs_made_are_listed_together_page_by_page(
    client: Client, jobs: JobsInMemory, tmp_path: Path
) -> None:
    old = [made(jobs, tmp_path / "data") for _ in range(3)]
    mine = [uploaded(client) for _ in range(4)]
    wanted = [*reversed(mine), *(job.job_id.replace("job_", "adapter_") for job in reversed(old))]
    for limit in (1, 2, 3, 7, 100):
        found, cursor = [], ""
        while cursor is not None:
            page = client.get(f"/api/v1/adapters?limit={limit}{cursor and '&cursor=' + cursor}").json()
            assert len(page["adapters"]) <= limit
            found += [adapter["id"] for adapter in page["adapters"]]
            cursor = page["next_cursor"]
        assert found == wanted


@pytest.mark.parametrize("cursor", ["x", "~x", "1.adapter_1", "job_1~", "~99999999999999999.adapter_1", "~1.adapter_"])
def test_a_cursor_of_no_list_is_refused(client: Client, cursor: str) -> None:
    assert refused(client.get("/api/v1/adapters", params={"cursor": cursor}))[0] == "cursor"


def test_a_repeated_hash_of_what_lies_there_is_what_was_sent(client: Client, tmp_path: Path) -> None:
    folder = folder_of(tmp_path, uploaded(client))
    record = json.loads((folder / "adapter.json").read_bytes())
    assert record["sha256"] == hashlib.sha256(weights()).hexdigest()


def test_what_the_algorithm_says_of_the_scaling_is_written(client: Client, tmp_path: Path) -> None:
    def written(**metadata: Any) -> dict[str, Any]:
        return json.loads((folder_of(tmp_path, uploaded(client, **metadata)) / "adapter_config.json").read_bytes())

    assert (written()["lora_alpha"], written()["use_rslora"]) == (2, False)
    by_root = written(algorithm="rslora")
    assert (by_root["lora_alpha"], by_root["use_rslora"]) == (pytest.approx(2**0.5), True)
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4}
    assert refused(upload(client, config=config, algorithm="rslora"))[0] == "algorithm"


@pytest.mark.parametrize("algorithm", [name for name, method in METHODS.items() if not method.served])
def test_adapters_of_other_kinds_are_not_taken(client: Client, algorithm: str) -> None:
    field, issue = refused(upload(client, algorithm=algorithm))
    assert field == "algorithm" and "lora, qlora, dora" in issue


@pytest.mark.parametrize("algorithm", ["lora", "qlora", "lora_plus", "pissa", "olora", "rslora"])
def test_adapters_of_every_algorithm_that_ends_in_plain_lora_are_taken(client: Client, algorithm: str) -> None:
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "use_rslora": algorithm == "rslora"}
    config |= {"init_lora_weights": True}
    adapter_id = uploaded(client, config=config, algorithm=algorithm)
    assert client.get(f"/api/v1/adapters/{adapter_id}").json()["algorithm"] == algorithm


@pytest.mark.parametrize("algorithm", ["pissa", "olora"])
def test_an_adapter_that_changes_its_base_model_must_say_that_it_was_converted(client: Client, algorithm: str) -> None:
    field, issue = refused(upload(client, algorithm=algorithm))
    assert field == "config" and "adapter_config.json" in issue
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "init_lora_weights": algorithm}
    field, issue = refused(upload(client, config=config, algorithm=algorithm))
    assert field == "config" and "changes the base model" in issue


def test_an_upload_for_which_the_disk_has_no_room_is_refused(connect: Connect, tmp_path: Path) -> None:
    answer = upload(connect(disk_reserve_bytes=1 << 60))
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "RESOURCE_UNAVAILABLE")
    assert stored(tmp_path) == []
