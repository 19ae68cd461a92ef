"""The processes ``serve`` and ``worker`` as their manager sees them: start, refusals, shutdown, signs of life."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.hummingfleet.core.plugins.module_utils.registry import Registry

from tests.webhook.service_place import PATIENCE, Place, get, wait_for


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    yield place
    place.close()


SERVE = """
    def app(environ, start_response):
        if environ["PATH_INFO"] == "/slow":
            (folder / "begun").touch()
            while not (folder / "go on").exists():
                time.sleep(0.01)
        body = b"x" * int(environ.get("QUERY_STRING") or 1)
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]

    serve(installation, notifier, make_app=lambda _installation: app)
"""


# --- the web process -------------------------------------------------------------------------------------------------


def test_serve_says_when_it_is_ready_and_when_it_ends(place: Place) -> None:
    process = place.start(SERVE)
    states = place.manager.expect("READY=1", of=process)
    assert f"MAINPID={process.pid}" in states
    status, headers, body = get(place.port, "/")
    assert (status, body) == (200, "x")
    assert "Server" not in headers
    process.send_signal(signal.SIGTERM)
    place.manager.expect("STOPPING=1")
    _out, lines = process.communicate()
    assert process.returncode == 0, lines
    assert [json.loads(line)["message"] for line in lines.splitlines()][-1] == "stopped"


@pytest.mark.parametrize("length", [1, 3_000_000])
def test_serve_finishes_requests_in_flight_and_accepts_none(place: Place, length: int) -> None:
    process = place.start(SERVE)
    place.manager.expect("READY=1", of=process)
    idle = http.client.HTTPConnection("127.0.0.1", place.port, timeout=PATIENCE)
    idle.request("GET", "/")
    idle.getresponse().read()
    connection = http.client.HTTPConnection("127.0.0.1", place.port, timeout=PATIENCE)
    connection.request("GET", f"/slow?{length}")
    wait_for((place.folder / "begun").exists)
    process.send_signal(signal.SIGTERM)
    place.manager.expect("STOPPING=1")
    assert idle.sock.recv(1) == b""  # a connection without a request is closed
    with pytest.raises(ConnectionRefusedError):
        get(place.port, "/")
    (place.folder / "go on").touch()
    answer = connection.getresponse()
    assert (answer.status, len(answer.read())) == (200, length)
    assert process.wait(PATIENCE) == 0


def test_a_second_signal_ends_serve_without_waiting(place: Place) -> None:
    process = place.start(SERVE)
    place.manager.expect("READY=1", of=process)
    connection = http.client.HTTPConnection("127.0.0.1", place.port, timeout=PATIENCE)
    connection.request("GET", "/slow")
    wait_for((place.folder / "begun").exists)
    process.send_signal(signal.SIGTERM)
    place.manager.expect("STOPPING=1")
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE) == 0
    assert "cut off" in process.communicate()[1]


def test_headers_and_bodies_out_of_proportion_are_not_even_received(place: Place) -> None:
    process = place.start(SERVE)
    place.manager.expect("READY=1", of=process)
    for head in (f"GET / HTTP/1.1\r\nX: {'x' * 40_000}\r\n\r\n", "POST / HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n"):
        with socket.create_connection(("127.0.0.1", place.port), PATIENCE) as client:
            client.sendall(head.encode())
            assert client.recv(100).split(b" ")[1] in (b"431", b"413")
    assert get(place.port, "/")[0] == 200
    process.terminate()
    assert process.wait(PATIENCE) == 0


def test_serve_gives_signs_of_life_to_a_watchdog(place: Place) -> None:
    process = place.start(SERVE, environment={"WATCHDOG_USEC": "300000"})
    place.manager.expect("READY=1", of=process)
    for _ in range(3):
        place.manager.expect("WATCHDOG=1")


def refusal(process: subprocess.Popen[str]) -> tuple[int, str]:
    """How a command ended that could not start, and its last line."""
    _out, err = process.communicate(timeout=PATIENCE)
    assert "Traceback" not in err and "traceback" not in err, err
    return process.returncode, err.splitlines()[-1]


@pytest.mark.parametrize("command", ["serve", "worker"])
def test_a_port_in_use_is_one_sentence(place: Place, command: str) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", place.port if command == "serve" else place.worker_port))
        other.listen()
        code, line = refusal(place.command(command))
    assert code == 7
    assert line.startswith("error: cannot listen on 127.0.0.1:")
    assert "another process listens there" in line


def test_a_port_in_use_is_json_for_programs(place: Place) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", place.port))
        other.listen()
        process = place.command("serve", "--json")
        out, _err = process.communicate(timeout=PATIENCE)
    assert json.loads(out)["error"]["code"] == 7


def test_missing_and_badly_guarded_secrets_are_one_sentence(place: Place) -> None:
    place.secrets_path.chmod(0o644)
    code, line = refusal(place.command("serve"))
    assert (code, "0644" in line) == (7, True)
    place.secrets_path.unlink()
    code, line = refusal(place.command("serve"))
    assert (code, "does not exist" in line) == (7, True)
    assert "whsec_" not in line


def test_a_registry_of_a_newer_version_is_one_sentence(place: Place) -> None:
    import sqlite3

    Registry(f"sqlite:///{place.folder}/registry.db")
    with sqlite3.connect(place.folder / "registry.db") as connection:
        connection.execute("UPDATE schema_version SET version = 99")
    connection.close()
    code, line = refusal(place.command("serve"))
    assert (code, "newer" in line) == (7, True)


def test_serve_never_opens_the_key_ring(place: Place) -> None:
    """Every file that the process opens is looked at; it would end with 99."""
    keyring = place.folder / "keyring.yml"
    code = f"""
        def look(event, arguments):
            if event in ("open", "os.link", "os.rename") and str(arguments[0]) == {str(keyring)!r}:
                os._exit(99)
        sys.addaudithook(look)
        if len(sys.argv) > 1:
            open({str(keyring)!r})
        serve(installation, notifier)
    """
    keyring.chmod(0)
    process = place.start(code)
    place.manager.expect("READY=1", of=process)
    assert get(place.port, "/livez")[0] == 200
    assert get(place.port, "/readyz")[0] == 503  # there is no worker; but registry and secrets were asked
    process.terminate()
    assert process.wait(PATIENCE) == 0, process.communicate()[1]


# --- the worker ------------------------------------------------------------------------------------------------------

WORK = """
    class Worker:
        def __init__(self, installation, server):
            self.aborted = threading.Event()

        def run_forever(self, stop):
            stop.wait()
            (folder / "told").touch()
            while not (folder / "done").exists() and not self.aborted.wait(0.01):
                pass
            (folder / ("aborted" if self.aborted.is_set() else "finished")).touch()

        def abort(self):
            self.aborted.set()

        def status(self):
            return {"ready": not (folder / "not ready").exists(), "beat_at": time.monotonic(), "running": 2, "at": "x"}

    work(installation, notifier, make_worker=Worker, make_server=lambda _installation: None)
