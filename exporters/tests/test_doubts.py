"""What a shipper leaves to its successor: from which backing index on lines may be in, never one too young."""

from __future__ import annotations

from pathlib import Path

from taskscope_exporters.logs.doubt import Doubts
from taskscope_exporters.logs.portions import Portion

FIRST = "0197a0000000-0123456789abcdef-000000.seg"
SECOND = "0197a0000000-0123456789abcdef-000001.seg"
STREAM = "logs-shop-local"


def portion(offset: int, segment: str = FIRST) -> Portion:
    return Portion(segment=segment, raws=[b"{}"], offsets=[offset])


def marked(folder: Path, index: str) -> None:
    """As a shipper leaves the folder when all is acknowledged."""
    doubts = Doubts(folder, STREAM)
    doubts.clear()
    doubts.saw(index)
    doubts.settle(FIRST, 0)


def test_what_lies_there_at_the_start_is_in_doubt_and_what_comes_later_is_not(
    tmp_path: Path,
) -> None:
    marked(tmp_path, "index-1")
    (tmp_path / FIRST).write_bytes(b"{}\n" * 4)
    doubts = Doubts(tmp_path, STREAM)
    assert doubts.covers(portion(9))
    assert doubts.since(portion(9)) == "index-1"
    assert not doubts.covers(portion(12))
    assert not doubts.covers(portion(0, SECOND))


def test_a_doubt_keeps_the_backing_index_it_began_with(tmp_path: Path) -> None:
    (tmp_path / FIRST).touch()
    doubts = Doubts(tmp_path, STREAM)
    doubts.saw("index-1")
    doubts.add(FIRST, 3)
    doubts.saw("index-2")
    doubts.add(FIRST, 6)
    assert doubts.since(portion(0)) == "index-1"
    doubts.settle(FIRST, 6)
    assert not doubts.covers(portion(0))
    assert Doubts(tmp_path, STREAM).index == "index-2"


def test_a_successor_never_begins_behind_a_line_in_doubt(tmp_path: Path) -> None:
    marked(tmp_path, "index-1")
    (tmp_path / FIRST).write_bytes(b"{}\n")
    (tmp_path / SECOND).write_bytes(b"{}\n")
    doubts = Doubts(tmp_path, STREAM)
    doubts.saw("index-2")
    doubts.settle(SECOND, 3)
    assert Doubts(tmp_path, STREAM).index == "index-1"
    doubts.settle(FIRST, 3)
    assert Doubts(tmp_path, STREAM).index == "index-2"


def test_a_segment_that_is_gone_holds_nothing_up(tmp_path: Path) -> None:
    marked(tmp_path, "index-1")
    (tmp_path / FIRST).write_bytes(b"{}\n")
    doubts = Doubts(tmp_path, STREAM)
    (tmp_path / FIRST).unlink()
    doubts.saw("index-2")
    doubts.settle(SECOND, 3)
    assert Doubts(tmp_path, STREAM).index == "index-2"


def test_a_mark_that_is_none_or_of_another_stream_means_that_nothing_is_known(
    tmp_path: Path,
) -> None:
    marked(tmp_path, "index-1")
    assert Doubts(tmp_path, "logs-other-local").index == ""
    for text in (b"", b"{", b"[]", b'{"stream":1}', b"\xff"):
        (tmp_path / "write-index.json").write_bytes(text)
        assert Doubts(tmp_path, STREAM).index == ""
