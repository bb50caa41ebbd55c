"""Answers about rented machines."""

from peft_studio.answers.answer import Answer
from peft_studio.machines import MachineReceipt


class MachineList(Answer):
    """Rented machines, the newest first."""

    machines: list[MachineReceipt]
