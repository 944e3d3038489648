"""What Prometheus reads at `/metrics`: counts, times and gauges, by model and never by anything that a client made up."""

from __future__ import annotations

import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest

from ..outputs import RequestOutput
from .fetches import Fetches

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_METHODS = frozenset({"GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH"})
_MODEL = ("model", "plugin")


class Metrics:
    """The series of one server."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a series more for each of the others, which nobody reads
        self.registry = registry = CollectorRegistry(auto_describe=True)

        def counter(name: str, help_: str, *labels: str) -> Counter:
            return Counter(f"engine_{name}", help_, labels, registry=registry)

        def seconds(name: str, help_: str, *labels: str) -> Histogram:
            return Histogram(f"engine_{name}_seconds", help_, labels, registry=registry, buckets=_SECONDS)

        self.http_requests = counter("http_requests", "Requests answered.", "route", "method", "status")
        self.http_seconds = seconds(
            "http_request_duration", "From a request's headers to the end of its answer.", "route"
        )
        self.requests = counter("requests", "Prompts that ended, by how.", *_MODEL, "finish_reason")
        self.prompt_tokens = counter("prompt_tokens", "Tokens of prompts.", *_MODEL)
        self.cached_tokens = counter("cached_prompt_tokens", "Tokens of prompts that were at hand.", *_MODEL)
        self.generated_tokens = counter("generation_tokens", "Tokens generated.", *_MODEL)
        self.first_token = seconds("time_to_first_token", "From a prompt's arrival to its first token.", *_MODEL)
        self.per_token = seconds("inter_token_latency", "Mean time between a prompt's tokens.", *_MODEL)
        self.queued = seconds("request_queue_time", "From a prompt's arrival to its first step.", *_MODEL)
        self.whole = seconds("e2e_request_latency", "From a prompt's arrival to its end.", *_MODEL)
        self.loop_lag = Gauge("engine_event_loop_lag_seconds", "How late the event loop is.", registry=registry)
        self.fetches = Gauge(
            "engine_num_media_fetches", "Media being fetched for clients.", ["state"], registry=registry
        )

    def watch_fetches(self, fetches: Fetches) -> None:
        """Tell how many there are whenever somebody asks."""
        self.fetches.labels("running").set_function(lambda: fetches.running)
        self.fetches.labels("waiting").set_function(lambda: fetches.waiting)

    def http(self, route: str, method: str, status: int, taken: float) -> None:
        """Count a request."""
        self.http_requests.labels(route, method if method in _METHODS else "other", str(status)).inc()
        self.http_seconds.labels(route).observe(taken)

    def ended(self, model: str, plugin: str, output: RequestOutput, num_tokens: int, reason: str) -> None:
        """Count a prompt.

        Args:
            model, plugin: What ran it.
            output: What came of it last.
            num_tokens: Tokens of all its completions.
            reason: How it ended.
        """
        labels, times = (model, plugin), output.metrics
        self.requests.labels(*labels, reason).inc()
        self.prompt_tokens.labels(*labels).inc(len(output.prompt_token_ids))
        self.cached_tokens.labels(*labels).inc(output.num_cached_tokens)
        self.generated_tokens.labels(*labels).inc(num_tokens)
        end = times.finished_time or time.monotonic()
        if times.first_scheduled_time is not None:
            self.queued.labels(*labels).observe(max(0.0, times.first_scheduled_time - times.arrival_time))
        if times.first_token_time is not None:
            self.first_token.labels(*labels).observe(max(0.0, times.first_token_time - times.arrival_time))
            if num_tokens > 1:
                self.per_token.labels(*labels).observe(max(0.0, end - times.first_token_time) / (num_tokens - 1))
        self.whole.labels(*labels).observe(max(0.0, end - times.arrival_time))

    def text(self) -> bytes:
        """In Prometheus' form."""
        return generate_latest(self.registry)
