"""Generators of what Grafana is provisioned with."""
