"""
Receipts of rented machines as they stand in Prefect's database: of a job, of a month, all that are not over.

A receipt is an artifact of the type ``MACHINE``. Its key is the machine's name, which starts with ``KEY``; its data is
the receipt's JSON. Every change is a new version, written through Prefect's server; the newest one counts, and the
first one is written from within the job's own flow run.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Protocol
from uuid import UUID

from infra.prefect_database import PrefectDatabase
from peft_studio.machines import MachineReceipt, MachineStatus

MACHINE = "peft-studio.machine"  # type of the artifact that holds a MachineReceipt
KEY = "machine-"

# Prefect keeps the newest version of every key in this table; the key's index finds those that start alike.
_NEWEST = f"""SELECT c.data #>> '{{}}' AS receipt FROM artifact_collection c
    WHERE c.key LIKE '{KEY}%' AND c.type = '{MACHINE}'"""
_FIELD = "((c.data #>> '{{}}')::json ->> '{name}')"
_OVER = ", ".join(f"'{status}'" for status in MachineStatus if status.is_over)


class Machines(Protocol):
    """Where receipts are read, each list the oldest first, and closed by hand."""

    async def not_over(self) -> Sequence[MachineReceipt]:
        """Return the machines of which something is still to be done."""
        ...

    async def latest(self, limit: int, provider: str | None = None) -> Sequence[MachineReceipt]:
        """Return the machines rented last, of one provider or of all."""
        ...

    async def settle(self, name: str, cost: float, key_name: str) -> MachineReceipt:
        """Close the receipt of a stranded machine; raises ``NotFound``, and ``Conflict`` for one that is at work."""
        ...


class MachineReads:
    """The receipts of all machines that were ever rented."""

    def __init__(self, database: PrefectDatabase):
        self._database = database

    async def of_job(self, run_id: UUID) -> Sequence[MachineReceipt]:
        """Return the machines of one job, by its flow run, the first one first."""
        query = f"""WITH own AS MATERIALIZED (
                SELECT DISTINCT a.key FROM artifact a WHERE a.flow_run_id = $1 AND a.type = '{MACHINE}')
            SELECT c.data #>> '{{}}' AS receipt FROM own JOIN artifact_collection c ON c.key = own.key"""
        return await self._receipts(query, run_id)

    async def not_over(self) -> Sequence[MachineReceipt]:
        """Return the machines of which something is still to be done, the oldest first."""
        return await self._receipts(f"{_NEWEST} AND {_FIELD.format(name='status')} NOT IN ({_OVER})")

    async def of_month(self, month: datetime) -> Sequence[MachineReceipt]:
        """Return the machines that were rented in a time's calendar month (UTC), the oldest first."""
        begin = month.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        end = begin.replace(year=begin.year + begin.month // 12, month=begin.month % 12 + 1)
        intended = f"{_FIELD.format(name='intended_at')}::timestamptz"
        return await self._receipts(f"{_NEWEST} AND {intended} >= $1 AND {intended} < $2", begin, end)

    async def latest(self, limit: int, provider: str | None = None) -> Sequence[MachineReceipt]:
        """Return the machines rented last, of one provider or of all, the oldest of them first."""
        own = f"($2::text IS NULL OR {_FIELD.format(name='provider')} = $2)"
        return await self._receipts(f"{_NEWEST} AND {own} ORDER BY c.created DESC LIMIT $1", limit, provider)

    async def _receipts(self, query: str, *values: Any) -> Sequence[MachineReceipt]:
        rows = await self._database.fetch(query, *values)
        receipts = [MachineReceipt.model_validate_json(row["receipt"]) for row in rows]
        return sorted(receipts, key=lambda receipt: (receipt.intended_at, receipt.attempt))
