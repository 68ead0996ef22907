"""The paths under /api/v1, and the two probes beside it."""
