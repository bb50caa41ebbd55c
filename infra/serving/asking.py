"""From a request to a generation: the prompt's tokens, and what is refused because the model could not take it."""

from collections.abc import Sequence
from typing import Any, NoReturn

from infra.serving.generation import Generation
from infra.serving.sampling import Sampling
from infra.serving.served import Models, Served
from infra.serving.wire import ChatRequest, CompletionRequest
from peft_studio.errors import InvalidConfig

_DEFAULT_ANSWER = 1024
_CHARACTERS_PER_TOKEN = 256  # more than any tokenizer puts into one


def generation_of(request: CompletionRequest | ChatRequest, models: Models) -> Generation:
    """Return what a request asks for; raises ``NotFound`` or ``InvalidConfig`` with the field. May take a while."""
    served = models.get(request.model)
    if isinstance(request, ChatRequest):
        field, tokens = "messages", _conversation(request, served, models)
        logprobs = request.top_logprobs if request.logprobs else None
        room = max(1, min(_DEFAULT_ANSWER, models.base.context - len(tokens)))
        max_tokens = request.max_completion_tokens or request.max_tokens or room
    else:
        field, tokens = "prompt", _prompt(request, models)
        logprobs, max_tokens = request.logprobs, request.max_tokens
    context = models.base.context
    if len(tokens) >= context:
        _too_long(field, f"{len(tokens)} tokens", context)
    if len(tokens) + max_tokens > context:
        raise InvalidConfig(
            f"max_tokens: the model's context is {context} tokens, the prompt has {len(tokens)}, "
            f"which leaves {context - len(tokens)}, not {max_tokens}.",
            field="max_tokens",
            code="context_length_exceeded",
        )
    return Generation(
        prompt=tokens,
        slot=served.slot,
        max_tokens=max_tokens,
        end_tokens=served.end_tokens,
        sampling=Sampling(request.temperature, request.top_p, request.seed, logprobs),
        stops=request.stop,
    )


def _prompt(request: CompletionRequest, models: Models) -> list[int]:
    prompt: Any = request.prompt
    if isinstance(prompt, list) and prompt and not isinstance(prompt[0], int):
        if len(prompt) > 1:
            raise InvalidConfig("prompt: one prompt a request is answered here; send several requests.", field="prompt")
        prompt = prompt[0]
    if not prompt:
        raise InvalidConfig("prompt: it is empty; give at least one token.", field="prompt")
    if isinstance(prompt, str):
        return _tokens(prompt, "prompt", models, special=True)
    size = models.base.model.get_input_embeddings().num_embeddings
    if not all(0 <= token < size for token in prompt):
        raise InvalidConfig(f"prompt: tokens are numbers from 0 to {size - 1}.", field="prompt")
    return prompt


def _conversation(request: ChatRequest, served: Served, models: Models) -> list[int]:
    if served.chat_template is None:
        raise InvalidConfig(
            f"messages: the model {served.name!r} has no chat template; use /v1/completions.", field="messages"
        )
    messages = [message.plain() for message in request.messages]
    if not any(message["content"].strip() for message in messages):
        raise InvalidConfig("messages: they are empty; say something in at least one.", field="messages")
    try:
        text: str = models.base.tokenizer.apply_chat_template(
            messages, chat_template=served.chat_template, tokenize=False, add_generation_prompt=True
        )
    except Exception as error:  # a template is a program, which may fail in any way
        reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
        raise InvalidConfig(f"messages: the chat template does not take them: {reason}", field="messages") from error
    return _tokens(text, "messages", models, special=False)


def _tokens(text: str, field: str, models: Models, *, special: bool) -> list[int]:
    context = models.base.context
    if len(text) > context * _CHARACTERS_PER_TOKEN:
        _too_long(field, f"{len(text)} characters", context)
    tokens: Sequence[int] = models.base.tokenizer(text, add_special_tokens=special)["input_ids"]
    if not tokens:
        raise InvalidConfig(f"{field}: it comes to no tokens at all.", field=field)
    return list(tokens)


def _too_long(field: str, size: str, context: int) -> NoReturn:
    raise InvalidConfig(
        f"{field}: it has {size}, the model's context is {context} tokens with the answer.",
        field=field,
        code="context_length_exceeded",
    )
