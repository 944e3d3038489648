"""The server's log: a line for each event on standard error, as text or as JSON. By itself it holds no prompt, header or key."""

from __future__ import annotations

import json
import logging
import sys
import time

from .settings import ServerSettings

PROMPTS = "core.server.prompts"
"""The logger of prompts, silent unless they are asked for."""


def set_up(settings: ServerSettings) -> None:
    """Log to standard error, as the settings say."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if settings.log_format == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    level = settings.log_level.upper()
    for name in ("core", "sdk"):
        logging.getLogger(name).setLevel(level)
    # At lower levels it writes what it is sent: lines with keys and prompts.
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    logging.getLogger(PROMPTS).setLevel(logging.INFO if settings.log_prompts else logging.CRITICAL)


class TextFormatter(logging.Formatter):
    """`12:34:56 INFO message key=value …`."""

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter`."""
        line = (
            f"{time.strftime('%H:%M:%S', time.localtime(record.created))} {record.levelname:<7} {record.getMessage()}"
        )
        facts = getattr(record, "facts", {})
        shown = [f"{k}={v}" for k, v in facts.items() if k not in ("method", "route", "status")]
        line = " ".join([line, *shown]).replace("\n", "\\n").replace("\r", "\\r")
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter`."""
        out = {
            "time": round(record.created, 3),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "facts", {}),
        }
        if record.exc_info:
            out["exception"] = self.formatException(record.exc_info)
        return json.dumps(out, ensure_ascii=True, default=str)
