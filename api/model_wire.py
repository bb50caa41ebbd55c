"""Envelopes of base models: a page of a search, and one model."""

from collections.abc import Sequence
from typing import Self

from pydantic import Field

from api.wire import Whole
from infra.hubs.search import ModelPage
from peft_studio.catalog import FoundModel, ModelDetails, UnavailableSource


class ModelSearch(Whole):
    """Models that were found, from all sources in turn."""

    models: Sequence[FoundModel]
    total: int = Field(description="Models known so far; no source says how many it has in all.")
    page: int
    next_cursor: str | None = Field(description="Send it as `cursor` for the next page; null on the last.")
    unavailable_sources: Sequence[UnavailableSource] = Field(description="Sources that did not answer in time.")

    @classmethod
    def of(cls, page: ModelPage) -> Self:
        """Show a page."""
        return cls(
            models=page.models,
            total=page.total,
            page=page.page,
            next_cursor=page.next_cursor,
            unavailable_sources=page.unavailable,
        )


class ModelShown(ModelDetails, Whole):
    """A base model; null where its files do not tell."""

    @classmethod
    def of(cls, details: ModelDetails) -> Self:
        """Show a model."""
        return cls.model_validate(details.model_dump())