"""


def test_worker_ends_with_0_when_its_runs_have_finished(place: Place) -> None:
    process = place.start(WORK)
    place.manager.expect("READY=1", of=process)
    process.send_signal(signal.SIGTERM)
    place.manager.expect("STOPPING=1")
    wait_for((place.folder / "told").exists)
    assert process.poll() is None
    (place.folder / "done").touch()
    assert process.wait(PATIENCE) == 0
    assert (place.folder / "finished").exists()


def test_a_second_signal_has_the_worker_cancel_its_runs_now(place: Place) -> None:
    process = place.start(WORK)
    place.manager.expect("READY=1", of=process)
    process.send_signal(signal.SIGINT)
    place.manager.expect("STOPPING=1")
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE) == 0
    assert (place.folder / "aborted").exists()


def test_workers_health_and_metrics(place: Place) -> None:
    process = place.start(WORK)
    place.manager.expect("READY=1", of=process)
    assert get(place.worker_port, "/livez")[0] == 200
    status, headers, body = get(place.worker_port, "/readyz")
    assert (status, json.loads(body)["worker"]["running"]) == (200, 2)
    assert "Python" not in headers["Server"]
    (place.folder / "not ready").touch()
    assert get(place.worker_port, "/readyz")[0] == 503
    text = get(place.worker_port, "/metrics")[2]
    assert "hummingfleet_worker_running 2.0" in text
    assert "process_cpu_seconds_total" in text
    assert get(place.worker_port, "/etc/passwd")[0] == 404


def test_a_worker_that_is_stuck_gives_no_signs_of_life(place: Place) -> None:
    code = WORK.replace('"beat_at": time.monotonic()', '"beat_at": time.monotonic() - 3600')
    process = place.start(code, environment={"WATCHDOG_USEC": "50000"})
    place.manager.expect("READY=1", of=process)
    assert get(place.worker_port, "/livez")[0] == 503
    with pytest.raises(TimeoutError):
        place.manager.expect("WATCHDOG=1", seconds=0.5)


def test_a_worker_without_key_ring_is_one_sentence(place: Place) -> None:
    (place.folder / "keyring.yml").unlink()
    code, line = refusal(place.command("worker"))
    assert (code, "does not exist" in line) == (7, True)
