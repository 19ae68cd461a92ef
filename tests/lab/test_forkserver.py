"""A run from the fork server is what a plain start would have been; where it could not be, it is a plain start."""

from __future__ import annotations

import contextlib
import difflib
import getpass
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.hummingfleet.core.plugins.module_utils.registry import process_holder

from tests.factories import document, market_making_bot
from tests.installation import ROOT, SYSTEM_PATH, Installation, SshServer
from tests.webhook.test_runs_processes import await_
from webhook import playbook_server, runs
from webhook.forkserver import ForkServer

pytestmark = pytest.mark.lab

# What differs between two runs of the same kind. All else has to be equal.
VOLATILE = frozenset(
    (
        *("uuid", "parent_uuid", "playbook_uuid", "play_uuid", "task_uuid", "pid", "ansible_job_id", "results_file"),
        *("created", "start", "end", "stop", "delta", "duration", "runner_ident", "_original_basename"),
    )
)
NUMBERS = re.compile(
    r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d\.\d+|\d+:\d\d:\d\d\.\d+|"  # times, durations
    r"[0-9a-f]{8}-[0-9a-f-]{27}|\b[0-9a-f]{16}\b|ansible-tmp-[0-9.-]+|ansible-local-\w+|/dev/pts/\d+|j\d+\.\d+|"
    r"Paused for [0-9.]+|\d+[.:]\d{3,}|\b\d{4,}\b"
)
VAULT_PASSWORD = "a password of the vault"


@dataclass
class Seen:
    """All that is to be seen of a run."""

    result: runs.RunResult
    rc: int | None
    status: str
    stats: Any
    events: list[dict[str, Any]]
    parent: int = 0  # of the leading process
    text: str = field(default="", compare=False)


def plain(value: Any) -> Any:
    """The value without what differs from run to run."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items() if key not in VOLATILE}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return NUMBERS.sub("N", value) if isinstance(value, str) else value


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkServer]:
    vault = tmp_path_factory.mktemp("vault") / "password"
    vault.write_text(VAULT_PASSWORD)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANSIBLE_VAULT_PASSWORD_FILE", str(vault))
        patch.setenv("PATH", SYSTEM_PATH)
        with ForkServer(tmp_path_factory.mktemp("server") / "run") as server:
            assert server.wait_until_ready()
            yield server


@pytest.fixture
def see(server: ForkServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Seen]:
    """Runs a playbook from its text or path and gives all that is to be seen of the run."""
    started: dict[int, Any] = {}
    start = runs._start

    def record(**arguments: Any) -> Any:
        runner = start(**arguments)
        started[threading.get_ident()] = (runner.rc, runner.status, runner.stats, list(runner.events))
        return runner

    monkeypatch.setattr(runs, "_start", record)

    def run(playbook: str | Path, *, inventory: str | Path = "localhost", wait: bool = True, **arguments: Any) -> Seen:
        if isinstance(playbook, str):
            (tmp_path / "playbook.yml").write_text(playbook)
            playbook = tmp_path / "playbook.yml"
        if wait and arguments.get("server"):
            assert arguments["server"].wait_until_ready()  # it starts anew whenever the checkout changes
        parents = []

        def announce(process: runs.RunProcess) -> None:
            pid = process.holder.split(":")[1]
            with contextlib.suppress(OSError):
                parents.append(int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]))

        result = runs.run_playbook(
            str(playbook.with_suffix("")),
            fleet_path=Path(inventory),
            run_dir=server.run_dir,
            on_start=announce,
            **arguments,
        )
        rc, status, stats, events = started.pop(threading.get_ident())
        text = "\n".join(event["stdout"] for event in events if event.get("stdout"))
        return Seen(result, rc, status, stats, events, parents[0] if parents else 0, text)

    return run


@pytest.fixture
def same(server: ForkServer, see: Callable[..., Seen]) -> Callable[..., Seen]:
    """Runs a playbook both ways and says that there is no difference; gives the forked run."""

    def compare(playbook: str | Path, **arguments: Any) -> Seen:
        one = see(playbook, **arguments)
        assert one.parent in (os.getpid(), 0)  # 0: it ended too soon to look
        for _attempt in range(3):  # should the checkout change just now, it is a plain start
            two = see(playbook, server=server, **arguments)
            if two.parent != os.getpid():
                break
        assert two.parent != os.getpid()
        kinds = [[event["event"] for event in seen.events] for seen in (one, two)]
        assert sorted(kinds[0]) == sorted(kinds[1]), two.text
        if differs := difference(plain(sorted_events(one)), plain(sorted_events(two))):
            pytest.fail(f"the forked run differs:\n{differs}")
        assert (one.rc, one.status, plain(one.stats)) == (two.rc, two.status, plain(two.stats))
        for name in ("rc", "changed", "failures"):
            assert plain(getattr(one.result, name)) == plain(getattr(two.result, name))
        return two

    return compare


def difference(one: Any, two: Any) -> str:
    """What is not equal, for people."""
    texts = [json.dumps(value, indent=1, sort_keys=True, default=str).splitlines() for value in (one, two)]
    return "\n".join(line[:3000] for line in difflib.unified_diff(*texts, "plain", "forked", lineterm="", n=1))


def sorted_events(seen: Seen) -> list[dict[str, Any]]:
    """Events in an order that does not depend on which host was faster, without what else depends on it."""
    drop = (
        {"counter", "start_line", "end_line", "stdout"} if len((seen.stats or {}).get("processed", {})) > 1 else set()
    )
    events = [{key: value for key, value in event.items() if key not in drop} for event in seen.events]
    return sorted(events, key=lambda event: json.dumps(plain(event), sort_keys=True)) if drop else events


PLAY = """
- hosts: all
  connection: local
  gather_facts: false
