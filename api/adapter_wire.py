"""Envelopes of adapters, and how the form is described that brings one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from litestar.openapi.spec import Example, OpenAPIMediaType, OpenAPIType, Operation, RequestBody, Schema
from pydantic import BaseModel, Field

from api.uploads import MULTIPART
from api.wire import Whole
from peft_studio.adapters import Adapter, UploadMetadata


class AdapterList(Whole):
    """A page of adapters, newest first."""

    adapters: Sequence[Adapter]
    next_cursor: str | None = Field(description="Leads to the next page; null on the last one.")


class AdapterUploaded(Whole):
    """An adapter that was brought, checked and stored."""

    adapter_id: str
    registry_url: str = Field(description="Where its files can be downloaded: the studio's own store is its registry.")
    success: bool = True


class AdapterDeleted(Whole):
    """An adapter that is no longer there."""

    success: bool = True
    adapter_id: str


@dataclass
class AdapterForm(Operation):
    """The upload's body: a form, which the route reads by itself as it comes."""

    def __post_init__(self) -> None:
        """Add what a signature cannot say."""
        binary = Schema(type=OpenAPIType.STRING, content_media_type="application/octet-stream")
        parts: dict[str, Any] = {
            "file": _described(binary, "The weights of a LoRA or DoRA, as PEFT saves them (.safetensors)."),
            "metadata": Schema(
                type=OpenAPIType.STRING,
                content_media_type="application/json",
                description=_fields_of(UploadMetadata),
            ),
            "config": _described(
                binary, "PEFT's adapter_config.json; by default it is made from metadata and weights."
            ),
        }
        schema = Schema(
            type=OpenAPIType.OBJECT, properties=parts, required=["file", "metadata"], additional_properties=False
        )
        example = Example(value={"file": "(bytes)", "metadata": '{"base_model": "demo/model", "alpha": 16}'})
        self.request_body = RequestBody(
            {MULTIPART: OpenAPIMediaType(schema, examples={"upload": example})}, required=True
        )


def _described(schema: Schema, description: str) -> Schema:
    return Schema(type=schema.type, content_media_type=schema.content_media_type, description=description)


def _fields_of(model: type[BaseModel]) -> str:
    fields = model.model_fields.items()
    told = [f"`{name}`{'' if field.is_required() else '?'}: {field.description or name}" for name, field in fields]
    return "A JSON object. " + " ".join(told)
