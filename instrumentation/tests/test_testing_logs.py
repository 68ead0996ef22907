"""Captured log lines, as users of the library get them."""

from __future__ import annotations

import logging

from taskscope import get_logger
from taskscope.testing.logs import captured_lines


def test_lines_of_structlog_and_of_the_standard_library_are_captured_in_order() -> None:
    with captured_lines() as lines:
        get_logger("shop").info("order paid", order=7)
        logging.getLogger("shop").warning("stock low")
        seen = lines()
    assert [(line["message"], line["log.level"]) for line in seen] == [
        ("order paid", "info"),
        ("stock low", "warning"),
    ]


def test_after_the_block_nothing_is_captured() -> None:
    with captured_lines() as lines:
        pass
    logging.getLogger("shop").warning("stock low")
    assert lines() == []
