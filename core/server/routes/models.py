"""`GET /v1/models`: what is served, and what it can do."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from ..models import ServedModel
from ..serving import Serving


def router(serving: Serving) -> APIRouter:
    """The routes."""
    routes = APIRouter()

    @routes.get("/v1/models")
    async def list_models() -> dict[str, Any]:
        """Every model that is served."""
        return {"object": "list", "data": [_entry(model) for model in serving.models]}

    @routes.get("/v1/models/{model:path}")
    async def get_model(model: str) -> dict[str, Any]:
        """One model."""
        return _entry(serving.models.find(model))

    return routes


def _entry(model: ServedModel) -> dict[str, Any]:
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
    }