"""
HELLO = PLAY + "  tasks: [{ansible.builtin.debug: {msg: hello}}]\n"
EVERYDAY = """
  handlers:
    - name: Tell
      ansible.builtin.debug: {msg: told}
  tasks:
    - name: Run a command
      ansible.builtin.command: {cmd: cat, stdin: text}
      register: said
      notify: Tell
    - name: Loop
      ansible.builtin.debug: {msg: "{{ item }} {{ said.stdout | upper | regex_replace('T', 'x') }}"}
      loop: "{{ range(3) | map('string') | list }}"
    - name: Compute
      ansible.builtin.set_fact:
        found: "{{ lookup('ansible.builtin.pipe', 'env | sort; umask; pwd; ulimit -a') }}"
        picked: "{{ [3, 1, 2] | sort | join(',') is match('1,2') }}"
    - name: Show
      ansible.builtin.debug: {var: found}
    - name: Skip
      ansible.builtin.fail: {msg: no}
      when: picked is false
    - name: Look at a file
      ansible.builtin.stat: {path: /etc/passwd, get_checksum: false}
      register: stat
    - ansible.builtin.assert: {that: [stat.stat.exists, stat.stat.pw_name == 'root']}
    - name: Finish in the background
      ansible.builtin.command: echo late
      async: 30
      poll: 1
    - name: Wait a little, which asks the terminal
      ansible.builtin.pause: {seconds: 1}
"""


def test_an_everyday_playbook(same: Callable[..., Seen]) -> None:
    seen = same(PLAY + EVERYDAY)
    assert seen.rc == 0
    assert seen.result.changed == {"localhost": 2}
    assert "told" in seen.text


def test_failures_rescues_and_ignored_errors(same: Callable[..., Seen]) -> None:
    seen = same(
        PLAY
        + """
  tasks:
    - name: Try
      block:
        - ansible.builtin.command: "false"
      rescue:
        - ansible.builtin.debug: {msg: "rescued {{ ansible_failed_task.name }}"}
      always:
        - ansible.builtin.debug: {msg: always}
    - name: Ignore
      ansible.builtin.fail: {msg: not so bad}
      ignore_errors: true
    - name: Each
      ansible.builtin.fail: {msg: "no {{ item }}"}
      loop: [a, b]
