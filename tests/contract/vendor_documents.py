"""Exchanges with simulated vendors, held to the documents that the vendors publish."""

import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from jsonschema import Draft202012Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

from tests.integration.providers.exchanges import Exchange

SPECS = Path(__file__).parents[3] / "shared" / "vendors" / "specs"
_METHODS = ("get", "put", "post", "delete", "patch")


class VendorDocument:
    """
    One vendor's OpenAPI document; ``base`` is what the simulator's paths have in place of ``there``.

    ``unwritten`` are statuses that occur and are not in it.
    """

    def __init__(self, spec: Mapping[str, Any], base: str, there: str = "", unwritten: Collection[int] = ()):
        self._spec = spec
        self._unwritten = unwritten
        self._base, self._there = base, there
        resource = Resource.from_contents(spec, default_specification=DRAFT202012)
        self._registry: Registry[Any] = Registry().with_resource("urn:spec", resource)

    def faults(self, exchange: Exchange) -> list[str]:
        """Return where a request or its answer is not as the document has it."""
        path = exchange.path.replace(self._base, self._there, 1)
        template, operation = self._operation(path, exchange.method.lower())
        if operation is None:
            return [f"{exchange.method} {path} is not in the document"]
        where = f"/paths/{_escaped(template)}/{exchange.method.lower()}"
        parameters = [self._resolved(one) for one in operation.get("parameters", [])]
        known = {one["name"] for one in parameters if one["in"] == "query"}
        said = [f"unknown parameter {name}" for name in parse_qs(exchange.query) if name not in known]
        if "requestBody" in operation and exchange.status < 400:
            said += self._differences(f"{where}/requestBody", json.loads(exchange.sent or b"null"))
        elif "requestBody" not in operation and exchange.sent:
            said.append("a body that is not in the document")
        answer = str(exchange.status) if str(exchange.status) in operation["responses"] else "default"
        if answer not in operation["responses"]:
            said += [] if exchange.status in self._unwritten else [f"status {exchange.status} is not in the document"]
        elif exchange.answered:
            said += self._differences(f"{where}/responses/{answer}", json.loads(exchange.answered), exchange)
        return [f"{exchange.method} {path} {exchange.status}: {issue}" for issue in said]

    def _operation(self, path: str, method: str) -> tuple[str, dict[str, Any] | None]:
        parts = path.split("/")
        for template, item in self._spec["paths"].items():
            names = template.split("/")
            fits = len(names) == len(parts) and all(
                name.startswith("{") or name == part for name, part in zip(names, parts, strict=True)
            )
            if fits and method in item and method in _METHODS:
                return template, item[method]
        return path, None

    def _differences(self, pointer: str, value: Any, exchange: Exchange | None = None) -> Iterator[str]:
        part, pointer = self._at(pointer)
        contents = part["content"]
        kind = next(iter(contents)) if exchange is None else exchange.headers["content-type"]
        if kind not in contents:
            yield f"content type {kind}, not {', '.join(contents)}"
            return
        schema = {"$ref": f"urn:spec#{pointer}/content/{_escaped(kind)}/schema"}
        for error in Draft202012Validator(schema, registry=self._registry).iter_errors(value):
            yield f"{error.json_path}: {error.message[:200]}"

    def _at(self, pointer: str) -> tuple[dict[str, Any], str]:
        value: Any = self._spec
        for name in pointer.strip("/").split("/"):
            value = value[name.replace("~1", "/").replace("~0", "~")]
        return self._at(value["$ref"].removeprefix("#")) if "$ref" in value else (value, pointer)

    def _resolved(self, value: dict[str, Any]) -> dict[str, Any]:
        return self._at(value["$ref"].removeprefix("#"))[0] if "$ref" in value else value


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")
