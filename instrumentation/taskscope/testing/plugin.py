"""pytest plugin: fixtures for metrics, spans and log lines; nothing happens until one is asked for."""
