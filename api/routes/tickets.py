"""One-time tickets, with which browsers open WebSockets."""

from typing import Any

from litestar import Request, post
from litestar.di import NamedDependency
from litestar.params import SkipValidation

from api import key_examples
from api.auth import needs
from api.dependencies import Caller
from api.idempotency import NOT_KEPT
from api.key_wire import TicketIssued
from api.openapi import documented
from infra.tickets import Tickets


@post(
    "/tickets",
    summary="Get a ticket for a WebSocket",
    opt={**needs("read"), **NOT_KEPT},
    responses=documented(TicketIssued, key_examples.TICKET, status=201),
)
async def issue_ticket(
    request: Request[Caller, Any, Any], tickets: NamedDependency[SkipValidation[Tickets]]
) -> TicketIssued:
    """Return a ticket that opens one WebSocket within a minute, for scripts in browsers, which cannot set headers."""
    ticket = await tickets.issue(request.user.id)
    return TicketIssued(ticket=ticket.ticket, expires_at=ticket.expires_at)


ROUTES = [issue_ticket]
