"""
GPUs, as their makers rate them: how much memory, how fast, found by whatever name a vendor of machines uses.

Figures are those of the makers' data sheets: memory in GB and its bandwidth in GB a second, dense rates (without
sparsity) in TFLOP/s, of bfloat16 on tensor cores with sums in float32, and of float32 outside of tensor cores. Sources:
NVIDIA's data sheets of B300 and B200 (HGX), H200, GH200, H100, A100, L40S, L40, L4, A40, A10, T4, V100, of the RTX PRO
6000 and of the RTX Ada and RTX A series; AWS's of the A10G; of the GeForce 50, 40 and 30 series the appendices of
NVIDIA's RTX Blackwell, Ada and Ampere GA102 white papers; AMD's data sheet of the MI300X. Where a data sheet has a rate
with sparsity alone (RTX A and Ada, PRO 6000, L4, A10), half of it stands here; where it has FP8's or FP4's, a part.
"""

import re
from dataclasses import dataclass

from peft_studio.config import Precision


@dataclass(frozen=True)
class RatedGpu:
    """One kind of GPU; ``bf16_tflops`` is None where it does not compute in bfloat16."""

    name: str
    memory_gb: float
    bf16_tflops: float | None
    fp32_tflops: float
    bandwidth: float

    def gflops(self, precision: Precision) -> float:
        """The rate in the number format that training would use on it."""
        bf16 = None if precision is Precision.FLOAT32 else self.bf16_tflops
        return (bf16 or self.fp32_tflops) * 1e3


# The first pattern that is found in a name, in lower case with single blanks between words, is the one.
_RATED: tuple[tuple[str, RatedGpu], ...] = (
    (r"\bb300\b", RatedGpu("B300", 270, 2250, 75, 8000)),
    (r"\bg?b200\b", RatedGpu("B200", 180, 2250, 75, 8000)),
    (r"\bgh200\b", RatedGpu("GH200", 96, 990, 67, 4000)),
    (r"\bh200 nvl\b", RatedGpu("H200 NVL", 141, 835, 60, 4800)),
    (r"\bh200\b", RatedGpu("H200", 141, 989, 67, 4800)),
    (r"\bh100 nvl\b", RatedGpu("H100 NVL", 94, 835, 60, 3900)),
    (r"\bh100\b.*\bpcie\b", RatedGpu("H100 PCIe", 80, 756, 51, 2000)),
    (r"\bh100\b", RatedGpu("H100 SXM", 80, 989, 67, 3350)),
    (r"\ba100x?\b.*\b80 ?gb?\b", RatedGpu("A100 80 GB", 80, 312, 19.5, 1935)),
    (r"\ba100x?\b", RatedGpu("A100 40 GB", 40, 312, 19.5, 1555)),
    (r"\bl40s\b", RatedGpu("L40S", 48, 362, 91.6, 864)),
    (r"\bl40\b", RatedGpu("L40", 48, 181, 90.5, 864)),
    (r"\bl4\b", RatedGpu("L4", 24, 121, 30.3, 300)),
    (r"\ba40\b", RatedGpu("A40", 48, 149.7, 37.4, 696)),
    (r"\ba10g\b", RatedGpu("A10G", 24, 70, 35, 600)),
    (r"\ba10\b", RatedGpu("A10", 24, 125, 31.2, 600)),
    (r"\bt4\b", RatedGpu("T4", 16, None, 8.1, 320)),
    (r"\bv100\b.*\b32 ?gb?\b", RatedGpu("V100 32 GB", 32, None, 15.7, 900)),
    (r"\bv100\b", RatedGpu("V100 16 GB", 16, None, 15.7, 900)),
    (r"\brtx pro 6000\b", RatedGpu("RTX PRO 6000", 96, 500, 120, 1597)),
    (r"\brtx 6000 ?ada\b", RatedGpu("RTX 6000 Ada", 48, 364, 91.1, 960)),
    (r"\brtx 5000 ?ada\b", RatedGpu("RTX 5000 Ada", 32, 261, 65.3, 576)),
    (r"\brtx 4000 sff ?ada\b", RatedGpu("RTX 4000 SFF Ada", 20, 76.7, 19.2, 280)),
    (r"\brtx 4000 ?ada\b", RatedGpu("RTX 4000 Ada", 20, 107, 26.7, 360)),
    (r"\brtx 2000 ?ada\b", RatedGpu("RTX 2000 Ada", 16, 48, 12, 224)),
    (r"\ba6000\b", RatedGpu("RTX A6000", 48, 154.8, 38.7, 768)),
    (r"\ba5000\b", RatedGpu("RTX A5000", 24, 111.1, 27.8, 768)),
    (r"\ba4500\b", RatedGpu("RTX A4500", 20, 94.6, 23.7, 640)),
    (r"\ba4000\b", RatedGpu("RTX A4000", 16, 76.7, 19.2, 448)),
    (r"\b(quadro|q) rtx 6000\b|\brtx 6000 24 gb\b", RatedGpu("Quadro RTX 6000", 24, None, 16.3, 672)),
    (r"\brtx 5090\b", RatedGpu("RTX 5090", 32, 209.5, 104.8, 1792)),
    (r"\brtx 5080\b", RatedGpu("RTX 5080", 16, 112.6, 56.3, 960)),
    (r"\brtx 4090\b", RatedGpu("RTX 4090", 24, 165.2, 82.6, 1008)),
    (r"\brtx 4080 ?s(uper)?\b", RatedGpu("RTX 4080 SUPER", 16, 104.4, 52.2, 736)),
    (r"\brtx 4080\b", RatedGpu("RTX 4080", 16, 97.5, 48.7, 717)),
    (r"\brtx 4070 ?(s ti|ti super)\b", RatedGpu("RTX 4070 Ti SUPER", 16, 88.2, 44.1, 672)),
    (r"\brtx 4070 ?ti\b", RatedGpu("RTX 4070 Ti", 12, 80.2, 40.1, 504)),
    (r"\brtx 3090 ?ti\b", RatedGpu("RTX 3090 Ti", 24, 80, 40, 1008)),
    (r"\brtx 3090\b", RatedGpu("RTX 3090", 24, 71, 35.6, 936)),
    (r"\brtx 3080 ?ti\b", RatedGpu("RTX 3080 Ti", 12, 68.2, 34.1, 912)),
    (r"\brtx 3080\b", RatedGpu("RTX 3080", 10, 59.5, 29.8, 760)),
    (r"\brtx 3070\b(?! ?ti)", RatedGpu("RTX 3070", 8, 40.6, 20.3, 448)),
    (r"\bmi300x\b", RatedGpu("MI300X", 192, 1307, 163.4, 5300)),
)


def gpu_named(name: str | None) -> RatedGpu | None:
    """Return the ratings of a GPU by a vendor's name for it; None where it is not known here."""
    words = " ".join(re.findall(r"[a-z]+[a-z0-9]*|[0-9]+[a-z]*", (name or "").lower()))
    return next((gpu for pattern, gpu in _RATED if re.search(pattern, words)), None)
