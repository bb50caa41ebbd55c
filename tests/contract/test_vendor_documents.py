"""Requests of the providers and answers of the simulators are as the vendors' own documents have them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.providers.base import MachineState
from infra.simulators.faults import FaultKind
from peft_studio.errors import StudioError
from tests.contract.vendor_documents import SPECS, VendorDocument
from tests.integration.hosts.rows import ROWS
from tests.integration.hosts.serving import serving_at
from tests.integration.providers.exchanges import Exchange
from tests.integration.providers.renting import Renting, renting_from
from tests.integration.providers.vendors import VENDORS

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(not SPECS.is_dir(), reason="the vendors' documents do not lie beside the repository"),
]
FAULTS = (FaultKind.RATE_LIMIT, FaultKind.NO_CAPACITY, FaultKind.OUT_OF_CREDIT, FaultKind.ERROR_AFTER_CREATE)


def runpod() -> VendorDocument:
    spec = _read("runpod-rest-v2.openapi.json")
    later = _read("runpod-rest-v2.overlay.json")
    for name in ("CreatePodRequest", "CreateGpuConfig"):
        spec["components"]["schemas"][name]["allOf"][1]["properties"] |= later[f"{name}.add"]
    return VendorDocument(spec, "/runpod")


def lambda_cloud() -> VendorDocument:
    spec = _read("lambda-cloud-v1.6.0.openapi.json")
    # Of later versions, whose documents are not at hand.
    spec["components"]["schemas"]["InstanceStatus"]["enum"].append("preempted")
    return VendorDocument(spec, "/lambda", "/api/v1", unwritten=(429, 500))


_VAST_BODIES = (("/asks/{id}/", "put"), ("/bundles/", "post"))


def vast() -> VendorDocument:
    spec = yaml.safe_load((SPECS / "vast-ai.openapi.yaml").read_text())
    # As its guide has it, and as it was seen: a slash ends every path, the environment is an object, a refusal for
    # haste is no JSON, and an account without credit has a code of its own.
    spec["paths"] = {f"{path.removeprefix('/api').removeprefix('/v0')}/": item for path, item in spec["paths"].items()}
    text = {"type": "string"}
    for operations in spec["paths"].values():
        for operation in operations.values():
            operation["responses"].pop("429", None)
    bodies = [spec["paths"][path][method]["requestBody"] for path, method in _VAST_BODIES]
    created, searched = [body["content"]["application/json"]["schema"] for body in bodies]
    created["properties"]["env"] = {"type": "object", "additionalProperties": text}
    refused = spec["paths"]["/asks/{id}/"]["put"]["responses"]["400"]["content"]["application/json"]["schema"]
    refused["properties"]["error"]["enum"].append("insufficient_credit")
    created["additionalProperties"] = searched["additionalProperties"] = False
    spec["components"]["schemas"]["Instance"]["properties"]["extra_env"]["items"] = {"type": "array", "items": text}
    return VendorDocument(spec, "/vast", unwritten=(404, 429, 500))


def replicate() -> VendorDocument:
    spec = _nullable(yaml.safe_load((SPECS / "replicate.openapi.yaml").read_text()))
    # A page says where the next one is, by an address that is nobody's business but the vendor's.
    spec["paths"]["/deployments"]["get"]["parameters"] = [{"name": "cursor", "in": "query"}]
    return VendorDocument(spec, "/replicate", unwritten=(400, 401, 402, 404, 422, 429, 500))


def together() -> VendorDocument:
    spec = _nullable(yaml.safe_load((SPECS / "together.openapi.yaml").read_text()))
    return VendorDocument(spec, "/together/v1", unwritten=(402, 500))


def lorax() -> VendorDocument:
    spec = _nullable(_read("lorax.openapi.json"))
    # Of a later version than the document: what its source answers with.
    chat = spec["components"]["schemas"]["ChatCompletionRequest"]
    chat["required"] = ["model", "messages"]
    return VendorDocument(spec, "/lorax", unwritten=(401, 402))


def _nullable(value: Any) -> Any:
    """Say in the words of JSON Schema what OpenAPI 3.0 has a word of its own for."""
    if isinstance(value, list):
        return [_nullable(one) for one in value]
    if not isinstance(value, dict):
        return value
    value = {name: _nullable(one) for name, one in value.items()}
    if value.pop("nullable", False) is True and isinstance(value.get("type"), str):
        value["type"] = [value["type"], "null"]
    return value


# Of Together only what answers prompts is in the document: version 2 of the rest is in none.
HOSTED = {"replicate": (replicate, ""), "together": (together, "/completions"), "lorax": (lorax, "")}
DOCUMENTS = {"runpod": runpod, "lambda": lambda_cloud, "vast": vast}


def _read(name: str) -> Any:
    return json.loads((SPECS / name).read_text())


@pytest.mark.parametrize("name", DOCUMENTS)
async def test_what_goes_over_the_wire_is_in_the_vendors_document(name: str) -> None:
    vendor = next(vendor for vendor in VENDORS if vendor.name == name)
    with renting_from(vendor) as renting:
        await _everything(renting)
        exchanges = list(renting.exchanges)
    document = DOCUMENTS[name]()
    assert [issue for exchange in exchanges for issue in document.faults(exchange)] == []
    assert len(exchanges) > 10


async def _everything(renting: Renting) -> None:
    """Have the provider ask whatever it ever asks, in good times and bad."""
    provider = renting.provider
    for kind in FAULTS:
        renting.fail(kind)
        try:
            await renting.rent(A="b")
        except StudioError:
            await provider.machines()
    rented = await renting.rent(A="b")
    await provider.machine(rented.id)
    await renting.becomes(rented.id, MachineState.RUNNING)
    renting.cloud.preempt(renting.behind(rented))
    await renting.becomes(rented.id, MachineState.LOST)
    await provider.machines()
    await provider.release(rented.id)
    await provider.release(rented.id)
    await provider.machine(rented.id)
    await provider.billed(rented.id, rented.name)
    renting.fail(FaultKind.REVOKED_KEY)
    for call in provider.machines, provider.offers:
        with pytest.raises(StudioError):
            await call()


@pytest.mark.parametrize("name", HOSTED)
async def test_what_goes_to_a_platform_that_serves_is_in_its_document(name: str, tmp_path: Path) -> None:
    row = next(row for row in ROWS if row.name == name)
    with serving_at(row, tmp_path) as serving:
        for kind in FaultKind.RATE_LIMIT, FaultKind.NO_CAPACITY, FaultKind.OUT_OF_CREDIT, FaultKind.ERROR_AFTER_CREATE:
            serving.fail(kind)
            await serving.tried(serving.wanted())
        running = [await serving.running(serving.wanted()) for _ in range(3)]
        await serving.host.names()
        for question in ("Once", [{"role": "user", "content": "Once"}]):
            assert (await serving.host.say(running[0], str(running[0].model), question, 4)).tokens
        await serving.host.ask(running[0], "Once", chat=True, max_tokens=4, temperature=0.5)
        await serving.cleared(running[0].name)
        serving.fail(FaultKind.REVOKED_KEY)
        with pytest.raises(StudioError):
            await serving.host.names()
        exchanges = [one for one in serving.exchanges if one.path.endswith(HOSTED[name][1])]
    document = HOSTED[name][0]()
    assert [issue for exchange in exchanges for issue in document.faults(exchange)] == []
    assert len(exchanges) > 2


def test_a_document_tells_what_is_not_in_it() -> None:
    assert _issues({"name": "n", "image": "i", "bogus": 1}) != []
    assert _issues({"name": "n", "image": "i"}) == []


def _issues(body: Mapping[str, Any]) -> list[str]:
    sent, answer = json.dumps(body).encode(), b""
    return runpod().faults(Exchange("POST", "/runpod/v2/pods", "", sent, 201, {}, answer))