"""
    )
    assert seen.rc == 2
    assert [failure.message for failure in seen.result.failures][-1] == "One or more items failed\nno a\nno b"


def test_an_unreachable_host_beside_one_that_answers(same: Callable[..., Seen], tmp_path: Path) -> None:
    hosts = tmp_path / "hosts.yml"
    far = {"ansible_host": "127.0.0.1", "ansible_port": 1, "ansible_connection": "ssh", "ansible_ssh_retries": 0}
    hosts.write_text(json.dumps({"all": {"hosts": {"near": {"ansible_connection": "local"}, "far": far}}}))
    seen = same(
        "- hosts: all\n  gather_facts: false\n  tasks: [{ansible.builtin.command: 'true'}, {ansible.builtin.ping: }]\n",
        inventory=hosts,
    )
    assert seen.rc == 4
    assert {(failure.host, failure.unreachable) for failure in seen.result.failures} == {("far", True)}
    assert seen.result.changed == {"near": 1}


def test_check_and_diff(
    same: Callable[..., Seen], see: Callable[..., Seen], server: ForkServer, tmp_path: Path
) -> None:
    target = tmp_path / "target"
    target.write_text("old\n")
    copy = {"dest": str(target), "content": "new {{ 1 + 1 }}"}
    play = PLAY + f"  tasks: [{{ansible.builtin.copy: {json.dumps(copy)}}}]\n"
    seen = same(play, check=True, diff=True)
    assert "+new 2" in seen.text
    assert target.read_text() == "old\n"
    assert see(play, server=server).result.changed_count == 1
    assert target.read_text() == "new 2"


@pytest.mark.parametrize(
    ("tasks", "rc"),
    [
        ("  tasks: [{ansible.builtin.debug: {msg: '{{ missing }}'}}]\n", 2),
        ("  tasks: [{ansible.builtin.debug: {msg: '{{ missing'}}]\n", 2),
        ("  tasks: [{no_such_module: {}}]\n", None),
        ("  tasks: [\n", None),
        ("  roles: [no_such_role]\n", None),
    ],
    ids=["undefined variable", "broken template", "unknown module", "broken YAML", "unknown role"],
)
def test_mistakes_in_playbooks(same: Callable[..., Seen], tasks: str, rc: int | None) -> None:
    seen = same(PLAY + tasks)
    assert seen.rc != 0
    assert rc in (None, seen.rc)


def test_a_limit_that_matches_nothing(same: Callable[..., Seen]) -> None:
    assert same(PLAY, limit="nobody").rc != 0


def test_variables_and_files_in_a_vault(same: Callable[..., Seen], server: ForkServer, tmp_path: Path) -> None:
    secret = tmp_path / "secret.yml"
    secret.write_text("word: from the vault\n")
    subprocess.run([playbook_server.PLAIN.with_name("ansible-vault"), "encrypt", str(secret)], check=True)
    assert secret.read_text().startswith("$ANSIBLE_VAULT")
    seen = same(PLAY + f"  vars_files: [{secret}]\n  tasks: [{{ansible.builtin.debug: {{var: word}}}}]\n")
    assert "from the vault" in seen.text


@pytest.mark.skipif(os.getuid() != 0, reason="becoming somebody else needs root or a password")
def test_becoming_somebody_else(same: Callable[..., Seen]) -> None:
    seen = same(
        PLAY
        + """
  become: true
  become_method: ansible.builtin.su
  become_flags: -s /bin/sh
  become_user: nobody
  tasks:
    - ansible.builtin.command: id -un
      register: who
    - ansible.builtin.assert: {that: who.stdout == 'nobody'}
    - ansible.builtin.command: whoami
      become_user: nobody_of_this_name
"""
    )
    assert seen.rc != 0
    assert len(seen.result.failures) == 1


WITNESS = '''
import fcntl, gc, json, locale, os, random, resource, signal, sys, tempfile, threading, time
from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: witness
type: notification
short_description: tells about the process it is in
description: For tests.
"""

