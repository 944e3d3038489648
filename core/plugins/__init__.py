"""Finding plugins and answering who runs what: metadata is the index, one hook is the spec.

claims.py    installed metadata → claims; imports nothing of a plugin
decision.py  which claim answers a name, and why: a pure function
loading.py   import, hook, checks                      guard.py   what an import changed, put back
resolved.py  the answer, whose parts load on first use  record.py  the same, for worker processes
catalog.py   the door to all of it                      check.py   every plugin in a child process of its own
"""

from .catalog import Catalog, verify_record
from .claims import Claim
from .decision import Decision, parse_pins
from .guard import PluginWarning
from .status import PluginStatus

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .resolved import ResolvedPlugin

__all__ = [
    "Catalog",
    "Claim",
    "Decision",
    "PluginStatus",
    "PluginWarning",
    "ResolvedPlugin",
    "parse_pins",
    "verify_record",
]


def __getattr__(name: str) -> type:
    """`ResolvedPlugin` on first use: its module loads pluggy and pydantic, which listing does without."""
    if name == "ResolvedPlugin":
        from .resolved import ResolvedPlugin

        return ResolvedPlugin
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
