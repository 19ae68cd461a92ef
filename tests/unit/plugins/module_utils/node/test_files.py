"""Files that a bot may have written: read if they are plain, left alone if they are anything else."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from ansible_collections.hummingfleet.core.plugins.module_utils.node.files import (
    REPORT_MAX_BYTES,
    REPORT_MAX_CHARACTERS,
    REPORT_MAX_ENTRIES,
    file_facts,
    read_json,
    read_report,
)

GOOD = {"at": 12.5, "pid": 7, "phase": "trading", "halted": None, "connectors": {"binance": True}}


def link(path: Path) -> None:
    target = path.with_name("target.json")
    target.write_text(json.dumps(GOOD))
    path.symlink_to(target)


NO_FILES: dict[str, Callable[[Path], object]] = {
    "nothing": lambda path: None,
    "link": link,
    "folder": Path.mkdir,
    "pipe": os.mkfifo,
}
NO_REPORTS: dict[str, bytes] = {
    "empty": b"",
    "list": b"[]",
    "text": b'"x"',
    "cut short": b'{"at": 1',
    "not UTF-8": b'{"at": "\xff"}',
    "too deep": b"[" * 50_000,
    "a number of too many digits": b'{"at": ' + b"9" * 5000 + b"}",
    "too long": json.dumps({"phase": "x" * REPORT_MAX_BYTES}).encode(),
}


def test_a_plain_report_is_read(tmp_path: Path) -> None:
    path = tmp_path / "heartbeat.json"
    path.write_text(json.dumps(GOOD))
    assert read_report(path) == read_json(path) == GOOD
    assert file_facts(path) is not None


@pytest.mark.parametrize("kind", NO_FILES)
def test_what_is_no_file_is_not_read(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "heartbeat.json"
    before = len(os.listdir("/proc/self/fd"))
    NO_FILES[kind](path)
    assert (read_report(path), read_json(path), file_facts(path)) == (None, None, None)
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("kind", NO_REPORTS)
def test_what_is_no_report_is_not_read(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "heartbeat.json"
    path.write_bytes(NO_REPORTS[kind])
    assert read_report(path) is None


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("NaN", None),
        ("Infinity", None),
        ("1e999", None),
        (str(2**53), None),
        (str(2**53 - 1), 2**53 - 1),
        ("9" * 400, None),
        ("[1, 2]", None),
        ('{"a": {"b": 1}}', {"a": None}),
        ('{"a": [1], "b": NaN, "c": "d"}', {"a": None, "b": None, "c": "d"}),
        ('"\\ud800x"', "?x"),
        ('{"\\ud800": 1}', {"?": 1}),
        (json.dumps("y" * 1000), "y" * REPORT_MAX_CHARACTERS),
        ("false", False),
    ],
)
def test_only_short_plain_values_are_kept(tmp_path: Path, written: str, kept: object) -> None:
    path = tmp_path / "heartbeat.json"
    path.write_text(f'{{"value": {written}}}')
    assert read_report(path) == {"value": kept}


def test_a_report_has_a_bounded_number_of_entries(tmp_path: Path) -> None:
    path = tmp_path / "heartbeat.json"
    path.write_text(json.dumps({str(number): number for number in range(1000)}))
    assert len(read_report(path) or {}) == REPORT_MAX_ENTRIES
