"""An iteration recorded once on an NVIDIA GPU and then replayed (a CUDA graph).

An iteration is some 300 small operations with EfficientNet-Lite0, each launched from Python, and for a few images a
GPU finishes them sooner than Python can launch the next. A recording launches them all at once: the same operations,
the same numbers.

A network that cannot be recorded, because its forward pass reads values back from the device, runs without a recording.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from perturb_tutorial.batches import out_of_memory

WARM_UP = 3
"""Iterations before the recording, in which libraries choose their routines and take their memory."""
WORTH_RECORDING = 10
"""Fewer iterations are not recorded, since recording takes as long as some of them."""

Iterate = Callable[["int | torch.Tensor"], None]


def repeat(
    iterate: Iterate, first: int, last: int, device: torch.device, goes_on: Callable[[int], bool]
) -> int:
    """Calls ``iterate(first)`` … ``iterate(last − 1)``, each followed by ``goes_on(iterations done)`` while it is true.

    On an NVIDIA GPU most calls are replays of a recorded one.

    Args:
        iterate: one iteration. On an NVIDIA GPU it gets its number as a tensor of one integer on the device, and may
            depend on nothing else that changes outside of the device.
        first: the number of the first iteration, which is how many were done before.
        last: the number of iterations in all.
        device: where they run.
        goes_on: called with the number of iterations done, those before ``first`` included.

    Returns:
        The number of iterations done.
    """
    done, on = _replayed(iterate, first, last, device, goes_on) if device.type == "cuda" else (first, True)
    while on and done < last:
        iterate(done)
        done += 1
        on = goes_on(done)
    return done


def _replayed(
    iterate: Iterate, first: int, last: int, device: torch.device, goes_on: Callable[[int], bool]
) -> tuple[int, bool]:
    """The number of iterations done, and whether it goes on: all, unless ``goes_on`` ended them; those of the warm-up
    where the recording failed; none where a recording takes longer.
    """
    if last - first < WORTH_RECORDING:
        return first, True
    done, on = first, True
    with torch.cuda.device(device):
        number = torch.full((1,), first, dtype=torch.long, device=device)

        def advance() -> None:
            iterate(number)
            number.add_(1)

        with _aside(device):
            while on and done < first + WARM_UP:
                advance()
                done += 1
                on = goes_on(done)
        if not on:
            return done, False
        try:
            replay = _captured(advance, device)
        except RuntimeError as error:
            if _caused_by_full_memory(error):
                raise torch.cuda.OutOfMemoryError("out of memory while an iteration was recorded") from error
            torch.cuda.synchronize()
            return done, True
        while on and done < last:
            replay()
            done += 1
            on = goes_on(done)
        torch.cuda.current_stream().synchronize()  # the graph's memory is needed until here
    return done, on


def recorded(work: Callable[[], object], device: torch.device) -> Callable[[], object]:
    """A replay of ``work``, which is run a few times first; ``work`` itself on a device without recordings."""
    if device.type != "cuda":
        return work
    with torch.cuda.device(device):
        with _aside(device):
            for _ in range(WARM_UP):
                work()
        return _captured(work, device)


@contextmanager
def _aside(device: torch.device) -> Iterator[None]:
    """Within the block operations are launched on the stream for recordings, in order with those around it."""
    stream = _stream(device)
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        yield
    torch.cuda.current_stream().wait_stream(stream)


def _captured(work: Callable[[], object], device: torch.device) -> Callable[[], object]:
    graph = torch.cuda.CUDAGraph()
    # Other threads may use the GPU meanwhile.
    with torch.cuda.graph(graph, stream=_stream(device), capture_error_mode="thread_local"):
        work()
    return graph.replay


_streams = threading.local()


def _stream(device: torch.device) -> torch.cuda.Stream:
    """The stream of this thread and ``device`` on which iterations are recorded.

    Always the same one: libraries keep working memory for every stream that they have met.
    """
    kept: dict[str, torch.cuda.Stream] = _streams.__dict__
    name = str(device)
    if name not in kept:
        kept[name] = torch.cuda.Stream(device)
    return kept[name]


def _caused_by_full_memory(error: BaseException | None) -> bool:
    """Whether memory ran out, even if the end of the recording then raised an error of its own."""
    while error is not None:
        if isinstance(error, RuntimeError) and out_of_memory(error):
            return True
        error = error.__cause__ or error.__context__
    return False
