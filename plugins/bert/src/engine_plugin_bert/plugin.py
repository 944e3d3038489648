"""What the engine reads first: the architectures and what they can do. Loads no torch."""

from __future__ import annotations

from typing import Any

from sdk import Architecture, Capabilities, ConfigView, hookimpl

PAPER = "https://arxiv.org/abs/1810.04805"


def _pooling(*tasks: str) -> Capabilities:
    """Every token sees every other, so that prompts are computed whole and share no beginnings."""
    return Capabilities(
        tasks=tasks, attention=("encoder",), prefix_caching=False, chunked_prefill="no", prompt_embeds=False
    )


def classifier(config: ConfigView) -> Capabilities:
    """Classes; a classifier with one class says how well two texts fit."""
    labels = len(config.get("id2label") or {}) or config.get("num_labels", 2)
    return _pooling("classify", "score") if labels == 1 else _pooling("classify")


@hookimpl
def engine_architectures() -> list[Architecture]:
    """The architectures of this plugin."""
    common: dict[str, Any] = {"role": "embedding", "license": "Apache-2.0", "upstream": PAPER}
    return [
        Architecture(
            name="BertModel",
            model="engine_plugin_bert.model:BertModel",
            model_types=("bert",),
            capabilities=_pooling("embed"),
            tiny="engine_plugin_bert.tiny:bert",
            **common,
        ),
        Architecture(
            name="BertForSequenceClassification",
            model="engine_plugin_bert.model:BertForSequenceClassification",
            capabilities="engine_plugin_bert.plugin:classifier",
            tiny="engine_plugin_bert.tiny:classifier",
            **common,
        ),
    ]
