"""The server's options: one validated, immutable configuration. The engine's own are `core.config.EngineConfig`."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from ..errors import InvalidConfigError
from ..media.fetch import MediaFetcher
from .tracing import check_endpoint

LogLevel = Literal["debug", "info", "warning", "error"]


class ServerSettings(BaseModel):
    """What `engine serve` takes besides models and their engine's options.

    Attributes:
        host, port: Where to listen.
        api_keys: Any of them opens every route; none: no key is asked for.
        served_model_names: What clients call the models, in their order; models without one go by what they were given as.
        strict: Refuse parameters that nobody knows in the place of ignoring them.
        allowed_origins: Pages of these origins may call the server from a browser.
        allowed_media_hosts: Hosts that pictures and clips may be fetched from; none: nothing is fetched.
        allowed_media_networks: Private networks whose addresses these hosts may have.
        trust_request_template: Requests may bring a chat template of their own.
        enable_mm_embeds: Requests may bring embeddings in the place of pictures.
        max_body_bytes: Largest request.
        max_uploads: Large bodies that are parsed at a time.
        request_timeout: Seconds that a request may take; it may ask for less.
        idle_timeout: Seconds that a client may take for the next bytes of its request.
        keep_alive: Seconds of silence in a stream after which a comment is sent.
        write_timeout: Seconds after which a client that does not read its stream is dropped.
        input_processes: How many processes process prompts, for each model; None: one for four processors.
        input_timeout: Seconds that a prompt may take there.
        load_timeout: Seconds without progress after which the loading of a model is taken to hang.
        engine_restarts: How often an engine process that has died is replaced, before the server gives up.
        watchdog_timeout: Seconds without a word after which an engine process is taken to hang.
        drain_timeout: Seconds that requests in flight are given once the server is told to end.
        log_level, log_format: Of the log on standard error.
        log_prompts: Write prompts into the log.
        otlp_endpoint: Collector that traces are sent to; None: there are none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = Field("127.0.0.1", min_length=1)
    port: int = Field(2242, ge=0, le=65535)
    api_keys: tuple[str, ...] = ()
    served_model_names: tuple[str, ...] = ()
    strict: bool = False
    allowed_origins: tuple[str, ...] = ()
    allowed_media_hosts: tuple[str, ...] = ()
    allowed_media_networks: tuple[str, ...] = ()
    trust_request_template: bool = False
    enable_mm_embeds: bool = False
    max_body_bytes: int = Field(64 * 2**20, ge=1024)
    max_uploads: int = Field(8, ge=1)
    request_timeout: float = Field(600.0, gt=0)
    idle_timeout: float = Field(30.0, gt=0)
    keep_alive: float = Field(15.0, gt=0)
    write_timeout: float = Field(60.0, gt=0)
    input_processes: int | None = Field(None, ge=1, le=64)
    input_timeout: float = Field(30.0, gt=0)
    load_timeout: float = Field(600.0, gt=0)
    engine_restarts: int = Field(2, ge=0)
    watchdog_timeout: float = Field(300.0, gt=0)
    drain_timeout: float = Field(30.0, ge=0)
    log_level: LogLevel = "info"
    log_format: Literal["text", "json"] = "text"
    log_prompts: bool = False
    otlp_endpoint: str | None = None

    @field_validator("api_keys")
    @classmethod
    def _keys_can_be_sent(cls, keys: tuple[str, ...]) -> tuple[str, ...]:
        if any(not key or not key.isascii() or not key.isprintable() or key != key.strip() for key in keys):
            raise ValueError("a key is a text of printable ASCII characters, without blanks around it")
        return keys

    @classmethod
    def make(cls, values: Mapping[str, Any]) -> ServerSettings:
        """Validate options.

        Raises:
            InvalidConfigError: One is unknown or out of range; it is named.
        """
        for name in values:
            if name not in cls.model_fields:
                raise unknown_option(name, cls.model_fields)
        try:
            made = cls(**values)
        except ValidationError as e:
            # Without the input: it may be a key.
            problems = [f"{'.'.join(map(str, p['loc']))}: {p['msg']}" for p in e.errors()[:5]]
            raise InvalidConfigError("; ".join(problems), param=str(e.errors()[0]["loc"][0])) from None
        MediaFetcher(made.allowed_media_hosts, made.allowed_media_networks)  # refuses what are none
        if made.otlp_endpoint is not None:
            check_endpoint(made.otlp_endpoint)
        return made


def unknown_option(name: str, known: Mapping[str, Any]) -> InvalidConfigError:
    """The error for a name that is none of the known ones, with the nearest of them."""
    near = difflib.get_close_matches(name, known, 1)
    hint = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(sorted(known))}"
    return InvalidConfigError(f"unknown option {name!r}{hint}", param=name)
