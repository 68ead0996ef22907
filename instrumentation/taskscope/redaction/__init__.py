"""What never leaves the process: secrets are found by the name they stand under and by their shape.

Log lines, span attributes and whatever else is told go through the same functions. They are pure, never raise, and
their work is bounded whatever they are given: depth, number of values and cycles.
"""

from taskscope.redaction.presets import PRESETS, SHAPES, Preset, Shape, described
from taskscope.redaction.rules import (
    DEFAULT,
    REDACTED,
    Redaction,
    is_secret_key,
    redact,
    redact_text,
)
from taskscope.redaction.walk import FIRST_CARD, Limits, Plain, Walk

__all__ = [
    "DEFAULT",
    "FIRST_CARD",
    "PRESETS",
    "REDACTED",
    "SHAPES",
    "Limits",
    "Plain",
    "Preset",
    "Redaction",
    "Shape",
    "Walk",
    "described",
    "is_secret_key",
    "redact",
    "redact_text",
]
