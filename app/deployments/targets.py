"""Where Prometheus finds serving, shadow and verify processes (HTTP service discovery)."""

from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

from app.contracts.deployment import Deployment


def targets_of(deployments: Iterable[Deployment]) -> list[dict[str, Any]]:
    """A target group a URL, with the labels `deployment` and `role`; the path and scheme by Prometheus' own labels."""
    groups = []
    for deployment in deployments:
        for replica in deployment.running:
            for url in replica.metrics_urls:
                parts = urlsplit(url)
                if parts.scheme not in {"http", "https"} or not parts.netloc:
                    continue
                labels = {
                    "__scheme__": parts.scheme,
                    "__metrics_path__": parts.path or "/metrics",
                    "deployment": deployment.name,
                    "role": replica.role,
                }
                groups.append({"targets": [parts.netloc], "labels": labels})
    return groups
