"""Values, and what writes and reads them: a store, the instruments over it, the text for Prometheus."""
