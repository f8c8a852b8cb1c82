"""A second device for machines without one: it computes on the CPU and behaves like a GPU where mistakes are made.

A tensor on it is a tensor of its own kind. As on a GPU, an operation on tensors of two devices raises, but for
numbers (0 dimensions), indices, and copies; what reads a value back is a wait, and is counted. As on Apple's
GPU there is no float64, and :func:`tf32` rounds convolutions as NVIDIA's do by default. It says nothing of speed
and of memory.

Importing this module gives PyTorch the device "second" for the rest of the process, so only a process of its own
should (``second_device_runs.py``). PyTorch calls the interface experimental.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "second"
WAITS: Counter[str] = Counter()
"""How often each operation had to wait for the device, since it was last cleared."""

_coarse = False
_CONVOLUTIONS = {"aten::conv2d", "aten::convolution", "aten::convolution_backward"}
_MIXED = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_"}
_COPIES = {"aten::copy_", "aten::_to_copy", "aten::to"}
_READS = {
    "aten::_local_scalar_dense",
    "aten::nonzero",
    "aten::masked_select",
    "aten::_unique2",
    "aten::equal",
}


class _Module:
    """What PyTorch asks of a device's module."""

    is_available = staticmethod(lambda: True)
    is_initialized = staticmethod(lambda: True)
    device_count = staticmethod(lambda: 1)
    current_device = staticmethod(lambda: 0)
    manual_seed_all = staticmethod(lambda seed: None)
    _is_in_bad_fork = staticmethod(lambda: False)
    get_amp_supported_dtype = staticmethod(lambda: [torch.bfloat16, torch.float16])


_setup_privateuseone_for_python_backend(NAME, backend_module=_Module)
_DEVICE = torch.device(NAME, 0)


class There(Tensor):
    """A tensor on the second device; ``inner`` holds its numbers."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> There:
        if inner.dtype == torch.float64:
            raise TypeError("the second device has no float64")
        with torch.inference_mode(False):  # a view of it may be taken outside
            self = Tensor._make_wrapper_subclass(
                cls,
                inner.shape,
                strides=inner.stride(),
                storage_offset=inner.storage_offset(),
                dtype=inner.dtype,
                device=_DEVICE,
            )
        self.inner = inner
        return self

    def __init__(self, inner: Tensor) -> None: ...

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _call(function, args, kwargs or {})

    def tolist(self) -> Any:
        WAITS["tolist"] += 1
        return self.inner.tolist()

    def untyped_storage(self) -> torch.UntypedStorage:
        return self.inner.untyped_storage()

    def __repr__(self) -> str:  # type: ignore[override]
        return f"There({self.inner})"


class SecondDevice(TorchDispatchMode):
    """Within the block ``device="second"`` can be used."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _call(function, args, kwargs or {})


@contextmanager
def tf32() -> Iterator[None]:
    """Within the block convolutions on the second device take numbers of 11 binary digits, not of 24."""
    global _coarse
    _coarse = True
    try:
        yield
    finally:
        _coarse = False


def _rounded(value: Any) -> Any:
    """The nearest number of 11 digits: the 13 last of float32's bits become 0."""
    if not isinstance(value, Tensor) or value.dtype != torch.float32:
        return value
    bits = value.contiguous().view(torch.int32)
    return ((bits + 0xFFF + ((bits >> 13) & 1)) & ~0x1FFF).view(torch.float32)


def _bare(value: Any) -> Any:
    """An argument as it is on the CPU."""
    if isinstance(value, torch.device):
        return torch.device("cpu")
    return value.inner if isinstance(value, There) else value


def _call(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    name, arguments = function._schema.name, function._schema.arguments
    values = pytree.tree_leaves((args, kwargs))
    tensors = [value for value in values if isinstance(value, Tensor)]
    there = any(isinstance(value, There) for value in tensors)
    target = next((value for value in values if isinstance(value, torch.device)), None)
    if there:
        _check(name, args, tensors)
        if _waits(name, args, target):
            WAITS[name] += 1
    bare_args, bare_kwargs = pytree.tree_map(_bare, (args, kwargs))
    if _coarse and there and name in _CONVOLUTIONS:
        bare_args = pytree.tree_map(_rounded, bare_args)
    result = function(*bare_args, **bare_kwargs)
    for argument, value in [*zip(arguments, args, strict=False), *_outputs(arguments, kwargs)]:
        if argument.alias_info is not None and argument.alias_info.is_write and isinstance(result, Tensor):
            return value  # written in place
    on_it = there if target is None else target.type == NAME
    return pytree.tree_map(
        lambda value: There(value) if on_it and isinstance(value, Tensor) else value, result
    )


def _outputs(arguments: Any, kwargs: dict[str, Any]) -> list[tuple[Any, Any]]:
    return [(argument, kwargs[argument.name]) for argument in arguments if argument.name in kwargs]


def _check(name: str, args: tuple[Any, ...], tensors: list[Tensor]) -> None:
    """Raises where a GPU would for tensors of two devices."""
    if name in _COPIES:
        return
    if name in _MIXED:  # the indices may lie anywhere, if what they index is on the device
        tensors = [args[0], *(value for value in args[2:] if isinstance(value, Tensor))]
        if not isinstance(args[0], There):
            raise RuntimeError(f"{name}: a tensor on the CPU and an index on the second device")
    here = [tuple(value.shape) for value in tensors if not isinstance(value, There) and value.dim() > 0]
    if here:
        raise RuntimeError(f"{name}: tensors on two devices; on the CPU: {here}")


def _waits(name: str, args: tuple[Any, ...], target: torch.device | None) -> bool:
    if name in ("aten::_to_copy", "aten::to"):
        return target is not None and target.type == "cpu"
    if name == "aten::copy_":
        return not isinstance(args[0], There)
    if name in _MIXED:  # a mask has to be counted first
        return any(isinstance(index, There) and index.dtype == torch.bool for index in args[1])
    return name in _READS


def _empty_strided(size: Any, stride: Any, *, dtype: torch.dtype | None = None, **_: Any) -> There:
    return There(torch.empty_strided(size, stride, dtype=dtype))


def _empty(size: Any, *, dtype: torch.dtype | None = None, **_: Any) -> There:
    return There(torch.empty(size, dtype=dtype))


def _copy_from(source: Tensor, target: Tensor, non_blocking: bool = False) -> Tensor:
    _bare(target).copy_(_bare(source))
    return target


_AUTOCAST = torch.library.Library("_", "IMPL", "AutocastPrivateUse1")  # which runs, and rounds nothing
_AUTOCAST.fallback(torch.library.fallthrough_kernel)
_LIBRARY = torch.library.Library("aten", "IMPL")  # for torch.tensor(…, device="second"), which no mode sees
_LIBRARY.impl("empty_strided", _empty_strided, "PrivateUse1")
_LIBRARY.impl("empty.memory_format", _empty, "PrivateUse1")
_LIBRARY.impl("_copy_from", _copy_from, "PrivateUse1")
