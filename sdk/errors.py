"""Every error a user can meet, in one tree: what went wrong, who did it, what to do next.

`core`, plugins and the HTTP layer raise these and nothing else across a boundary. Each class carries the
machine-readable half of the contract as attributes: `code` (a short string), `type` (the family OpenAI clients
know), `status` (HTTP).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, ClassVar

_ADDRESS = re.compile(r"0x[0-9a-fA-F]{6,}")


class EngineError(Exception):
    """Root of the tree.

    Args:
        message: What happened and what to do about it, written for the person who sees it.
        code: Overrides the class's default code, e.g. `"too_many_items"`.
        param: The argument or field at fault, in dotted form, e.g. `"sampling_params.top_p"`.
    """

    code: str = "engine_error"
    type: ClassVar[str] = "server_error"
    status: ClassVar[int] = 500
    partial_results: Sequence[Any] | None = None
    """Outputs that there were when it was raised: of `LLM.generate(on_error="raise")` those that had finished, of a request
    whose deadline passed what it had by then."""

    def __init__(self, message: str, *, code: str | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        if code is not None:
            self.code = code


# ---- the request is at fault ---------------------------------------------------------------------------------------


class RequestError(EngineError):
    """One request cannot be served; every other request is untouched."""

    code = "invalid_request"
    type = "invalid_request_error"
    status = 400


class InvalidRequestError(RequestError, ValueError):
    """An argument is missing, out of range or contradicts another."""


class ContextLengthError(InvalidRequestError):
    """The prompt, or the prompt and the tokens asked for, do not fit the model or the page pool."""

    code = "context_length_exceeded"


class ModelNotFoundError(RequestError):
    """There is no such model, folder or hub id, or no plugin runs it."""

    code = "model_not_found"
    status = 404


class MediaError(RequestError):
    """A picture, clip or video cannot be used."""

    code = "invalid_media"


class MediaDecodeError(MediaError):
    """The bytes are not the medium that they claim to be."""

    code = "invalid_image"


class MediaTooLargeError(MediaError):
    """The medium is larger than a limit."""

    code = "image_too_large"
    status = 413


class MediaUnsupportedError(MediaError):
    """The format or the modality is not supported here."""

    code = "unsupported_image"


class MediaForbiddenError(MediaError):
    """The place the medium should come from is not allowed."""

    code = "media_url_forbidden"


class MediaFetchError(MediaError):
    """The medium could not be fetched."""

    code = "media_fetch_failed"


class PromptUpdateError(RequestError):
    """Placeholders in the prompt and media items do not agree."""

    code = "placeholder_mismatch"


class GrammarError(InvalidRequestError):
    """What structured output is held to is no grammar, takes too long to compile, or leaves no token to go on with."""

    code = "invalid_grammar"


# ---- the service is at fault ---------------------------------------------------------------------------------------


class ServerError(EngineError):
    """The service could not do what was asked, though the request was sound."""


class RequestAborted(ServerError):
    """The request was aborted before it finished."""

    code = "aborted"


class PluginRuntimeError(ServerError):
    """A plugin's hook failed, or returned what breaks its contract, while it served one request."""

    code = "plugin_error"

    def __init__(self, message: str, *, plugin: str, hook: str, request_id: str | None = None, code: str | None = None):
        # What a foreign exception says may hold addresses of this process, which help nobody but an attacker.
        super().__init__(f"[{plugin}] {hook}: {_ADDRESS.sub('0x…', message)}", code=code)
        self.plugin, self.hook, self.request_id = plugin, hook, request_id


class NumericalError(ServerError):
    """NaN or infinity where numbers were due."""

    code = "numerical_error"


class CapacityError(ServerError):
    """A resource ran out."""

    code = "capacity"
    type = "service_unavailable_error"
    status = 503


class OverloadedError(CapacityError):
    """As many requests wait as may; try again later."""

    code = "overloaded"


class DrainingError(ServerError):
    """The engine is being closed and takes no more requests."""

    code = "draining"
    type = "service_unavailable_error"
    status = 503


class RequestTimeoutError(ServerError):
    """The request's deadline passed; what it had by then is in `partial_results`."""

    code = "request_timeout"
    type = "timeout_error"
    status = 504


class EngineDeadError(ServerError):
    """The engine has stopped; nothing more can be served by it."""

    code = "engine_dead"
    type = "service_unavailable_error"
    status = 503


# ---- the engine cannot start ---------------------------------------------------------------------------------------


class StartupError(EngineError):
    """The engine cannot start as asked."""

    code = "startup_error"


class InvalidConfigError(StartupError, ValueError):
    """An engine option or a model's config.json is unusable; the field is named."""

    code = "invalid_config"


class MemoryProfileError(StartupError):
    """The model, or the pages asked for, do not fit the machine's memory; the message has the numbers."""

    code = "memory_profile"


class PluginError(StartupError):
    """A plugin cannot be used. `plugin` is "distribution version"."""

    code = "plugin_unusable"

    def __init__(self, message: str, *, plugin: str | None = None, code: str | None = None, param: str | None = None):
        super().__init__(message, code=code, param=param)
        self.plugin = plugin


class PluginImportError(PluginError):
    """A plugin's module, or a part it names, cannot be imported."""

    code = "plugin_import_error"


class PluginVersionError(PluginError):
    """A plugin was built for another version of the API, or needs what is not installed."""

    code = "plugin_version_error"


class PluginConflictError(PluginError):
    """Two distributions claim one architecture and the user has not chosen."""

    code = "plugin_conflict"


class PluginContractError(PluginError):
    """A plugin breaks the SDK's contract: a wrong signature, a broken promise."""

    code = "plugin_contract_error"


class PluginMissingError(PluginError):
    """No installed plugin runs the architecture."""

    code = "plugin_missing"


class WeightsError(StartupError):
    """The checkpoint and the model do not fit together."""

    code = "weights_error"


class MissingWeightsError(WeightsError):
    """Parameters of the model that the checkpoint does not fill."""

    code = "weights_missing"


class UnexpectedWeightsError(WeightsError):
    """Tensors of the checkpoint that fit nothing in the model."""

    code = "weights_unexpected"


class WeightsShapeError(WeightsError):
    """A tensor whose shape is not its parameter's."""

    code = "weights_shape"


class CorruptWeightsError(WeightsError):
    """A file that is truncated, empty, a pointer, or not what it says."""

    code = "weights_corrupt"
