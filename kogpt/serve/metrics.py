"""The numbers at /metrics, for Prometheus. Each server has a registry of its own."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100)


class Metrics:
    """Counts of requests and tokens, answers under way, and durations."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "kogpt_requests", "Requests by endpoint and HTTP status", ["endpoint", "status"], registry=self._registry
        )
        self.prompt_tokens = Counter("kogpt_prompt_tokens", "Tokens of prompts", registry=self._registry)
        self.answer_tokens = Counter("kogpt_answer_tokens", "Tokens generated", registry=self._registry)
        self.under_way = Gauge("kogpt_answers_under_way", "Answers running or waiting", registry=self._registry)
        self.cancelled = Counter("kogpt_requests_cancelled", "Requests whose client left", registry=self._registry)
        self.analysis = Histogram("kogpt_analysis_seconds", "Text to tokens", buckets=_SECONDS, registry=self._registry)
        self.first_token = Histogram(
            "kogpt_first_token_seconds", "Request to first token", buckets=_SECONDS, registry=self._registry
        )
        self.duration = Histogram(
            "kogpt_request_seconds", "Request to end of the answer", buckets=_SECONDS, registry=self._registry
        )

    def text(self) -> bytes:
        """All of them, in Prometheus' text format."""
        return generate_latest(self._registry)
