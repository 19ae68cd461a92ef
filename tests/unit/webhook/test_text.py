"""Text of strangers is displayed and steers nothing."""

import pytest

from webhook.text import duration, shortened, shown, shown_lines


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Test Grid Bot", "Test Grid Bot"),
        ("交易机器人 é", "交易机器人 é"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("line\nbreak", "line\\nbreak"),
        ("left\u202eright", "left\\u202eright"),
        ("zero\u200bwidth", "zero\\u200bwidth"),
        ("\u2028", "\\u2028"),
        ("\ud800", "\\ud800"),
        ("{{ lookup('pipe', 'id') }} [bold]x[/bold]", "{{ lookup('pipe', 'id') }} [bold]x[/bold]"),
    ],
)
def test_shown_text_has_no_control_characters(text: str, expected: str) -> None:
    assert shown(text) == expected


def test_shown_lines_keeps_line_breaks_only() -> None:
    assert shown_lines("a\n\tb\x07") == "a\n    b\\x07"


def test_shortened_documents_hold_no_whole_ciphertext_and_the_original_is_untouched() -> None:
    document = {
        "salt": "s" * 32,
        "exchange_connections": [{"id": "ex1", "encrypted_api_key": "A" * 44, "nonce_key": "B" * 16}],
    }
    short = shortened(document)
    assert short["salt"] == "ssssssss... (32 characters)"
    assert short["exchange_connections"][0] == {
        "id": "ex1",
        "encrypted_api_key": "AAAAAAAA... (44 characters)",
        "nonce_key": "BBBBBBBB... (16 characters)",
    }
    assert document["salt"] == "s" * 32


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.44, "0.4 s"),
        (12.4, "12 s"),
        (185, "3 min 05 s"),
        (7199, "119 min 59 s"),
        (9000, "2 h 30 min"),
        (86_400, "24 h"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text
