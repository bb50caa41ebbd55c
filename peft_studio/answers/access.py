"""Answers about API keys and tickets."""

from datetime import datetime

from peft_studio.answers.answer import Answer


class Ticket(Answer):
    """Good for one WebSocket, soon."""

    ticket: str
    expires_at: datetime


class Key(Answer):
    """An API key, without its secret."""

    id: str
    name: str
    role: str
    created_at: datetime
    revoked_at: datetime | None = None
    last_used_at: datetime | None = None


class KeyList(Answer):
    """A page of API keys, oldest first, revoked ones too."""

    keys: list[Key]
    next_cursor: str | None = None


class KeyCreated(Key):
    """A new API key; ``key`` is its secret, which cannot be shown again."""

    key: str
