"""`Tape`: what is called while a model runs, to be called again without the model's Python.

Three kinds of calls make a step. Compiled kernels take addresses; they note themselves (`core.kernels.compiled`). torch's
operations are seen by a dispatch mode. What depends on more than its tensors, such as attention, which reads the running step,
says so by `repeat` or `anew`, and is called again as a whole.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only, tree_structure, tree_unflatten

from .arena import Arena

F = TypeVar("F", bound=Callable[..., Tensor])
_HOST_READS = frozenset(("numpy", "tolist", "__array__", "__dlpack__", "storage", "untyped_storage"))
"""Methods of a tensor by which a model would see numbers that are others in the next step."""
_ALLOCATIONS = frozenset(
    getattr(torch.ops.aten, name) for name in ("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided")
)
_OF_SHAPES = frozenset(
    f"aten::{name}"
    for name in ("size", "stride", "dim", "numel", "sym_size", "sym_stride", "sym_numel", "sym_storage_offset", "is_contiguous",
                 "is_floating_point", "is_complex", "is_signed", "is_same_size", "result_type")
)  # fmt: skip
"""Operations that give no tensor, and look at none's numbers."""
_UNREPEATABLE = (torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape, torch.Tag.nondeterministic_seeded)


class Refused(Exception):
    """What a model does in a step cannot be recorded; the text says what it is."""


class _Active(threading.local):
    tape: Tape | None = None


_active = _Active()


