"""`GET /v1/models`: what is served, and what it can do."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from ...sampling.params import (
    MAX_ALLOWED,
    MAX_BAD_WORD_CHARS,
    MAX_BAD_WORDS,
    MAX_BIASED,
    MAX_LOGPROBS,
    MAX_N,
    MAX_STOP_CHARS,
    MAX_STOP_TOKEN_IDS,
    MAX_STOPS,
)
from ..models import ServedModel
from ..protocol.chat import MAX_MESSAGES
from ..protocol.completions import MAX_PROMPTS
from ..serving import Serving
from ..settings import ServerSettings


def router(serving: Serving) -> APIRouter:
    """The routes."""
    routes = APIRouter()

    @routes.get("/v1/models")
    async def list_models() -> dict[str, Any]:
        """Every model that is served."""
        return {"object": "list", "data": [_entry(model, serving.settings) for model in serving.models]}

    @routes.get("/v1/models/{model:path}")
    async def get_model(model: str) -> dict[str, Any]:
        """One model."""
        return _entry(serving.models.find(model), serving.settings)

    return routes


def _entry(model: ServedModel, settings: ServerSettings) -> dict[str, Any]:
    plan = model.engine.plan
    return {
        "id": model.name,
        "object": "model",
        "created": model.created,
        "owned_by": plan.plugin.partition(" ")[0],
        "max_model_len": plan.max_model_len,
        "architecture": plan.architecture,
        "plugin": plan.plugin,
        "dtype": plan.dtype,
        "device": plan.device,
        "tasks": list(model.tasks),
        "modalities": ["text", *model.modalities],
        "limits": {media.modality: {"most": media.limit, "tokens_each": media.item_tokens} for media in plan.media},
        "request_limits": _request_limits(model, settings),
    }


def _request_limits(model: ServedModel, settings: ServerSettings) -> dict[str, float]:
    """The most that a request may have, and that may wait: by the parameter's name, where it is one's."""
    config = model.engine.engine.config
    return {
        "body_bytes": settings.max_body_bytes,
        "timeout": settings.request_timeout,
        "queued_requests": config.max_queued_requests,
        "queued_tokens": config.max_queued_tokens,
        "messages": MAX_MESSAGES,
        "prompts": MAX_PROMPTS,
        "n": MAX_N,
        "stop": MAX_STOPS,
        "stop_chars": MAX_STOP_CHARS,
        "stop_token_ids": MAX_STOP_TOKEN_IDS,
        "logprobs": MAX_LOGPROBS,
        "prompt_logprobs": MAX_LOGPROBS,
        "bad_words": MAX_BAD_WORDS,
        "bad_word_chars": MAX_BAD_WORD_CHARS,
        "logit_bias": MAX_BIASED,
        "allowed_token_ids": MAX_ALLOWED,
    }
