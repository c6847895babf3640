"""Functions of tensors that a GPU repeats by itself: a CUDA graph with buffers of its own.

A step of the time loop is some hundred small operations, and starting one from Python takes longer than the
GPU needs for it. A graph is recorded once, for tensors of given shapes, and then started as a whole. It reads
and writes at fixed addresses, so arguments are copied into buffers before each repetition and results are
copied out of them afterwards, under a lock: nothing outside ever sees a buffer.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Generic, TypeVar

import torch
from torch import Tensor

Function = Callable[..., Sequence[Tensor]]
"""Of tensors. It must start operations on the GPU alone, and always the same ones: no number of a tensor may
come to the processor, and no tensor from there."""
ItemT = TypeVar("ItemT")


def record(run: Callable[[], Sequence[Tensor]]) -> tuple[Callable[[], None], list[Tensor]]:
    """Record a CUDA graph.

    Args:
        run: starts what is recorded. It is called a few times before, because libraries set themselves up in
            their first calls, which a graph must not contain.

    Returns:
        what repeats it, and the tensors that the results are in after each repetition.
    """
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(2):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    # Other threads, such as NCCL's, may go on meanwhile.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        results = list(run())
    return graph.replay, results


class Replay:
    """A function that was recorded once and is then repeated.

    Args:
        function: what is recorded.
        examples: arguments, of the shapes and dtypes and on the device that all calls will have.
    """

    def __init__(self, function: Function, examples: Sequence[Tensor]):
        self._lock = threading.Lock()
        # Tensors of the inference mode could not be overwritten outside of it.
        with torch.inference_mode(False), torch.no_grad():
            self._arguments = [example.detach().clone(memory_format=_LAYOUT) for example in examples]
            self._again, self._results = record(lambda: function(*self._arguments))

    @torch.no_grad()
    def __call__(self, arguments: Sequence[Tensor]) -> list[Tensor]:
        """The function's results, in new tensors."""
        with self._lock:
            for own, given in zip(self._arguments, arguments, strict=True):
                own.copy_(given)
            self._again()
            return [result.clone(memory_format=_LAYOUT) for result in self._results]


_LAYOUT = torch.contiguous_format


class Latest(Generic[ItemT]):
    """What was made for a key, kept for the keys that were asked for last.

    Args:
        most: so many are kept.
    """

    def __init__(self, most: int):
        self.most = most
        self._items: OrderedDict[Hashable, ItemT] = OrderedDict()
        self._lock = threading.RLock()

    def __len__(self) -> int:
        return len(self._items)

    def get(self, key: Hashable, make: Callable[[], ItemT]) -> ItemT:
        """What is kept for the key, or what ``make`` makes, which is kept from now on."""
        with self._lock:
            if key not in self._items:
                self._items[key] = make()
                if len(self._items) > self.most:
                    self._items.popitem(last=False)
            self._items.move_to_end(key)
            return self._items[key]

    def clear(self) -> None:
        """Keep nothing."""
        with self._lock:
            self._items.clear()


def record_in_python(run: Callable[[], Sequence[Tensor]]) -> tuple[Callable[[], None], list[Tensor]]:
    """In place of :func:`record` where there is no GPU, for tests and rehearsals.

    What was recorded runs again, and as with a graph its results come to where they were.
    """
    run()
    results = list(run())

    def again() -> None:
        for result, new in zip(results, run(), strict=True):
            result.copy_(new)

    return again, results
