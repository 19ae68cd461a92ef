"""Locks and wheelhouses."""

import pytest

from images.builder import wheels
from images.builder.errors import BuildError
from images.builder.recipes import IMAGES_DIR

LOCK = """\
# Made with: python images/build.py --relock
a-b==1.0 \\
    --hash=sha256:00 \\
    --hash=sha256:11
    # via c
c[x]==2.1.post1 ; python_version < '4' \\
    --hash=sha256:22
"""


def test_pins_are_read_without_hashes_and_comments():
    assert wheels.parse_lock(LOCK) == ["a-b==1.0", "c[x]==2.1.post1 ; python_version < '4'"]


@pytest.mark.parametrize("line", ["a>=1", "--index-url https://index.example.com/simple", "git+https://example.com/a"])
def test_a_lock_holds_nothing_but_pins(line):
    with pytest.raises(BuildError, match="no pinned package"):
        wheels.parse_lock(f"{LOCK}{line}\n")


@pytest.mark.parametrize("path", sorted(IMAGES_DIR.glob("*/lock*.txt")), ids=str)
def test_locks_in_the_repository_are_pinned_hashed_and_name_no_index(path):
    text = path.read_text()
    assert wheels.parse_lock(text)
    assert text.count("--hash=") >= len(wheels.parse_lock(text))
    assert "://" not in text


def test_the_engines_lock_overrides_its_pin_of_coincurve():
    pins = wheels.parse_lock((IMAGES_DIR / "engine" / "lock-20260922.txt").read_text())
    major = next(int(pin.split("==")[1].split(".")[0]) for pin in pins if pin.startswith("coincurve=="))
    assert "hummingbot==20260922" in pins
    assert major >= 21


def test_comments_do_not_change_a_wheelhouse_but_versions_and_platforms_do():
    key = wheels.wheelhouse_key(LOCK, "3.13", "trixie", "x86_64")
    assert wheels.wheelhouse_key(LOCK + "# more\n", "3.13", "trixie", "x86_64") == key
    others = {
        wheels.wheelhouse_key(LOCK.replace("1.0", "1.1"), "3.13", "trixie", "x86_64"),
        wheels.wheelhouse_key(LOCK, "3.14", "trixie", "x86_64"),
        wheels.wheelhouse_key(LOCK, "3.13", "bookworm", "x86_64"),
        wheels.wheelhouse_key(LOCK, "3.13", "trixie", "aarch64"),
    }
    assert len(others | {key}) == 5


def test_a_wheelhouse_is_complete_once_sealed_and_until_something_is_missing_or_altered(tmp_path):
    for name in ("a-1-py3-none-any.whl", "b-1-py3-none-any.whl"):
        (tmp_path / name).write_bytes(name.encode())
    assert not wheels.is_complete(tmp_path)
    wheels.seal(tmp_path)
    assert wheels.is_complete(tmp_path)
    (tmp_path / "a-1-py3-none-any.whl").write_bytes(b"altered")
    assert not wheels.is_complete(tmp_path)
    wheels.seal(tmp_path)
    (tmp_path / "b-1-py3-none-any.whl").unlink()
    assert not wheels.is_complete(tmp_path)
