"""Structured logs: one chain for every line, redacted, in Elastic Common Schema, into a spool on disk."""

from taskscope.logs.chain import configure, get_logger
from taskscope.logs.pipeline import LogPipeline

__all__ = ["LogPipeline", "configure", "get_logger"]