class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "witness"

    def v2_playbook_on_start(self, playbook):
        status = dict(line.split(":", 1) for line in open("/proc/self/status").read().splitlines())
        kept = ("Umask", "Uid", "Gid", "Groups", "SigBlk", "SigIgn", "SigCgt", "CapEff", "NoNewPrivs", "Threads")
        streams = (sys.stdin, sys.stdout, sys.stderr)
        fds = {}
        for name in os.listdir("/proc/self/fd"):
            try:
                fds[int(name)] = os.readlink(f"/proc/self/fd/{name}")
            except OSError:
                pass
        told = {
            "argv": sys.argv,
            "path": sys.path,
            "cwd": os.getcwd(),
            "environment": {k: v for k, v in os.environ.items()},
            "status": {name: status[name].strip() for name in kept},
            "signals": {int(s): str(signal.getsignal(s)).partition(" at ")[0] for s in signal.valid_signals()},
            "leads its session": os.getsid(0) == os.getpid() == os.getpgrp(),
            "has its terminal": os.tcgetpgrp(0) == os.getpgrp(),
            "streams": [[s.encoding, s.errors, s.line_buffering, s.isatty(), s.mode] for s in streams],
            "flags": list(fcntl.fcntl(n, fcntl.F_GETFL) for n in (0, 1, 2)),
            "locale": [locale.setlocale(locale.LC_ALL), locale.getpreferredencoding(), sys.getfilesystemencoding()],
            "limits": [resource.getrlimit(getattr(resource, n)) for n in dir(resource) if n.startswith("RLIMIT_")],
            "priority": os.nice(0),
            "timezone": time.tzname,
            "temporary": tempfile.gettempdir(),
            "threads": threading.active_count(),
            "collecting": [gc.isenabled(), gc.get_threshold()],
            "recursion": sys.getrecursionlimit(),
            "executable": sys.executable,
            "python": list(sys.flags),
            "columns": self._display.columns,
            "verbosity": self._display.verbosity,
            "descriptors": sorted(fds.values()),
        }
        for name, value in sorted(told.items()):
            self._display.display(f"WITNESS {name}: " + json.dumps(value, sort_keys=True, default=str))
