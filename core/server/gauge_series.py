"""What the engines tell of themselves, as Prometheus' series; read when somebody asks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from .client import EngineClient
from .models import Models

_LABELS = ["model", "plugin"]
_LEVELS = {
    "num_requests_waiting": ("waiting", "Sequences that wait for their first step."),
    "num_requests_running": ("running", "Sequences that take part in steps."),
    "num_waiting_tokens": ("waiting_tokens", "Tokens of the sequences that wait."),
    "kv_cache_pages": ("pages", "Pages of the cache."),
    "kv_cache_pages_used": ("pages_held", "Pages that sequences hold."),
    "kv_cache_pages_kept": ("pages_kept", "Pages that nobody holds, kept for equal beginnings."),
    "encoder_states_used": ("states_held", "Encoder states that sequences hold."),
    "encoder_cache_bytes": ("encoder_cache_bytes", "Embeddings of media that are kept."),
}
"""Series → the engine's own name for it, and what it is."""
_TOTALS = {
    "steps": ("steps", "Steps of the engine."),
    "step_seconds": ("step_seconds", "Time within steps."),
    "prefix_cache_queries": ("prompt_tokens", "Tokens of prompts that were looked for among kept pages."),
    "prefix_cache_hits": ("cached_tokens", "Tokens of prompts that were found there."),
    "preemptions": ("preemptions", "Sequences that lost their pages and were computed anew."),
    "encoder_seconds": ("encoder_seconds", "Time for media, within steps."),
    "mm_cache_hits": ("encoder_hits", "Media whose embeddings were at hand."),
    "mm_cache_misses": ("encoder_misses", "Media that were encoded."),
}


class EngineSeries(Collector):
    """Reads every engine's gauges.

    Args:
        models: With their engines.
    """

    def __init__(self, models: Models) -> None:
        self.models = models

    def collect(self) -> Iterable[Metric]:
        """See `prometheus_client`."""
        made: dict[str, Any] = {}
        for name, (_, help_) in _LEVELS.items():
            made[name] = GaugeMetricFamily(f"engine_{name}", help_, labels=_LABELS)
        for name, (_, help_) in _TOTALS.items():
            made[name] = CounterMetricFamily(f"engine_{name}", help_, labels=_LABELS)
        made["usage"] = GaugeMetricFamily(
            "engine_kv_cache_usage_ratio", "Share of the pages that is used.", labels=_LABELS
        )
        made["up"] = GaugeMetricFamily("engine_up", "1 where the engine serves.", labels=[*_LABELS, "state"])
        made["restarts"] = CounterMetricFamily(
            "engine_restarts", "Times that its process was replaced.", labels=_LABELS
        )
        made["processing"] = GaugeMetricFamily(
            "engine_num_requests_processing", "Requests whose prompts are being tokenized.", labels=_LABELS
        )
        for model in self.models:
            self._add(made, [model.name, model.plugin], model.engine)
        return made.values()

    def _add(self, made: dict[str, Any], labels: list[str], engine: EngineClient) -> None:
        stats = engine.stats()
        levels, totals = stats.gauges.levels, stats.gauges.totals
        for name, (own, _) in _LEVELS.items():
            made[name].add_metric(labels, getattr(levels, own))
        for name, (own, _) in _TOTALS.items():
            made[name].add_metric(labels, getattr(totals, own))
        made["usage"].add_metric(labels, levels.pages_held / max(1, levels.pages))
        made["up"].add_metric([*labels, str(stats.state)], float(stats.state == "ready"))
        made["restarts"].add_metric(labels, stats.restarts)
        made["processing"].add_metric(labels, stats.processing)
