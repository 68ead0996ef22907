"""Captured log lines, as users of the library get them."""

from __future__ import annotations

import logging
from pathlib import Path

from taskscope import get_logger
from taskscope.testing.logs import Lines, captured_lines


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


def test_lines_are_those_since_then_and_of_one_logger_if_it_is_named(tmp_path: Path) -> None:
    segment = tmp_path / "1.seg"
    segment.write_text('{"message":"before","log.logger":"shop"}\n')
    lines = Lines(tmp_path)
    loggers = ("shop", "shop.orders", "shopping", "httpx2")
    with segment.open("a") as end:
        end.writelines(f'{{"message":"{name}","log.logger":"{name}"}}\n' for name in loggers)
    assert [line["message"] for line in lines()] == list(loggers)
    assert [line["message"] for line in lines("shop")] == ["shop", "shop.orders"]
