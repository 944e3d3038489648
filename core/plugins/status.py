"""The state of each installed plugin, a line each, as `engine plugins list` shows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from sdk.errors import PluginError

from .claims import Claim

State = Literal["ready", "disabled", "conflict", "incompatible", "quarantined"]
_WORST_FIRST = ("quarantined", "incompatible", "disabled")


@dataclass(frozen=True)
class PluginStatus:
    """One distribution.

    Attributes:
        name: Its short name: `"llava"` for engine-plugin-llava.
        distribution, version, origin, api: As in `Claim`.
        architectures: What it claims; `"*"` for a fallback.
        state: Whether it can be used; a `conflict` is an error only when the contested architecture is asked for.
        reason: Why not, or what a user should know.
    """

    name: str
    distribution: str
    version: str
    origin: str
    architectures: tuple[str, ...]
    api: str
    state: State
    reason: str = ""

    def as_json(self) -> dict[str, Any]:
        """The fields as JSON has them."""
        return {**asdict(self), "architectures": list(self.architectures)}


def statuses(claims: Sequence[Claim], failures: Mapping[str, PluginError]) -> list[PluginStatus]:
    """A status for each distribution.

    Args:
        claims: All claims.
        failures: Normalised distribution name → what its loading raised in this process.
    """
    claimants: dict[str, set[str]] = {}
    grouped: dict[str, list[Claim]] = {}
    for claim in claims:
        grouped.setdefault(claim.key, []).append(claim)
        if claim.kind == "architecture" and claim.state == "ready" and not claim.is_fallback:
            claimants.setdefault(claim.name, set()).add(claim.distribution)
    return [_status(own, claimants, failures.get(key)) for key, own in grouped.items()]


def _status(own: Sequence[Claim], claimants: Mapping[str, set[str]], failure: PluginError | None) -> PluginStatus:
    first = own[0]
    state, reason = _state(own, claimants, failure)
    return PluginStatus(
        name=first.key.removeprefix("engine-plugin-"),
        distribution=first.distribution,
        version=first.version,
        origin=first.origin,
        architectures=tuple(sorted(claim.name for claim in own if claim.kind == "architecture")),
        api=", ".join(sorted({claim.api for claim in own})),
        state=state,
        reason=reason,
    )


def _state(own: Sequence[Claim], claimants: Mapping[str, set[str]], failure: PluginError | None) -> tuple[State, str]:
    if failure is not None:
        return "quarantined", str(failure)
    worst = min((claim for claim in own if claim.state != "ready"), key=_rank, default=None)
    if worst is not None:
        return worst.state, worst.reason
    contested = []
    for claim in own:
        others = claimants.get(claim.name, set()) - {claim.distribution} if claim.kind == "architecture" else set()
        if others:
            names = " and ".join(sorted(others))
            contested.append(f"{claim.name} is claimed by {names} too; choose with --plugin {claim.name}=DISTRIBUTION")
    return ("conflict", "; ".join(contested)) if contested else ("ready", "")


def _rank(claim: Claim) -> int:
    return _WORST_FIRST.index(claim.state)
