"""
The OpenAPI document as it is published: Litestar's, told what it leaves out.

Litestar describes models by the annotations of their fields, and so leaves out whatever is inside a list, a dict or an
optional field, and that unknown fields are refused. Pydantic, which checks them, describes them whole.
"""

from collections.abc import Collection, Iterable
from typing import Any, get_args

from litestar import Litestar
from litestar.routes import HTTPRoute
from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, models_json_schema

Json = dict[str, Any]
_MADE = "published_document"


def published_document(app: Litestar) -> Json:
    """Return the document of this application, which is made once."""
    if _MADE not in app.state:
        app.state[_MADE] = _made(app)
    return app.state[_MADE]


def _made(app: Litestar) -> Json:
    document = app.openapi_schema.to_schema()
    document["components"] |= {"schemas": _schemas(_models_of(app)), "headers": _HEADERS}
    for item in document["paths"].values():
        for operation in item.values():
            for parameter in operation.get("parameters", []):
                if "schema" in parameter:
                    parameter["schema"] = _without_null(parameter["schema"])
            for status, answer in operation["responses"].items():
                needs_key = operation.get("security") != [{}]
                if names := _headers_of(status, needs_key):
                    described = {name: {"$ref": f"#/components/headers/{name}"} for name in names}
                    answer["headers"] = answer.get("headers", {}) | described
    return document


def _header(kind: str, description: str) -> Json:
    return {"schema": {"type": kind}, "description": description}


_QUOTA = {
    "RateLimit-Limit": _header("integer", "Requests a minute that this key may make."),
    "RateLimit-Remaining": _header("integer", "How many of them are left."),
    "RateLimit-Reset": _header("integer", "Seconds until there is one more."),
}
_HEADERS = _QUOTA | {
    "Retry-After": _header("integer", "Seconds to wait, where that is known."),
    "WWW-Authenticate": _header("string", "How to send the key."),
}


def _headers_of(status: str, needs_key: bool) -> Collection[str]:
    """Name the headers of an answer; whoever sends no valid key has no quota."""
    match status:
        case "401":
            return ["WWW-Authenticate"]
        case "429" | "503":
            return [*(_QUOTA if needs_key else ()), "Retry-After"]
        case _:
            return _QUOTA if needs_key else ()


class _Schemas(GenerateJsonSchema):
    """Pydantic's own description, without a title for each field, which would only repeat its name."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        """Leave titles to models."""
        return False

    def dict_schema(self, schema: Any) -> Json:
        """Describe a dict: where its keys follow a pattern, there are no others."""
        described = super().dict_schema(schema)
        if "patternProperties" in described:
            described["additionalProperties"] = False
        return described


def _schemas(models: Iterable[type[BaseModel]]) -> Json:
    # Also of answers: fields that have a default may be left out of these.
    inputs = [(model, "validation") for model in models]
    _, described = models_json_schema(
        inputs,  # pyright: ignore[reportArgumentType] -- the literal is one of the two modes
        ref_template="#/components/schemas/{model}",
        schema_generator=_Schemas,
    )
    return described["$defs"]


def _models_of(app: Litestar) -> list[type[BaseModel]]:
    """Find all models of requests and answers."""
    found: dict[type[BaseModel], None] = {}
    for route in app.routes:
        for handler in route.route_handlers if isinstance(route, HTTPRoute) else ():
            body = handler.parsed_data_field
            kinds = [answer.data_container for answer in (handler.responses or {}).values()]
            for kind in [*kinds, *((body.annotation, *get_args(body.annotation)) if body else ())]:
                if isinstance(kind, type) and issubclass(kind, BaseModel):
                    found[kind] = None
    return [*found]


def _without_null(schema: Json) -> Json:
    """Describe an optional parameter as it is sent: it may be left out, and there is no way to write null."""
    choices = schema.get("oneOf", [])
    if {"type": "null"} not in choices:
        return schema
    [kind] = [choice for choice in choices if choice != {"type": "null"}]
    rest = {name: value for name, value in schema.items() if name != "oneOf"}
    return {**kind, **rest}
