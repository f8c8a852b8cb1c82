"""A key of what a module computes, without running it: its weights, its layers' settings, and the code of its classes.

Two modules of one key compute the same, unless their code calls what has changed in another file; so a key may find
what was made of a module before, and what was found is tried before it is used. A module that holds anything of
which it is not plain what it does, such as a hook, a closure or a recorded graph, has no key.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import types
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

_PLAIN = (type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device, torch.memory_format)


class _NoKeyError(Exception):
    pass


def module_key(module: nn.Module) -> str | None:
    """64 hexadecimal digits; None for a module without a key."""
    sha = hashlib.sha256()
    numbers: dict[int, int] = {}

    def note(*parts: str) -> None:
        sha.update("\0".join(parts).encode("utf-8", "backslashreplace") + b"\1")

    def read(value: Any) -> None:
        if isinstance(value, nn.Module):
            read_module(value)
        elif isinstance(value, Tensor):
            read_tensor(value)
        elif isinstance(value, _PLAIN):
            note(type(value).__name__, repr(value))
        elif isinstance(value, Mapping):
            note("mapping", type(value).__qualname__, str(len(value)))
            for key, item in value.items():
                read(key)
                read(item)
        elif isinstance(value, list | tuple):
            note("sequence", type(value).__qualname__, str(len(value)))
            for item in value:
                read(item)
        elif isinstance(value, set | frozenset):
            read(sorted(value, key=repr))
        elif isinstance(value, functools.partial):
            read([value.func, value.args, value.keywords])
        elif isinstance(value, type | types.FunctionType | types.BuiltinFunctionType):
            note("code", _code_of(value))
        else:
            raise _NoKeyError

    def read_tensor(value: Tensor) -> None:
        if value.layout != torch.strided or value.is_quantized:
            raise _NoKeyError
        note("tensor", str(value.dtype), str(tuple(value.shape)))
        content = value.detach().cpu().contiguous().flatten().view(torch.uint8)
        sha.update(content.numpy().tobytes())

    def read_module(value: nn.Module) -> None:
        if id(value) in numbers:  # one layer in two places
            note("again", str(numbers[id(value)]))
            return
        if isinstance(value, fx.GraphModule | torch.jit.ScriptModule):
            raise _NoKeyError
        numbers[id(value)] = len(numbers)
        note("module", _code_of(type(value)))
        read(vars(value))

    try:
        read(module)
    except (_NoKeyError, RecursionError):
        return None
    return sha.hexdigest()


def _code_of(value: Any) -> str:
    """Name and source of a class or a function that a file defines."""
    name, module = value.__qualname__, getattr(value, "__module__", None)
    if isinstance(value, types.BuiltinFunctionType):
        return f"{module}.{name}"
    if "<" in name:  # of <locals> or a <lambda>: what it closes over is not in its source
        raise _NoKeyError
    sources = [_source(base) for base in (value.__mro__ if isinstance(value, type) else (value,))]
    return "\0".join([f"{module}.{name}", *sources])


@functools.lru_cache(maxsize=1024)
def _source(value: Any) -> str:
    """A hash of the file that defines a class or a function; "" for one of Python's own or of torch's."""
    if (getattr(value, "__module__", None) or "").split(".")[0] in ("builtins", "torch"):
        return ""  # torch's version is part of whatever uses the key
    try:
        file = inspect.getsourcefile(value)
    except TypeError:
        file = None
    try:
        return files_key([Path(file or "")])
    except OSError as error:
        raise _NoKeyError from error


def files_key(paths: Iterable[Path]) -> str:
    """A hash of the contents of files; ``OSError`` where one cannot be read."""
    sha = hashlib.sha256()
    for path in paths:
        sha.update(hashlib.sha256(path.read_bytes()).digest())
    return sha.hexdigest()


__all__ = ["files_key", "module_key"]
