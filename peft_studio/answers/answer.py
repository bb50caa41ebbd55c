"""What every answer of a studio is."""

from pydantic import BaseModel, ConfigDict


class Answer(BaseModel):
    """An answer, of which this version knows these fields."""

    model_config = ConfigDict(extra="ignore", protected_namespaces=())


class Deleted(Answer):
    """Something that is no more."""

    success: bool
