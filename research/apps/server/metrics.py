"""Counters and gauges in Prometheus' text format, version 0.0.4."""

from collections.abc import Mapping

MEDIA_TYPE = "text/plain; version=0.0.4"
GAUGES = ("queued", "running", "slots")


def text(figures: Mapping[str, float], responses: Mapping[tuple[str, int], int]) -> str:
    """The engine's figures, and the responses by address and status."""
    lines = []
    for name, value in sorted(figures.items()):
        gauge = name in GAUGES
        full = f"lifecycle_{name}" if gauge else f"lifecycle_{name}_total"
        lines += [f"# TYPE {full} {'gauge' if gauge else 'counter'}", f"{full} {value:g}"]
    lines.append("# TYPE lifecycle_http_responses_total counter")
    for (address, status), count in sorted(responses.items()):
        lines.append(f'lifecycle_http_responses_total{{address="{address}",status="{status}"}} {count}')
    return "\n".join(lines) + "\n"