class Tape:
    """The calls of a step, in order.

    Args:
        arena: Where what they make lies.
    """

    def __init__(self, arena: Arena) -> None:
        self._arena = arena
        self.calls: list[tuple[Callable[..., Any], tuple[Any, ...]]] = []
        self.refused: str | None = None

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Note what this thread calls.

        Raises:
            Refused: At the end, where something of it cannot be called again.
            Full: The arena has no room.
        """
        _active.tape = self
        try:
            with _Reads(), _Operations():  # type: ignore[no-untyped-call]
                yield
        finally:
            _active.tape = None
        if self.refused is not None:
            raise Refused(self.refused)

    @contextmanager
    def _paused(self) -> Iterator[None]:
        _active.tape = None
        try:
            yield
        finally:
            _active.tape = self

    def note(self, call: Callable[..., Any], args: tuple[Any, ...]) -> None:
        """Have a call made again with the same arguments; where it writes must be in the arena, or last as the model does."""
        self.calls.append((call, args))

    def refuse(self, why: str) -> None:
        """Say that this step cannot be recorded. It still runs to its end."""
        self.refused = self.refused or why

    def play(self) -> None:
        """Make the calls again."""
        for call, args in self.calls:
            call(*args)

    def operation(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run one of torch's operations, and note it."""
        with self._paused():
            if func.overloadpacket in _ALLOCATIONS:
                like = func(*args, **{**kwargs, "device": "meta"})
                return self._arena.empty(like.shape, like.stride(), like.dtype)
            made = func(*args, **kwargs)
            outputs = tree_leaves(made)
            if any(tag in func.tags for tag in _UNREPEATABLE) or not _are_tensors(outputs, func):
                self.refuse(f"calls {func}, which a recording cannot repeat")
            elif func._schema.is_mutable:
                self.note(self._again(func, args, kwargs), ())
            elif not _are_views(outputs, (args, kwargs)):
                return tree_unflatten(self._filled(outputs, self._again(func, args, kwargs)), tree_structure(made))
            return made

    def repeat(
        self, call: Callable[..., None], args: tuple[Any, ...], again: Callable[..., Callable[[], None] | None] | None
    ) -> None:
        """Make a call that depends on more than its tensors and writes to some of them, now and each time; see `repeat`."""
        with self._paused():
            call(*args)
            made = again(*args) if again is not None else None
            self.note(made or self._again(call, args, {}), ())

    def anew(self, kernel: Callable[..., Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        """Call what depends on more than its tensors, now and each time."""
        with self._paused():
            return self._filled([kernel(*args, **kwargs)], self._again(kernel, args, kwargs))[0]

    def _again(self, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Callable[[], Any]:
        """The same call, which does not hold the places of its tensors: the model alone does, so that they are free again
        when it has no more use for them."""
        args, kwargs = tree_map_only(Tensor, self._unowned, (args, kwargs))
        return functools.partial(call, *args, **kwargs)

    def _filled(self, outputs: Sequence[Tensor], again: Callable[[], Any]) -> list[Tensor]:
        """What a call made, in places of the arena, which are filled each time."""
        places = [self._place(out) for out in outputs]
        for place, out in zip(places, outputs):
            place.copy_(out)
        unowned = [self._unowned(place) for place in places]
        self.note(*((_fill, (unowned[0], again)) if len(unowned) == 1 else (_fill_all, (unowned, again))))
        return places

    def _place(self, made: Tensor) -> Tensor:
        if not _is_plain(made):
            raise Refused(f"makes a tensor of {made.layout} on {made.device}")
        return self._arena.empty(made.shape, None if made.is_contiguous() else made.stride(), made.dtype)

    def _unowned(self, tensor: Tensor) -> Tensor:
        return self._arena.unowned(tensor) if _is_plain(tensor) else tensor


def active() -> Tape | None:
    """The tape that notes what this thread calls, if any."""
    return _active.tape


def repeat(
    call: Callable[..., None], *args: Any, again: Callable[..., Callable[[], None] | None] | None = None
) -> None:
    """Make a call that depends on more than its tensors, such as on the running step, and writes to some of them.

    Args:
        call: Called now, and each time.
        args: Its arguments.
        again: Takes the same, and makes what is called in later steps instead, if it can; it must hold none of the tensors.
    """
    tape = _active.tape
    if tape is None:
        call(*args)
    else:
        tape.repeat(call, args, again)


def anew(kernel: F) -> F:
    """Decorate a kernel's call that depends on more than its tensors and makes another one. `repeat` is quicker."""

    @functools.wraps(kernel)
    def called(*args: Any, **kwargs: Any) -> Tensor:
        tape = _active.tape
        if tape is None:
            return kernel(*args, **kwargs)
        return tape.anew(kernel, args, kwargs)

    return cast(F, called)


class _Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Shows torch's operations to the thread's tape."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # torch would import its compiler, triton and sympy to keep them out of here

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        tape = _active.tape
        return func(*args, **(kwargs or {})) if tape is None else tape.operation(func, args, kwargs or {})


class _Reads(TorchFunctionMode):
    """Refuses what takes numbers out of tensors and is no operation."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        tape = _active.tape
        if tape is not None and getattr(func, "__name__", "") in _HOST_READS:
            tape.refuse(f"calls a tensor's {func.__name__}(), whose numbers are others in the next step")
        return func(*args, **(kwargs or {}))


def _fill(place: Tensor, call: Callable[[], Any]) -> None:
    made = call()
    place.copy_(made if isinstance(made, Tensor) else tree_leaves(made)[0])


def _fill_all(places: Sequence[Tensor], call: Callable[[], Any]) -> None:
    for place, made in zip(places, tree_leaves(call())):
        place.copy_(made)


def _is_plain(tensor: Tensor) -> bool:
    return tensor.layout is torch.strided and tensor.device.type == "cpu" and not tensor.is_mkldnn


def _are_views(outputs: Sequence[Tensor], inputs: Any) -> bool:
    """Whether all of an operation's outputs lie in its inputs."""
    storages = {x.untyped_storage()._cdata for x in tree_leaves(inputs) if isinstance(x, Tensor) and _is_plain(x)}
    return all(_is_plain(out) and out.untyped_storage()._cdata in storages for out in outputs)


def _are_tensors(outputs: Sequence[Any], func: Any) -> bool:
    """Whether an operation gives tensors, and not something that was read of their numbers, or is known before them."""
    return all(isinstance(out, Tensor) for out in outputs) or func.overloadpacket._qualified_op_name in _OF_SHAPES
