"""What a GPU has to give: usable memory, and the data sheet of common cards."""

from __future__ import annotations

from typing import NamedTuple

CONTEXT_MIB = 180
"""What the CUDA context takes before PyTorch gets any (seen on a headless 8 GB card)."""

DESKTOP_MIB = 320
"""What a desktop, browser and the driver's own take besides; 0 on a headless machine."""

DRIVER_MIB = 400
"""What the driver keeps for itself: CUDA's total is so much less than the card's. Published logs
tell 7,777 of 8,192 MiB on an RTX 2070 (llama.cpp pull 21629) and 5.79 of 6 GiB on an RTX 2060."""

FRAGMENTATION = 0.02
"""What the caching allocator reserves beyond what is allocated, with expandable segments."""

FRAGMENTATION_OF_BLOCKS = 0.04
"""The same with its fixed blocks."""


class Card(NamedTuple):
    """One model of GPU by its vendor's data sheet."""

    name: str
    mib: int
    tflops: float
    """Dense matrix products of bf16 with fp32 accumulation, a second (fp16 on the T4)."""
    gb_per_s: float
    """Of its memory, in 10^9 bytes."""
    pcie_gb_per_s: float
    """Of its link to the host, one way, in 10^9 bytes."""


# NVIDIA's GA102 and Ada architecture white papers: tensor cores of GeForce cards do twice the
# fp32 shader rate in bf16 with fp32 accumulation (3090 71, 4090 165.2). Rates, bandwidth and lanes
# are of the cards' specification pages; memory is what nvidia-smi reports.
CARDS = (
    Card("RTX 4060", 8188, 30.2, 272, 16),
    Card("RTX 3050", 8192, 18.2, 224, 16),
    Card("RTX 3060", 12288, 25.5, 360, 32),
    Card("RTX 4060 Ti", 16380, 44.1, 288, 16),
    Card("RTX 3090", 24576, 71.0, 936, 32),
    Card("RTX 4070", 12282, 58.3, 504, 32),
    Card("RTX 4090", 24564, 165.2, 1008, 32),
    Card("T4", 15360, 65.0, 320, 16),
)


_VARIANTS = {"ti", "super", "laptop"}


def card_called(name: str) -> Card | None:
    """The card that a user or nvidia-smi calls so; None: it is not in the table."""
    words = set(name.lower().split())
    for card in CARDS:
        own = set(card.name.lower().split())
        if own <= words and not (words - own) & _VARIANTS:
            return card
    return None


def card_of_size(mib: int) -> Card | None:
    """The first card of about that memory, to give a figure where no card is named."""
    return next((card for card in CARDS if abs(card.mib - mib) <= card.mib // 50), None)


def usable_mib(gpu_mib: int, *, desktop_mib: int = DESKTOP_MIB, expandable: bool = True) -> int:
    """MiB of a card that may be allocated: without context and desktop, with room to fragment."""
    spare = FRAGMENTATION if expandable else FRAGMENTATION_OF_BLOCKS
    return max(0, int((gpu_mib - CONTEXT_MIB - desktop_mib) / (1 + spare)))


def reserved_mib(allocated_mib: int, *, expandable: bool = True) -> int:
    """MiB that the allocator holds (what nvidia-smi shows, less the context) at that peak."""
    spare = FRAGMENTATION if expandable else FRAGMENTATION_OF_BLOCKS
    return round(allocated_mib * (1 + spare))
