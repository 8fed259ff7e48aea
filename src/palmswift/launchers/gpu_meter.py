"""Memory, load and temperature of the cards, as NVML tells them; nothing where it does not."""

from __future__ import annotations

import importlib
import os
from typing import Any, NamedTuple


class CardReading(NamedTuple):
    """One card at this moment."""

    number: int
    name: str
    used_mib: int
    total_mib: int
    busy_percent: int | None
    celsius: int | None


class GpuMeter:
    """Asks NVML (the package nvidia-ml-py, a part of the extra `gpu`) for the cards in use."""

    def __init__(self) -> None:
        """No error where the package, the library, the driver or a card is missing."""
        self._nvml: Any = None
        self._cards: list[tuple[int, str, Any]] = []
        try:
            nvml = importlib.import_module("pynvml")
            nvml.nvmlInit()
        except Exception:  # noqa: BLE001  # ImportError, NVMLError, a library of another version
            return
        self._nvml = nvml
        try:
            self._cards = [
                (index, _text(nvml.nvmlDeviceGetName(handle)), handle)
                for index in range(nvml.nvmlDeviceGetCount())
                for handle in [nvml.nvmlDeviceGetHandleByIndex(index)]
                if _is_visible(index, nvml, handle)
            ]
        except Exception:  # noqa: BLE001  # a card that has fallen off the bus, for one
            self.close()

    def read(self) -> list[CardReading]:
        """The cards' readings; empty when there are none, or NVML fails."""
        try:
            return [self._reading(*card) for card in self._cards]
        except Exception:  # noqa: BLE001  # the training is not ended by its thermometer
            self.close()
            return []

    def _reading(self, index: int, name: str, handle: Any) -> CardReading:
        memory = self._nvml.nvmlDeviceGetMemoryInfo(handle)
        return CardReading(
            number=index,
            name=name,
            used_mib=int(memory.used) >> 20,
            total_mib=int(memory.total) >> 20,
            busy_percent=self._optional("nvmlDeviceGetUtilizationRates", handle, "gpu"),
            celsius=self._optional("nvmlDeviceGetTemperature", handle, None, 0),
        )

    def _optional(self, function: str, handle: Any, part: str | None, *more: int) -> int | None:
        """A value that some cards do not tell (virtual ones, laptops)."""
        try:
            value = getattr(self._nvml, function)(handle, *more)
        except Exception:  # noqa: BLE001  # NVMLError_NotSupported
            return None
        return int(getattr(value, part) if part else value)

    def close(self) -> None:
        """Let NVML go."""
        self._cards = []
        if self._nvml is not None:
            nvml, self._nvml = self._nvml, None
            try:
                nvml.nvmlShutdown()
            except Exception:  # noqa: BLE001  # it is gone already
                return


def _is_visible(index: int, nvml: Any, handle: Any) -> bool:
    """Whether CUDA_VISIBLE_DEVICES lets a training use the card."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is None:
        return True
    words = [word.strip() for word in chosen.split(",") if word.strip()]
    if str(index) in words:
        return True
    if all(word.lstrip("-").isdigit() for word in words):
        return False
    return _text(nvml.nvmlDeviceGetUUID(handle)) in words


def _text(value: str | bytes) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value
