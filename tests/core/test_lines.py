"""Lines that grow: none is lost to a disk that is full for a while, and none swallows another."""

import json
import logging

from core.lines import Lines


def test_lines_wait_while_the_disk_is_full(tmp_path, caplog):
    path = tmp_path / "a.jsonl"
    path.symlink_to("/dev/full")  # every write ends in ENOSPC
    lines = Lines(path)
    with caplog.at_level(logging.WARNING):
        lines.add({"n": 0})
        lines.add({"n": 1})
    assert caplog.text.count("a.jsonl cannot be written now, its lines wait") == 1 and "No space left" in caplog.text
    path.unlink()
    path.write_text('{"n": 7')  # a full disk may take a part of a line
    lines.add({"n": 2})
    lines.add({"n": 3})
    torn, *whole = path.read_text().splitlines()
    assert torn == '{"n": 7' and [json.loads(line)["n"] for line in whole] == [0, 1, 2, 3]
    lines.flush()
    assert len(path.read_text().splitlines()) == 5


def test_a_line_that_a_kill_cut_short_swallows_none(tmp_path):
    path = tmp_path / "a.jsonl"
    for text, n in (('{"n": 1}\n{"n', 2), ("", 3)):
        path.write_text((path.read_text() if path.exists() else "") + text)
        Lines(path).add({"n": n})
    assert path.read_text() == '{"n": 1}\n{"n\n{"n": 2}\n{"n": 3}\n'
