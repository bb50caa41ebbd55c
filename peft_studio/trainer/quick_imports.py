"""How a cold program of the trainer imports torch, transformers and PEFT: without what its job makes no use of."""

import gc
import os
import sys
from collections.abc import Generator
from contextlib import contextmanager

from peft_studio.run_dir import RunDir
from peft_studio.trainer.late import run_late
from peft_studio.trainer.unneeded import leave_out_unneeded

STOCK = "PEFT_STUDIO_STOCK_IMPORTS"  # set to anything, it has libraries imported as they are


@contextmanager
def quick_imports(run: RunDir) -> Generator[None]:
    """
    Import less while this lasts, and nothing twice later: what was left out is not found, or runs when it is asked for.

    A process that was forked from a warm one has its imports behind it.
    """
    if os.environ.get(STOCK):
        yield
        return
    leave_out_unneeded(run)
    if "torch" in sys.modules:
        yield
        return
    gc.disable()  # nothing of what is imported is garbage, and looking for it takes a tenth of the time
    try:
        run_late()
        if "RANK" not in os.environ:
            _train_alone()
        yield
    finally:
        gc.freeze()
        gc.enable()


def _train_alone() -> None:
    """Have libraries take PyTorch for one that cannot distribute, and import nothing of what they would do it with."""
    import torch.distributed

    torch.distributed.is_available = lambda: False
