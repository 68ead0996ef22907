"""Values that are read from other libraries when Prometheus asks."""