'''


def witness(seen: Seen) -> dict[str, Any]:
    """What the callback of that name told."""
    return {name: json.loads(value) for name, value in re.findall(r"WITNESS ([^:]+): (.*)", seen.text)}


def test_the_process_itself_and_a_callback_beside_the_playbook(same: Callable[..., Seen], tmp_path: Path) -> None:
    (tmp_path / "callback_plugins").mkdir()
    (tmp_path / "callback_plugins" / "witness.py").write_text(WITNESS)
    told = witness(same(HELLO))
    assert told["leads its session"] and told["has its terminal"]
    assert not [name for name in told["environment"] if name.startswith("HUMMINGFLEET_RUN_")]


OVERRIDING = '''
from ansible.plugins.{kind} import {base}
DOCUMENTATION = """
name: {name}
type: notification
short_description: takes the place of Ansible's own
description: For tests.
options:
  word: {{description: What it says., default: mine}}
"""
{body}
'''
CALLBACK = """
class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "oneline"

    def v2_playbook_on_start(self, playbook):
        self._display.display("a callback of " + self.get_option("word"))
"""
ACTION = """
class ActionModule(ActionBase):
    def run(self, tmp=None, task_vars=None):
        return {"msg": "an action of mine"}
"""
LOOKUP = """
class LookupModule(LookupBase):
    def run(self, terms, variables=None, **kwargs):
        self.set_options(var_options=variables, direct=kwargs)
        return ["a lookup of " + self.get_option("word")]
"""


def test_plugins_that_take_the_place_of_ansibles_own(same: Callable[..., Seen], tmp_path: Path) -> None:
    for kind, base, name, body in (
        ("callback", "CallbackBase", "oneline", CALLBACK),
        ("action", "ActionBase", "debug", ACTION),
        ("lookup", "LookupBase", "pipe", LOOKUP),
    ):
        (tmp_path / f"{kind}_plugins").mkdir()
        text = OVERRIDING.format(kind=kind, base=base, name=name, body=body)
        (tmp_path / f"{kind}_plugins" / f"{name}.py").write_text(text)
    seen = same(
        PLAY
        + """
  tasks:
    - debug: {msg: theirs}
    - ansible.builtin.debug: {msg: "{{ lookup('pipe', 'echo theirs') }}, {{ lookup('ansible.builtin.pipe', 'echo') }}"}
"""
    )
    for mine in ("a callback of mine", "an action of mine", "a lookup of mine, "):
        assert mine in json.dumps(seen.events)


def test_ids_of_tasks_differ_from_run_to_run(see: Callable[..., Seen], server: ForkServer) -> None:
    ids = [{event["event_data"].get("task_uuid") for event in see(HELLO, server=server).events} for _ in range(2)]
    assert ids[0] & ids[1] == {None}


def test_the_servers_own_temporary_folder_outlives_its_runs(see: Callable[..., Seen], server: ForkServer) -> None:
    def folders() -> list[Path]:
        return list(Path("~/.ansible/tmp").expanduser().glob(f"ansible-local-{server.pid}*"))

    assert len(folders()) == 1
    assert see(HELLO, server=server).parent == server.pid
    assert len(folders()) == 1


# --- ssh, Docker, our own playbooks ----------------------------------------------------------------------------------


def ssh_variables(folder: Path, ssh: SshServer) -> dict[str, Any]:
    """How Ansible reaches the server."""
    return {
        "ansible_host": "127.0.0.1",
        "ansible_port": ssh.port,
        "ansible_user": getpass.getuser(),
        "ansible_ssh_private_key_file": str(folder / "client_key"),
        "ansible_ssh_common_args": f"-o UserKnownHostsFile={folder}/known_hosts -o StrictHostKeyChecking=yes",
        # A folder of its own for shared connections, so that each can be found.
        "ansible_control_path_dir": str(control_dir(folder)),
    }


def control_dir(folder: Path) -> Path:
    """Where shared connections are; a socket's path is short."""
    return Path(tempfile.gettempdir(), f"hfcp-{hashlib.sha256(str(folder).encode()).hexdigest()[:8]}")


def close_connections(folder: Path) -> list[int]:
    """Closes the shared connections that are open; for each, 0 if somebody was there to do it."""
    commands = [["ssh", "-O", "exit", "-S", str(path), "x"] for path in control_dir(folder).glob("*")]
    return [subprocess.run(command, capture_output=True).returncode for command in commands]


def test_over_ssh(same: Callable[..., Seen], see: Callable[..., Seen], server: ForkServer, tmp_path: Path) -> None:
    ssh = SshServer(tmp_path)
    try:
        connection = ssh_variables(tmp_path, ssh)
        hosts = tmp_path / "hosts.yml"
        hosts.write_text(json.dumps({"all": {"hosts": {"one": connection, "two": connection}}}))
        copy = {"dest": f"{tmp_path}/{{{{ inventory_hostname }}}}", "content": "{{ item }}"}
        seen = same(
            "- hosts: all\n  gather_facts: false\n  tasks:\n"
            "    - {ansible.builtin.command: hostname}\n"
            "    - {ansible.builtin.command: 'false', failed_when: false, delegate_to: one}\n"
            f"    - {{ansible.builtin.copy: {json.dumps(copy)}, loop: [1, 2]}}\n",
            inventory=hosts,
        )
        assert seen.rc == 0, seen.text
        # A wrong key of the host is refused, as ansible.cfg wants it.
        (tmp_path / "known_hosts").write_text((tmp_path / "known_hosts").read_text().replace("AAAA", "AAAB"))
        assert close_connections(tmp_path) == [0]  # two hosts, one address
        quick = "vars: {ansible_ssh_retries: 0}"
        play = f"- hosts: one\n  gather_facts: false\n  {quick}\n  tasks: [{{ansible.builtin.ping: }}]\n"
        # What Ansible says of it depends on whether ssh has ended before it is written to.
        for way in (None, server):
            seen = see(play, inventory=hosts, server=way)
            assert seen.rc == 4 and "unreachable=1" in seen.text
    finally:
        ssh.stop()
        shutil.rmtree(control_dir(tmp_path), ignore_errors=True)


@pytest.mark.parametrize("forked", [False, True])
def test_a_cancelled_run_leaves_ssh_connections_to_others(server: ForkServer, tmp_path: Path, forked: bool) -> None:
    ssh = SshServer(tmp_path)
    try:
        hosts = tmp_path / "hosts.yml"
        hosts.write_text(json.dumps({"all": {"hosts": {"one": ssh_variables(tmp_path, ssh)}}}))
        (tmp_path / "waiting.yml").write_text(
            "- hosts: all\n  gather_facts: false\n  tasks:\n"
            f"    - ansible.builtin.file: {{path: {tmp_path}/begun, state: touch}}\n"
            f"    - ansible.builtin.wait_for: {{path: {tmp_path}/go}}\n"
        )
        cancel = threading.Event()
        with ThreadPoolExecutor(1) as pool:
            run = pool.submit(
                runs.run_playbook,
                str(tmp_path / "waiting"),
                fleet_path=hosts,
                cancel=cancel,
                server=server if forked else None,
            )
            await_((tmp_path / "begun").exists, "the first task")
            cancel.set()
            with pytest.raises(runs.RunCancelledError):
                run.result(60)
        assert close_connections(tmp_path) == [0]
    finally:
        ssh.stop()
        shutil.rmtree(control_dir(tmp_path), ignore_errors=True)


def test_our_own_converge(same: Callable[..., Seen], see: Callable[..., Seen], server: ForkServer) -> None:
    folder = Path(tempfile.mkdtemp(prefix="hffork-", dir="/var/tmp"))
    installation = Installation(folder, prefix="hffork-", pool="10.199.48.0/20", over_ssh=True, uid_start=370_000)
    tenant = "hffork-acme"
    options: dict[str, Any] = {"inventory": installation.fleet_path, "keep": ["hummingfleet.core.tenant_outcome"]}
    converge = ROOT / "playbooks" / "converge_tenant.yml"
    try:
        installation.submit(
            document(
                tenant=tenant,
                subdomain=tenant,
                exchange_environment="live",
                exchange_connections=[installation.connection(tenant)],
                bots=[market_making_bot(id="b1")],
            )
        )
        seen = same(converge, check=True, diff=True, only=[tenant], **options)
        assert seen.rc == 0, seen.text
        assert see(converge, server=server, only=[tenant], **options).rc == 0
        assert installation.registry.get(tenant).applied_revision == 1
        assert same(converge, only=[tenant], **options).result.changed_count == 0
        installation.change(tenant, lambda data: data["redis"].update(enabled=False))
        assert same(converge, check=True, diff=True, **options).result.changed_count == 3
        assert see(converge, server=server, **options).rc == 0
        assert f"{tenant}-redis" not in installation.containers()
        assert same(converge, only=["nobody"], **options).rc != 0
    finally:
        installation.clean()
        shutil.rmtree(folder)


# --- when it must not be used ----------------------------------------------------------------------------------------


def test_other_settings_of_ansible_make_a_plain_start(
    see: Callable[..., Seen], server: ForkServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    play = PLAY + "  tasks: [{ansible.builtin.debug: {msg: \"{{ lookup('config', 'DEFAULT_FORKS') }} forks\"}}]\n"
    assert see(play, server=server).parent == server.pid
    seen = see(play, server=server, environment={"ANSIBLE_FORKS": "7"})
    assert seen.parent == os.getpid()
    assert "7 forks" in seen.text
    monkeypatch.setenv("LC_ALL", "C.utf8")
    assert see(play, server=server).parent == os.getpid()


def test_two_runs_at_once_on_one_server(see: Callable[..., Seen], server: ForkServer, tmp_path: Path) -> None:
    paths = []
    for name in ("one", "two"):
        (tmp_path / f"{name}.yml").write_text(
            PLAY
            + f"  tasks: [{{ansible.builtin.file: {{path: {tmp_path}/{name}, state: touch}}}}, "
            + f"{{ansible.builtin.wait_for: {{path: {tmp_path}/{'two' if name == 'one' else 'one'}, timeout: 60}}}}, "
            + f"{{ansible.builtin.debug: {{msg: this is {name}}}}}]\n"
        )
        paths.append(tmp_path / f"{name}.yml")
    with ThreadPoolExecutor(2) as pool:
        one, two = pool.map(lambda path: see(path, server=server), paths)
    assert (one.rc, two.rc) == (0, 0)
    assert one.parent == two.parent == server.pid
    assert "this is one" in one.text and "this is two" not in one.text


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an ansible.cfg of its own, which runs and servers then use."""
    folder = tmp_path / "installed"
    folder.mkdir()
    for name in ("collections", "plugins", "roles", "playbooks", "inventories"):
        (folder / name).symlink_to(ROOT / name)
    shutil.copy(ROOT / "ansible.cfg", folder)
    monkeypatch.setattr(runs, "ROOT", folder)
    return folder


def test_an_update_makes_plain_starts_until_a_new_server_is_ready(
    see: Callable[..., Seen], installed: Path, tmp_path: Path
) -> None:
    play = PLAY + "  tasks: [{ansible.builtin.debug: {msg: \"{{ lookup('config', 'DEFAULT_FORKS') }} forks\"}}]\n"
    with ForkServer(tmp_path / "run") as server:
        assert server.wait_until_ready()
        old = server.pid
        assert see(play, server=server).parent == old
        config = installed / "ansible.cfg"
        config.write_text(config.read_text().replace("forks = 20", "forks = 9"))
        seen = see(play, server=server, wait=False)
        assert seen.parent == os.getpid()
        assert "9 forks" in seen.text
        seen = see(play, server=server)
        assert old != server.pid == seen.parent
        assert "9 forks" in seen.text


def test_a_file_that_changed_came_or_went_is_noticed(tmp_path: Path) -> None:
    there, missing = tmp_path / "there", tmp_path / "missing"
    there.write_text("x")
    files = playbook_server.Files([str(there), str(missing)])
    assert files.changed() is None
    missing.touch()
    assert files.changed() == str(missing)
    missing.unlink()
    there.write_text("yy")
    assert files.changed() == str(there)


def test_a_server_that_was_killed_is_replaced_and_runs_go_on(see: Callable[..., Seen], tmp_path: Path) -> None:
    with ForkServer(tmp_path / "run") as server:
        assert see(HELLO, server=server, wait=False).parent == os.getpid()  # it has only been started
        assert server.wait_until_ready()
        old = server.pid
        assert old is not None
        os.kill(old, signal.SIGKILL)
        await_(lambda: server.pid is None, "the end of the server")
        assert see(HELLO, server=server, wait=False).rc == 0
        seen = see(HELLO, server=server)
        assert old != server.pid == seen.parent


def test_a_run_whose_server_is_killed_goes_on_and_counts_as_failed(see: Callable[..., Seen], tmp_path: Path) -> None:
    (tmp_path / "waiting.yml").write_text(
        PLAY
        + f"  tasks: [{{ansible.builtin.file: {{path: {tmp_path}/begun, state: touch}}}}, "
        + f"{{ansible.builtin.wait_for: {{path: {tmp_path}/go, timeout: 60}}}}, "
        + f"{{ansible.builtin.file: {{path: {tmp_path}/done, state: touch}}}}]\n"
    )
    with ForkServer(tmp_path / "run") as server, ThreadPoolExecutor(1) as pool:
        assert server.wait_until_ready()
        run = pool.submit(see, tmp_path / "waiting.yml", server=server)
        await_((tmp_path / "begun").exists, "the first task")
        assert server.pid is not None
        os.kill(server.pid, signal.SIGKILL)
        await_(lambda: server.pid is None, "the end of the server")
        assert not run.done()
        (tmp_path / "go").touch()
        seen = run.result(60)
        assert (tmp_path / "done").exists()
        assert (seen.rc, seen.status) == (70, "failed")
        assert "how the playbook did is unknown" in seen.text


def test_signals_reach_the_run(see: Callable[..., Seen], server: ForkServer, tmp_path: Path) -> None:
    (tmp_path / "waiting.yml").write_text(
        PLAY
        + f"  tasks: [{{ansible.builtin.file: {{path: {tmp_path}/begun, state: touch}}}}, "
        + f"{{ansible.builtin.wait_for: {{path: {tmp_path}/go, timeout: 60}}}}]\n"
    )
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(see, tmp_path / "waiting.yml", server=server)
        await_((tmp_path / "begun").exists, "the first task")
        [client] = [
            int(path.parent.name)
            for path in Path("/proc").glob("[0-9]*/cmdline")
            if f"{tmp_path}/waiting.yml" in read(path) and "playbook_client.py" in read(path)
        ]
        os.kill(client, signal.SIGINT)
        seen = run.result(60)
    assert seen.rc == 99
    assert "User interrupted execution" in seen.text


def read(path: Path) -> str:
    """A file of /proc; empty if the process has gone."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def test_nobody_else_may_use_the_server(server: ForkServer) -> None:
    assert server.run_dir.stat().st_mode & 0o077 == 0
    assert process_holder(server.pid)


def test_a_request_in_another_form_is_refused(server: ForkServer) -> None:
    import socket

    address = server.address()
    assert address is not None
    with socket.socket(socket.AF_UNIX) as connection:
        playbook_server.by_folder(address, connection.connect)
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        connection.settimeout(30)
        with contextlib.suppress(ConnectionResetError):
            assert connection.recv(100) == b""
    assert server.ready()
