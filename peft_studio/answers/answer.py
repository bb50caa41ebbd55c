"""What every answer of a studio is."""

from typing import Any

from pydantic import BaseModel, ConfigDict


class Answer(BaseModel):
    """An answer: ``answer.job_id``, or as in the JSON that it came as, ``answer["job_id"]``."""

    model_config = ConfigDict(extra="ignore", protected_namespaces=())

    def __getitem__(self, name: str) -> Any:
        try:
            return getattr(self, name)
        except AttributeError:
            raise KeyError(name) from None


class Deleted(Answer):
    """Something that is no more."""

    success: bool
