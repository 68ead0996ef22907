"""What other libraries do, as series: read when Prometheus asks, or measured as it happens."""
