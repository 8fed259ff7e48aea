"""Counts the bytes of live storages under fake tensors, as the caching allocator would hand out."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from palmswift.plan.weights import rounded


@dataclass
class _Storage:
    size: int
    reference: weakref.ref[Any]


class Tracker(TorchDispatchMode):  # type: ignore[misc]  # torch is not typed here
    """Sees every operation of its `with` block and follows each new storage until it is freed."""

    def __init__(self) -> None:
        super().__init__()
        self.allocated = 0
        """Bytes that are live now."""
        self.peaks: dict[str, int] = {}
        """The most bytes that were live in each phase."""
        self._phase: str | None = None
        self._live: dict[int, _Storage] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Record the peak of what the block does under `name`."""
        self._phase = name
        self._note_peak()
        try:
            yield
        finally:
            self._phase = None

    def on_host(self, tensor: torch.Tensor) -> torch.Tensor:
        """`tensor`, whose storage is not counted from now on: it stands for one in host memory."""
        held = self._live.get(id(tensor.untyped_storage()))
        if held is not None:
            self.allocated -= held.size
            held.size = 0
        return tensor

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run the operation and count the storages that it made."""
        result = func(*args, **(kwargs or {}))
        for leaf in pytree.tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self._count(leaf)
        return result

    def _count(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        key = id(storage)
        held = self._live.get(key)
        if held is not None and held.reference() is storage:
            return
        size = rounded(storage.nbytes())
        self._live[key] = _Storage(size, weakref.ref(storage, lambda _: self._free(key)))
        self.allocated += size
        self._note_peak()

    def _free(self, key: int) -> None:
        held = self._live.pop(key, None)
        if held is not None:
            self.allocated -= held.size

    def _note_peak(self) -> None:
        if self._phase is not None:
            self.peaks[self._phase] = max(self.allocated, self.peaks.get(self._phase, 0))
