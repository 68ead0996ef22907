"""Metrics, logs, traces, dashboards, alerts and capacity of a service, from one catalogue."""
