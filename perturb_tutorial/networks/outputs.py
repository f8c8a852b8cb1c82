"""The tensor in a layer's output, and how to replace it during a pass.

It is the output itself, or the first item of a tuple, a list or a mapping: layers of transformers often return
``(hidden,)``, ``(hidden, weights)`` or a ``ModelOutput``, a mapping whose first value is the hidden states.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from perturb_tutorial.networks.hooks import of_this_thread


def first_tensor(output: Any) -> Tensor | None:
    """The tensor in ``output``; None where the output or its first item is no tensor."""
    if isinstance(output, tuple | list):
        output = output[0] if output else None
    elif isinstance(output, MutableMapping):
        output = next(iter(output.values()), None)
    return output if isinstance(output, Tensor) else None


def with_first_tensor(output: Any, tensor: Tensor) -> Any:
    """A copy of ``output`` with ``tensor`` in the place of :func:`first_tensor`, wherever the same tensor occurs."""
    first = first_tensor(output)
    if isinstance(output, MutableMapping):
        changed = copy.copy(output)
        for key in [key for key, item in output.items() if item is first]:
            changed[key] = tensor
        return changed
    if not isinstance(output, tuple | list):
        return tensor
    items = [tensor if item is first else item for item in output]
    return output._make(items) if hasattr(output, "_make") else type(output)(items)


@contextmanager
def replacing(
    module: nn.Module, layer: str, change: Callable[[Tensor], Tensor], runs: int | None = None
) -> Iterator[None]:
    """Within the block the tensor in the output of ``module``'s layer is replaced by ``change`` of it, in this thread.

    ``runs``: the run, counted from 1, that is changed; None changes each. An output without a tensor is a
    ``ValueError``.
    """
    done = 0

    @of_this_thread
    def hook(_: nn.Module, inputs: Any, output: Any) -> Any:
        nonlocal done
        done += 1
        if runs is not None and done != runs:
            return None
        tensor = first_tensor(output)
        if tensor is None:
            raise ValueError(
                f"layer: expected the output of {layer!r} to be a tensor or to begin with one, got "
                f"{type(output).__name__}"
            )
        return with_first_tensor(output, change(tensor))

    handle = module.get_submodule(layer).register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


__all__ = ["first_tensor", "replacing", "with_first_tensor"]
