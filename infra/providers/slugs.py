"""What users name rented machines by: one id for a kind of GPU, however its vendors write it."""

import re

# Who makes it, how it is mounted, what its memory is made of: nothing of that tells two GPUs apart to a job. Vendors
# disagree on these words, and offers of one id show them in their names.
_LEFT_OUT = re.compile(
    r"nvidia|amd|geforce|tesla|quadro|instinct|corporation|graphics|generation|server|workstation|edition|blackwell|ws"
    r"|pcie?|sxm\d*|nvl|oam|hbm\d\w?"
)
_COUNT = re.compile(r"-x(\d{1,3})$", re.ASCII)
_SIZE = re.compile(r"(\d+) ?gi?b\b")
# Under one name, each of these is sold with more than one size of memory, which decides what fits.
_SEVERAL_SIZES = re.compile(r"a30|a[18]00|gh200|h20|h100|k80|p100|v100|rtx30[568]0|rtx[45]060ti")
_SIZES = (4, 5, 6, 8, 10, 11, 12, 16, 20, 24, 32, 40, 48, 64, 80, 94, 96, 141, 144, 180, 192, 256, 288)
_ALSO_CALLED = {"a4000": "rtxa4000", "a5000": "rtxa5000", "a6000": "rtxa6000"}


def resource_id(gpu: str, vram_gb: float | None, count: int = 1) -> str:
    """
    Return the id of a machine with GPUs of a kind: ``gpu-rtx4090``, ``gpu-a100-80gb``, ``gpu-h100-80gb-x8``.

    ``vram_gb`` is of one GPU, and taken from the name where it is None. Several offers may share an id: they differ in
    price, place, or how the GPU is mounted.
    """
    return f"gpu-{slug(gpu, vram_gb)}" + (f"-x{count}" if count > 1 else "")


def count_in(resource: str) -> int:
    """Return how many GPUs the machine of an id has."""
    found = _COUNT.search(resource)
    return int(found[1]) if found else 1


def slug(gpu: str, vram_gb: float | None = None) -> str:
    """Return a kind of GPU in one word, with its memory where the name alone does not tell: ``a100-80gb``."""
    size = vram_in(gpu) if vram_gb is None else vram_gb
    model = model_of(gpu)
    return f"{model}-{_usual(size)}gb" if size and _SEVERAL_SIZES.fullmatch(model) else model


def model_of(gpu: str) -> str:
    """Return a kind of GPU without its memory: ``a100``."""
    words = re.sub(r"[^a-z0-9]+", " ", _SIZE.sub(" ", gpu.lower().replace("-", " "))).split()
    kept = "".join(word for word in words if not _LEFT_OUT.fullmatch(word))
    return _ALSO_CALLED.get(kept, kept) or "unknown"


def vram_in(text: str) -> float | None:
    """Return the GB that a vendor's words on a GPU name, if any: ``A10 (24 GB PCIe)``."""
    found = _SIZE.search(text.lower())
    return float(found[1]) if found else None


def _usual(gb: float) -> int:
    """Return the size it is sold with: vendors leave out what the driver takes, or count in another GB."""
    return min(_SIZES, key=lambda size: abs(size - gb))
