"""The OpenAI-compatible requests: what is understood, and what is refused rather than ignored."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from peft_studio.errors import InvalidConfig

MAX_LOGPROBS = 20
# Would change the answer, and are not supported: only a value that changes nothing is taken.
_UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "best_of": (1,),
    "echo": (False,),
    "suffix": ("",),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "response_format": ({"type": "text"},),
    "tools": ([],),
    "functions": ([],),
    "modalities": (["text"],),
}


class StreamOptions(BaseModel):
    """What a stream holds besides the answer."""

    include_usage: bool = False


class _Request(BaseModel):
    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)

    model: Annotated[str, Field(min_length=1)]
    temperature: float = Field(default=1.0, ge=0, le=2)
    top_p: float = Field(default=1.0, gt=0, le=1)
    stop: list[Annotated[str, Field(min_length=1)]] = Field(default=[], max_length=16)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()
    is_probe: bool = False  # the studio's own, which no user's figures count

    @model_validator(mode="before")
    @classmethod
    def _as_openai_means_it(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        for name, harmless in _UNSUPPORTED.items():
            if data.get(name) is not None and data[name] not in harmless:
                raise InvalidConfig(f"{name}: {data[name]!r:.100} is not supported here; leave it out.", field=name)
        known = {name: value for name, value in data.items() if value is not None}  # null is the same as left out
        if isinstance(known.get("stop"), str):
            known["stop"] = [known["stop"]]
        return known


class CompletionRequest(_Request):
    """``POST /v1/completions``: go on from a text."""

    prompt: str | list[int] | list[str] | list[list[int]]
    max_tokens: int = Field(default=16, ge=1)
    logprobs: int | None = Field(default=None, ge=0, le=MAX_LOGPROBS)


class Part(BaseModel):
    """A part of a message."""

    type: Literal["text"]
    text: str


class Message(BaseModel):
    """One turn of a conversation; what else it holds is passed on to the chat template."""

    model_config = ConfigDict(extra="allow")

    role: Annotated[str, Field(min_length=1)]
    content: str | list[Part] = ""

    def plain(self) -> dict[str, Any]:
        """The message as chat templates expect it, its parts put together."""
        text = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return {**self.model_dump(), "content": text}


class ChatRequest(_Request):
    """``POST /v1/chat/completions``: answer a conversation."""

    messages: list[Message] = Field(min_length=1)
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    logprobs: bool = False
    top_logprobs: int = Field(default=0, ge=0, le=MAX_LOGPROBS)


class LoadAdapter(BaseModel):
    """``POST /v1/load_lora_adapter``."""

    lora_name: str = Field(pattern=r"^[\w./:-]{1,200}$")
    lora_path: Annotated[str, Field(min_length=1, max_length=4096)]


class UnloadAdapter(BaseModel):
    """``POST /v1/unload_lora_adapter``."""

    lora_name: str


def explain(error: ValidationError) -> InvalidConfig:
    """Say what is wrong with a request, and in which field: the first thing found."""
    first = error.errors()[0]
    path = [str(part) for part in first["loc"]]
    field = path[0] if path else "body"
    return InvalidConfig(f"{'.'.join(path) or 'body'}: {first['msg']}", field=field, issue=first["msg"])
