"""Errors on their way between processes: of the same class, and with the same code, at the other end."""

from __future__ import annotations

from typing import Any

from sdk import errors

from .wire import Fault

_CLASSES: dict[str, type[errors.EngineError]] = {
    name: value
    for name, value in vars(errors).items()
    if isinstance(value, type) and issubclass(value, errors.EngineError)
}
_DETAILS = ("plugin", "hook", "request_id")
MAX_CAUSES = 4


def to_fault(error: BaseException, *, causes: int = MAX_CAUSES) -> Fault:
    """An error for the wire. One of a class that the SDK does not know goes as the nearest that it does."""
    if not isinstance(error, errors.EngineError):
        error = errors.ServerError(f"{type(error).__name__}: {error!s:.500}")
    kind = next(c.__name__ for c in type(error).__mro__ if _CLASSES.get(c.__name__) is c)
    details = {name: getattr(error, name) for name in _DETAILS if hasattr(error, name)}
    cause = error.__cause__ if causes else None
    return Fault(
        kind=kind,
        message=error.message,
        code=error.code,
        param=error.param,
        details=details,
        cause=to_fault(cause, causes=causes - 1) if isinstance(cause, errors.EngineError) else None,
    )


def from_fault(fault: Fault) -> errors.EngineError:
    """The error that a fault was; each call makes one of its own, since who raises it writes to it.

    Its class's `__init__` is not called: some compose their message there, and this one is composed already.
    """
    kind = _CLASSES.get(fault.kind, errors.ServerError)
    error: Any = kind.__new__(kind, fault.message)
    error.args, error.message, error.param, error.code = (fault.message,), fault.message, fault.param, fault.code
    for name, value in fault.details.items():
        if name in _DETAILS:
            setattr(error, name, value)
    if fault.cause is not None:
        error.__cause__ = from_fault(fault.cause)
    made: errors.EngineError = error
    return made


__all__ = ["from_fault", "to_fault"]
