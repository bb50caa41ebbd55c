"""What went over the wire between a provider and a simulator."""

from dataclasses import dataclass
from typing import Any

from infra.simulators.exchange import App


@dataclass(frozen=True)
class Exchange:
    """One request and its answer."""

    method: str
    path: str
    query: str
    sent: bytes
    status: int
    headers: dict[str, str]
    answered: bytes


def recorded(app: App, exchanges: list[Exchange]) -> App:
    """Note everything an application is asked and answers."""

    async def recording(scope: Any, receive: Any, send: Any) -> None:
        sent, answered, start = bytearray(), bytearray(), dict[str, Any]()

        async def receiving() -> Any:
            message = await receive()
            sent.extend(message.get("body", b""))
            return message

        async def sending(message: Any) -> None:
            start.update(message if message["type"] == "http.response.start" else {})
            answered.extend(message.get("body", b""))
            await send(message)

        await app(scope, receiving, sending)
        headers = {name.decode(): value.decode("latin-1") for name, value in start["headers"]}
        query = scope["query_string"].decode()
        exchanges.append(
            Exchange(scope["method"], scope["path"], query, bytes(sent), start["status"], headers, bytes(answered))
        )

    return recording
