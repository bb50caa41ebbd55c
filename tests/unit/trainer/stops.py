"""A wish to stop that comes at a chosen moment."""

from peft_studio.trainer.stop import StopSignal


class StopAtLook(StopSignal):
    """Asks for a stop the n-th time somebody looks."""

    def __init__(self, n: int):
        super().__init__()
        self._left = n

    @property
    def requested(self) -> bool:
        self._left -= 1
        if self._left <= 0:
            self.set("enough")
        return super().requested
