"""Which claim answers a name, and why: one pure function, so that `resolve` and `engine plugins why` cannot differ.

Second station of discovery: claims → decision → loading. Nothing is imported here. Install order never decides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sdk.errors import (
    InvalidConfigError,
    PluginConflictError,
    PluginContractError,
    PluginError,
    PluginMissingError,
    PluginVersionError,
)
from sdk.registry import IN_PROCESS

from .claims import Claim
from .missing import missing_architecture, missing_model_type
from .requirements import normalised

Pins = Mapping[str, str]
"""Architecture (or model_type) → the distribution that the user chose."""


@dataclass
class Decision:
    """What was decided about one name, and the sentences that explain it.

    Attributes:
        name: The architecture or model_type asked for.
        chosen: The claim that answers it; `None` with `error` set, or where the answer was registered in process.
        in_process: Whether an in-process registration answers it.
        error: Why nothing answers it.
        lines: The explanation, a sentence each.
        considered: Every claim that was looked at.
    """

    name: str
    chosen: Claim | None = None
    in_process: bool = False
    error: PluginError | None = None
    lines: list[str] = field(default_factory=list)
    considered: tuple[Claim, ...] = ()

    @property
    def answer(self) -> str | None:
        """What answers: `"engine-plugin-llava 0.1.0"`, `"in-process"`, or nothing."""
        return IN_PROCESS if self.in_process else self.chosen.plugin if self.chosen is not None else None


def parse_pins(values: Sequence[str]) -> dict[str, str]:
    """`["Arch=dist", …]`, as the command line gives them, as pins.

    Raises:
        InvalidConfigError: A value that is not `Arch=dist`, or two distributions for one architecture.
    """
    pins: dict[str, str] = {}
    for value in values:
        name, separator, distribution = (part.strip() for part in value.partition("="))
        if not (name and separator and distribution):
            raise InvalidConfigError(
                f"a plugin is chosen with Architecture=distribution, not {value!r}", param="plugins"
            )
        if normalised(pins.setdefault(name, distribution)) != normalised(distribution):
            message = f"{name} is given to both {pins[name]} and {distribution}; choose one"
            raise InvalidConfigError(message, param="plugins")
    return pins


def decide(
    architecture: str, claims: Sequence[Claim], *, pins: Pins | None = None, in_process: bool = False
) -> Decision:
    """Choose the claim that answers an architecture.

    Args:
        architecture: The name asked for.
        claims: All claims there are.
        pins: The user's choices.
        in_process: Whether the model of this architecture was registered by hand in this process.
    """
    own = [claim for claim in claims if claim.kind == "architecture" and claim.name == architecture]
    fallbacks = [claim for claim in claims if claim.kind == "architecture" and claim.is_fallback]
    decision = Decision(architecture, considered=(*own, *fallbacks))
    decision.lines += [_sight(claim) for claim in decision.considered]
    pin = (pins or {}).get(architecture)
    if pin is not None:
        _follow_pin(decision, pin, own, fallbacks, in_process)
    elif in_process:
        decision.in_process = True
        decision.lines.append("It was registered by hand in this process, which comes first.")
    else:
        _choose(decision, own, fallbacks, claims)
    return decision


def candidates_for_model_type(model_type: str, role: str, claims: Sequence[Claim], pins: Pins) -> list[Claim]:
    """The claims that may answer a model_type; their roles are known when they are loaded.

    Raises:
        PluginMissingError, PluginVersionError, PluginContractError: None may.
    """
    own = [claim for claim in claims if claim.kind == "model_type" and claim.name == model_type]
    fallbacks = [claim for claim in claims if claim.kind == "model_type" and claim.is_fallback]
    pin = pins.get(model_type)
    if pin is not None:
        decision = Decision(model_type)
        _follow_pin(decision, pin, own, fallbacks, in_process=False)
        if decision.error is not None:
            raise decision.error
        return [decision.chosen] if decision.chosen is not None else []
    ready = [claim for claim in own if claim.state == "ready"]
    broken = [claim for claim in own if claim.state in ("incompatible", "quarantined")]
    if broken and not ready:
        raise refusal(broken[0])
    usable = ready or sorted((claim for claim in fallbacks if claim.state == "ready"), key=lambda claim: claim.key)[:1]
    if not usable:
        raise missing_model_type(model_type, role, claims)
    return usable


def contest(name: str, kind: str, claims: Sequence[Claim]) -> PluginConflictError:
    """The error for a name that several distributions claim."""
    names = sorted({claim.plugin for claim in claims})
    first = min(claim.distribution for claim in claims)
    return PluginConflictError(
        f"{kind} {name!r} is claimed by {' and '.join(names)}. Choose one with --plugin {name}={first} or "
        f"LLM(..., plugins={{{name!r}: {first!r}}}), or uninstall the other.",
        param="plugins",
    )


def refusal(claim: Claim) -> PluginError:
    """The error that a claim's state stands for."""
    message = f"{claim.plugin} cannot be used for {claim.name}: {claim.reason}"
    kinds = {"incompatible": PluginVersionError, "quarantined": PluginContractError, "disabled": PluginMissingError}
    return kinds[claim.state](message, plugin=claim.plugin)


def _choose(decision: Decision, own: list[Claim], fallbacks: list[Claim], claims: Sequence[Claim]) -> None:
    """Without a user's choice: the only one who can, else what is wrong with those who claim it, else a fallback."""
    ready = [claim for claim in own if claim.state == "ready"]
    broken = [claim for claim in own if claim.state in ("incompatible", "quarantined")]
    if len(ready) == 1:
        decision.chosen = ready[0]
        decision.lines.append(f"{ready[0].plugin} is the only usable distribution that claims it.")
    elif ready:
        decision.error = contest(decision.name, "architecture", ready)
    elif broken:
        decision.error = refusal(broken[0])
    else:
        usable = sorted((claim for claim in fallbacks if claim.state == "ready"), key=lambda claim: claim.key)
        if usable:
            decision.chosen = usable[0]
            first = " first by name" if len(usable) > 1 else ""
            decision.lines.append(f"Nobody claims it; the fallback of {usable[0].plugin} is asked{first}.")
        else:
            decision.error = missing_architecture(decision.name, claims)


def _follow_pin(decision: Decision, pin: str, own: list[Claim], fallbacks: list[Claim], in_process: bool) -> None:
    """The user's choice, or why it cannot be followed."""
    decision.lines.append(f"The user chose {pin} for it.")
    if normalised(pin) == IN_PROCESS and in_process:
        decision.in_process = True
        return
    chosen = next((claim for claim in (*own, *fallbacks) if claim.key == normalised(pin)), None)
    if chosen is None:
        others = ", ".join(sorted({claim.distribution for claim in own})) or "no installed distribution"
        decision.error = PluginMissingError(
            f"plugins={{{decision.name!r}: {pin!r}}}: no installed distribution {pin!r} claims {decision.name}; "
            f"{others} does. Names are those that `pip list` shows.",
            param="plugins",
        )
    elif chosen.state != "ready":
        decision.error = refusal(chosen)
    else:
        decision.chosen = chosen


def _sight(claim: Claim) -> str:
    """One claim as `why` shows it."""
    as_what = "as a fallback" if claim.is_fallback else f"by its entry point {claim.module}"
    reason = f" ({claim.reason})" if claim.reason else ""
    return f"{claim.plugin} from {claim.origin} claims it {as_what}: {claim.state}{reason}."
