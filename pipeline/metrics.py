"""What the pipeline counts, under the names that Prometheus will read. Nothing is dropped without one of these.

Kept in this process; serving them over HTTP is a later step.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

REGISTRY = CollectorRegistry()


def _counter(name: str, words: str, labels: tuple[str, ...] = ()) -> Counter:
    return Counter(name, words, labels, registry=REGISTRY)


batches = _counter("wonted_batches_total", "Batches by what became of them.", ("outcome",))
received = _counter("wonted_events_received_total", "Events that reached the models.", ("type",))
usual = _counter(
    "wonted_usual_total",
    "Keys not handed (bound), repeats of unknown keys (unknown).",
    ("outcome",),
)
shares = _counter("wonted_shares_total", "What workloads lend to those of their image: told, taken.", ("outcome",))
lost = _counter("wonted_events_lost_total", "Events known to be lost or held back, by where.", ("stage", "kind"))
dead = _counter("wonted_messages_dead_total", "Messages that could not be used and were put aside.", ("topic",))
findings = _counter("wonted_findings_total", "Findings by detector and severity.", ("detector", "severity"))
alerts = _counter("wonted_alerts_total", "Alerts handed to the sinks.", ("detector", "severity", "outcome"))
dropped = _counter("wonted_live_dropped_total", "Live events that a slow reader did not take.")
refused = _counter("wonted_socket_refused_total", "Connections and requests refused at the socket.", ("reason",))
snapshots = _counter("wonted_snapshots_total", "Snapshots by outcome.", ("outcome",))
decisions = _counter("wonted_decisions_total", "Decisions by outcome.", ("outcome",))
faults = _counter("wonted_faults_total", "Errors that were survived, by where.", ("where",))
restarts = _counter("wonted_probe_restarts_total", "Times that the probe process ended and was started again.")
blind = _counter("wonted_blind_seconds_total", "Time in which no probe was attached.")
attached = Gauge("wonted_probe_attached", "1: attached.", ("probe",), registry=REGISTRY)
latency = Histogram(
    "wonted_event_latency_seconds",
    "From the event to its finding.",
    registry=REGISTRY,
    buckets=(0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1, 2, 5, 30, 300),
)


def total(counter: Counter) -> int:
    """The sum over all labels."""
    return int(sum(by_label(counter).values()))


def by_label(counter: Counter) -> dict[str, int]:
    """Label values, joined by "." -> count; what is zero is left out."""
    return {
        ".".join(sample.labels.values()): int(sample.value)
        for metric in counter.collect()
        for sample in metric.samples
        if sample.name.endswith("_total") and sample.value
    }
