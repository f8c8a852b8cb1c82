"""Hooks on a shared module that act in one thread alone, and layers that are called by keyword."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from threading import get_ident
from typing import Any, ParamSpec, TypeVar

_P = ParamSpec("_P")
_R = TypeVar("_R")


def of_this_thread(hook: Callable[_P, _R]) -> Callable[_P, _R | None]:
    """``hook``, active in passes of the calling thread only.

    All threads share a network's module, and with it the hooks that one of them has set.
    """
    thread = get_ident()

    @wraps(hook)
    def own(*args: _P.args, **kwargs: _P.kwargs) -> _R | None:
        return hook(*args, **kwargs) if get_ident() == thread else None

    return own


def first_input(inputs: tuple[Any, ...], named: dict[str, Any]) -> Any:
    """The first of a layer's inputs, by place or by name; None where it has none.

    For hooks registered with ``with_kwargs=True``: to others ``layer(input=x)`` shows no input at all.
    """
    return next(iter((*inputs, *named.values())), None)
