"""Progress says what starts, what lasts and what is done."""

import io

from images.builder import progress as module


def test_a_step_is_announced_and_closed():
    stream = io.StringIO()
    with module.Progress(stream).step("redis", "install", usually="15 s"):
        pass
    first, last = stream.getvalue().splitlines()
    assert first.split(maxsplit=1) == ["redis", "install (usually 15 s) ..."]
    assert "done in 0 s" in last


def test_a_long_step_says_what_its_log_said_last(tmp_path, monkeypatch):
    log = tmp_path / "log"
    log.write_text("Building wheel for hummingbot\n\n")
    stream = io.StringIO()
    lasting = module.threading.Event()
    monkeypatch.setattr(module, "_HEARTBEAT_SECONDS", 0.01)
    progress = module.Progress(stream)
    said = progress.say

    def say(subject, text):
        said(subject, text)
        if "Building wheel" in text:
            lasting.set()

    monkeypatch.setattr(progress, "say", say)
    with progress.step("engine", "compile", log=log):
        assert lasting.wait(10)
    assert "Building wheel for hummingbot" in stream.getvalue()


def test_a_failed_step_is_not_called_done():
    stream = io.StringIO()
    try:
        with module.Progress(stream).step("redis", "install"):
            raise ValueError
    except ValueError:
        pass
    assert "done" not in stream.getvalue()
