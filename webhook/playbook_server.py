# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fork server's process: imports Ansible once, then forks a child per run that becomes what a plain start would be.

``webhook/forkserver.py`` starts it, ``webhook/playbook_client.py`` asks it. It must import nothing of the collection
before Ansible's own finder of collections is there, hence errors of Python's own.
"""

from __future__ import annotations

import ast
import contextlib
import gc
import importlib
import marshal
import os
import selectors
import signal
import socket
import struct
import sys
import sysconfig
import threading
import time
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from . import ROOT
from .process_tree import MARK, Process, become_subreaper, end_run, this_process

PLAIN = Path(sys.executable).parent / "ansible-playbook"
"""The plain program, whose place the server's children take."""

_RUNS_MAX = 32
_REQUEST_MAX = 8 * 2**20
_TIOCSCTTY = 0x540E
_PR_SET_NAME = 15

# What is read when Ansible and its libraries are imported: requests must agree with the server in these.
_IMPORTED_PREFIXES = (
    "ANSIBLE_",
    "CRYPTOGRAPHY_",
    "LC_",
    "LD_",
    "OPENSSL_",
    "PYDANTIC_",
    "PYTHON",
    "SQLALCHEMY_",
)
_IMPORTED_NAMES = frozenset(
    {"AD_HOC_COMMAND_ID", "HOME", "LANG", "LANGUAGE", "NO_COLOR", "ORIGINAL_STDOUT_CALLBACK", "VIRTUAL_ENV"}
)
# Differs from run to run and is set again in each child.
_CACHE_DIR = "ANSIBLE_CACHE_PLUGIN_CONNECTION"

# Imported ahead; one that a version of Ansible does not have is left to the run.
_MODULES = (
    "ansible.cli.playbook",
    "ansible._internal._errors._task_timeout",
    "ansible.executor.module_common",
    "ansible.executor.process.worker",
    "ansible.executor.task_executor",
    "ansible.module_utils.basic",
    "ansible.module_utils.connection",
    "ansible.playbook.handler_task_include",
    "ansible.playbook.included_file",
    "ansible.playbook.role_include",
    "ansible.plugins.become.su",
    "ansible.plugins.become.sudo",
    "ansible.plugins.cache.jsonfile",
    "ansible.plugins.cache.memory",
    "ansible.plugins.callback.default",
    "ansible.plugins.callback.junit",
    "ansible.plugins.callback.minimal",
    "ansible.plugins.callback.oneline",
    "ansible.plugins.callback.tree",
    "ansible.plugins.connection.local",
    "ansible.plugins.connection.ssh",
    "ansible.plugins.connection.psrp",
    "ansible.plugins.connection.winrm",
    "ansible.plugins.filter.core",
    "ansible.plugins.filter.mathstuff",
    "ansible.plugins.filter.urls",
    "ansible.plugins.filter.urlsplit",
    "ansible.plugins.shell.cmd",
    "ansible.plugins.shell.powershell",
    "ansible.plugins.shell.sh",
    "ansible.plugins.strategy.linear",
    "ansible.plugins.test.core",
    "ansible.plugins.test.files",
    "ansible.plugins.test.mathstuff",
    "ansible.plugins.test.uri",
    "ansible.plugins.vars.host_group_vars",
    "ansible.utils.hashing",
    "multiprocessing.popen_fork",
    "multiprocessing.resource_tracker",
    "multiprocessing.shared_memory",
    "multiprocessing.synchronize",
    "xml.dom.minidom",
    "xml.etree.ElementTree",
    "cryptography.hazmat.primitives.ciphers.aead",
    "Crypto.Cipher.AES",
    "pydantic",
    "sqlalchemy.dialects.sqlite.pysqlite",
    "sqlite3",
    "yaml",
)
# Loaded the way a run loads them, by Ansible's loader of that kind. Those of caches and variables keep what they made.
_PLUGINS: Mapping[str, tuple[str, ...]] = {
    "action_loader": (
        "assert",
        "command",
        "debug",
        "fail",
        "include_tasks",
        "normal",
        "set_fact",
        "wait_for_connection",
    ),
    "become_loader": ("su", "sudo"),
    "callback_loader": ("default",),
    "connection_loader": ("local", "ssh"),
    "inventory_loader": ("host_list", "ini", "yaml"),
    "shell_loader": ("sh",),
    "strategy_loader": ("linear",),
}
_OUR_PLUGINS = {"action_loader": "action", "lookup_loader": "lookup", "inventory_loader": "inventory"}
# Plugins of these kinds have options that a run reads from their documentation.
_KINDS_WITH_OPTIONS = ("become", "cache", "callback", "connection", "inventory", "shell", "vars")
_OUR_COLLECTION = "hummingfleet.core"
_OUR_PACKAGE = "ansible_collections.hummingfleet.core.plugins"


def by_folder(path: Path, function: Callable[[str], object]) -> None:
    """Binds or connects by way of the folder's descriptor: a socket's path may not be longer than 107 characters."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        function(f"/proc/self/fd/{folder}/{path.name}")
    finally:
        os.close(folder)


@dataclass(frozen=True)
class _Request:
    arguments: list[str]
    environment: dict[bytes, bytes]
    cwd: bytes
    umask: int
    ignored: list[int]
    blocked: list[int]
    leader: str


def imported_environment(environment: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """The variables that decide what an import of Ansible makes of itself."""
    prefixes = tuple(prefix.encode() for prefix in _IMPORTED_PREFIXES)
    names = {name.encode() for name in _IMPORTED_NAMES}
    return {
        name: value
        for name, value in environment.items()
        if (name.startswith(prefixes) or name in names) and name != _CACHE_DIR.encode()
    }


class Files:
    """What the server has read: a file that is another one now, came or went makes it outdated."""

    def __init__(self, paths: Iterable[str]) -> None:
        self._known = {path: self._look(path) for path in paths}

    def changed(self) -> str | None:
        """The first file that is not what it was."""
        return next((path for path, known in self._known.items() if self._look(path) != known), None)

    def newer_than(self, seconds: float) -> bool:
        """Whether a file was changed after this time (since the epoch)."""
        return any(known is not None and known[0] > seconds * 1e9 for known in self._known.values())

    @staticmethod
    def _look(path: str) -> tuple[int, int, int] | None:
        try:
            status = os.stat(path)  # noqa: PTH116  a thousand of them with each run
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size, status.st_ino


def _import_ansible() -> None:
    """Imports what runs need; whatever Ansible decides at import is decided by this process's environment."""
    from ansible.plugins import loader

    # As the command line does before its first plugin; doing it again in each child would only warn.
    loader.init_plugin_loader([])
    import ansible.cli

    ansible.cli.init_plugin_loader = lambda *_arguments: None
    importlib.import_module(_MODULES[0])
    plain = set(sys.modules)
    ours = [f"{_OUR_PACKAGE}.module_utils.{path.stem}" for path in _plugin_files("module_utils")]
    for module in (*_MODULES, *ours):
        with contextlib.suppress(ImportError):
            importlib.import_module(module)
    plugins = [(kind, f"ansible.builtin.{name}") for kind, names in _PLUGINS.items() for name in names]
    for kind, folder in _OUR_PLUGINS.items():
        plugins += [(kind, f"{_OUR_COLLECTION}.{path.stem}") for path in _plugin_files(folder)]
    for kind, name in plugins:
        getattr(loader, kind).get(name, class_only=True)
    _read_plugin_options(loader)
    _give_way(loader, {name for name in set(sys.modules) - plain if name.startswith("ansible.plugins.")})


def _give_way(loader: Any, ahead: set[str]) -> None:
    """Has a plugin beside a playbook take the place of Ansible's own of that name.

    Both go by one name among the imported modules, and the one that a run loads first gets it. A module that was
    imported ahead must not be mistaken for that one.
    """
    original = loader.PluginLoader._load_module_source

    def load(self: Any, *, python_module_name: str, path: str) -> types.ModuleType:
        if python_module_name in ahead:
            ahead.discard(python_module_name)
            if sys.modules[python_module_name].__file__ != str(path):
                del sys.modules[python_module_name]
        module: types.ModuleType = original(self, python_module_name=python_module_name, path=path)
        return module

    loader.PluginLoader._load_module_source = load


def _read_plugin_options(loader: Any) -> None:
    """Reads ahead which options Ansible's own plugins have.

    Half of what a short run does is parsing that from their documentation, for every plugin of some kinds. Nothing is
    registered here: a run that asks for this name in this very file is given what was read, any other reads for itself.
    """
    from ansible import constants

    read: dict[tuple[str, str, str], dict[str, Any]] = {}
    original = loader.PluginLoader._load_config_defs
    registered = constants.config._plugins

    def load(self: Any, name: str, module: object, path: str) -> None:
        key = (type_of(self), name, str(path))
        if key in read and not constants.config.has_configuration_definition(key[0], name):
            constants.config.initialize_plugin_configuration_definitions(key[0], name, read[key])
        else:
            original(self, name, module, path)

    def type_of(one: Any) -> str:
        return str(loader.get_plugin_class(one.class_name)) if one.class_name else ""

    for path in _plugins_with_options():
        of_kind = getattr(loader, f"{path.parent.name}_loader")
        module = types.SimpleNamespace(DOCUMENTATION=_documentation(path))
        for name in (path.stem, f"ansible.builtin.{path.stem}", f"ansible_collections.ansible.builtin.{path.stem}"):
            before = registered.get(type_of(of_kind), {}).pop(name, None)
            original(of_kind, name, module, str(path))
            options = registered.get(type_of(of_kind), {}).pop(name, None)
            if before is not None:
                registered[type_of(of_kind)][name] = before
            if options is not None:
                read[type_of(of_kind), name, str(path)] = options
    loader.PluginLoader._load_config_defs = load


def _plugins_with_options() -> list[Path]:
    import ansible.plugins

    folder = Path(ansible.plugins.__file__).parent
    found = [path for kind in _KINDS_WITH_OPTIONS for path in sorted((folder / kind).glob("*.py"))]
    runner = Path(sysconfig.get_path("purelib"), "ansible_runner", "display_callback", "callback")
    return [path for path in (*found, *runner.glob("*.py")) if path.stem != "__init__"]


def _documentation(path: Path) -> str:
    """The documentation that the plugin holds, without importing it."""
    for statement in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Constant):
            names = [target.id for target in statement.targets if isinstance(target, ast.Name)]
            if "DOCUMENTATION" in names:
                return str(statement.value.value)
    return ""


def _plugin_files(folder: str) -> list[Path]:
    return [path for path in sorted((ROOT / "plugins" / folder).glob("*.py")) if path.stem != "__init__"]


def _files_read() -> Files:
    from ansible import constants

    paths = {sys.executable, str(PLAIN), "/etc/ansible/plugin_filters.yml", *filter(None, [constants.CONFIG_FILE])}
    for module in list(sys.modules.values()):
        if file := getattr(module, "__file__", None):
            paths.add(str(Path(file).absolute()))
    paths.update(map(str, _plugins_with_options()))
    ansible = Path(sys.modules["ansible"].__file__ or "").parent
    paths.update(map(str, (*ansible.glob("config/*.yml"), *ansible.glob("_internal/_ansiballz/*.py"))))
    paths.add(str(ansible.parent))  # a package that was installed may have joined itself to what was imported
    paths.update(map(str, (ROOT / "meta" / "runtime.yml", ROOT / "galaxy.yml")))
    return Files(paths)


def _serve(address: Path) -> None:
    """Takes runs until the owner is gone; the process that calls this has one thread and nothing but Ansible."""
    sys.path[0] = str(PLAIN.parent)  # as for the program whose place the children take
    sys.argv = [str(PLAIN)]
    environment = imported_environment(os.environb)
    began = time.time()
    _import_ansible()
    files = _files_read()
    if files.newer_than(began):
        raise RuntimeError("a file was changed while it was imported")
    if threading.active_count() != 1:
        raise RuntimeError("something that was imported has started a thread; a fork would lose it")
    gc.collect()
    gc.freeze()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    hidden = address.with_suffix(".new")
    hidden.unlink(missing_ok=True)
    by_folder(hidden, listener.bind)
    listener.listen(_RUNS_MAX)
    hidden.rename(address)
    _Server(listener, address, environment, files).run()


class _Server:
    """One thread, one selector: new connections, signals to pass on, ended children, the end of the owner."""

    def __init__(self, listener: socket.socket, address: Path, environment: dict[bytes, bytes], files: Files) -> None:
        self.listener = listener
        self.address = address
        self.environment = environment
        self.files = files
        self.runs: dict[int, tuple[socket.socket, str]] = {}  # by child: its client, the run's id
        self.helpers: set[int] = set()
        self.selector = selectors.DefaultSelector()
        self.wake_read, self.wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def run(self) -> None:
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.set_wakeup_fd(self.wake_write, warn_on_full_buffer=False)
        self.selector.register(0, selectors.EVENT_READ, "owner")
        self.selector.register(self.wake_read, selectors.EVENT_READ, "child")
        self.selector.register(self.listener, selectors.EVENT_READ, "client")
        while self.listener.fileno() >= 0 or self.runs:
            for key, _events in self.selector.select():
                if key.data == "owner":
                    self.address.unlink(missing_ok=True)
                    return
                if key.data == "child":
                    with contextlib.suppress(BlockingIOError):
                        os.read(self.wake_read, 4096)
                    self.reap()
                elif key.data == "client":
                    self.accept()
                else:
                    self.forward(int(key.data))

    def accept(self) -> None:
        """Takes one request, or closes the connection so that its client becomes the plain program."""
        connection, _address = self.listener.accept()
        connection.settimeout(2)
        try:
            received = _receive(connection)
            if received is None:
                return
            request, descriptors = received
            try:
                if self.files.changed() is not None:
                    self.retire()
                elif imported_environment(request.environment) == self.environment and len(self.runs) < _RUNS_MAX:
                    self.fork(connection, request, descriptors)
            finally:
                for descriptor in descriptors:
                    os.close(descriptor)
        except (OSError, ValueError, TypeError, EOFError) as error:
            print(f"a request was not taken: {error}", file=sys.stderr, flush=True)
        finally:
            if connection not in [client for client, _run in self.runs.values()]:
                connection.close()

    def fork(self, connection: socket.socket, request: _Request, descriptors: list[int]) -> None:
        child = os.fork()
        if child == 0:
            self.listener.close()
            self.selector.close()
            for client, _run in self.runs.values():
                client.close()
            signal.set_wakeup_fd(-1)
            os.close(self.wake_read)
            os.close(self.wake_write)
            _play(connection, request, descriptors)
        connection.settimeout(None)
        self.runs[child] = (connection, request.environment.get(MARK.encode(), b"").decode())
        self.selector.register(connection, selectors.EVENT_READ, child)

    def forward(self, child: int) -> None:
        """Passes signals of the client on; a client that is gone takes its run with it."""
        connection, run = self.runs[child]
        try:
            numbers = connection.recv(64)
        except OSError:
            numbers = b""
        for number in numbers:
            os.kill(child, number)
        if not numbers:
            self.selector.unregister(connection)
            helper = os.fork()
            if helper == 0:
                leader = Process(child, Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[19])
                end_run(leader, run)
                os._exit(0)
            self.helpers.add(helper)

    def reap(self) -> None:
        for child in [*self.runs, *self.helpers]:
            pid, status = os.waitpid(child, os.WNOHANG)
            if pid == 0:
                continue
            if child in self.helpers:
                self.helpers.discard(child)
                continue
            connection, _run = self.runs.pop(child)
            with contextlib.suppress(KeyError, ValueError):
                self.selector.unregister(connection)
            with contextlib.suppress(OSError):
                connection.sendall(status.to_bytes(4, sys.byteorder))
            connection.close()

    def retire(self) -> None:
        """Takes no more runs; the process ends with its last one."""
        self.address.unlink(missing_ok=True)
        self.selector.unregister(self.listener)
        self.listener.close()


def _receive(connection: socket.socket) -> tuple[_Request, list[int]] | None:
    """A request of this very user, with its standard streams; None if it comes from somebody else."""
    _pid, uid, _gid = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    if uid != os.getuid():
        return None
    head, descriptors, _flags, _address = socket.recv_fds(connection, 4, 3)
    try:
        size = int.from_bytes(head, sys.byteorder)
        if len(head) != 4 or len(descriptors) != 3 or size > _REQUEST_MAX:
            raise ValueError("it is not in the form that the client of this version sends")
        data = b""
        while len(data) < size and (part := connection.recv(size - len(data))):
            data += part
        return _Request(*marshal.loads(data)), descriptors  # noqa: S302  it comes from this very user
    except BaseException:
        for descriptor in descriptors:
            os.close(descriptor)
        raise


# --- a run -----------------------------------------------------------------------------------------------------------


def _play(connection: socket.socket, request: _Request, descriptors: list[int]) -> NoReturn:
    """What the forked child does: becomes what a plain start would be, says so, and runs the playbook."""
    try:
        _take_place(request, descriptors)
        _renew_ansible()
        leader = Path(request.leader)
        process = this_process()
        leader.with_suffix(".new").write_text(f"{process.pid} {process.started}")
        leader.with_suffix(".new").rename(leader)
        # From here on the client waits for this process. Whatever went wrong before, it runs the plain program.
        connection.sendall(os.getpid().to_bytes(4, sys.byteorder))
        connection.close()
    except BaseException:
        os._exit(1)
    _exit(_run_playbook())


def _take_place(request: _Request, descriptors: list[int]) -> None:
    os.setsid()
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    import fcntl

    fcntl.ioctl(0, _TIOCSCTTY, 0)
    become_subreaper()
    for number in (signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGCHLD):
        signal.signal(number, signal.SIG_IGN if number in request.ignored else signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN if signal.SIGINT in request.ignored else signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, [signal.Signals(number) for number in request.blocked])
    os.umask(request.umask)
    os.chdir(request.cwd)
    os.environb.clear()
    os.environb.update(request.environment)
    sys.argv = list(request.arguments)
    time.tzset()
    # Python decides this by what the stream is, and the server's was a file.
    sys.stdout.reconfigure(line_buffering=os.isatty(1) and not sys.stdout.write_through)  # type: ignore[union-attr]


def _renew_ansible() -> None:
    """Makes anew what belongs to one process and was made at import."""
    import atexit
    import ctypes
    import secrets
    import tempfile

    import ansible.utils.vars as ansible_vars
    from ansible import constants
    from ansible.utils.display import Display
    from ansible.utils.path import cleanup_tmp_file

    ctypes.CDLL(None).prctl(_PR_SET_NAME, b"ansible-playbook"[:15], 0, 0, 0)
    tempfile.tempdir = None
    atexit.unregister(cleanup_tmp_file)  # the server's own folder, removed when the server ends
    for name in ("DEFAULT_LOCAL_TMP", "CACHE_PLUGIN_CONNECTION"):
        constants.set_constant(name, constants.config.get_config_value(name))
    # Tasks and plays are told apart by it in events.
    ansible_vars.random_int = f"{secrets.randbelow(2**32):08x}"
    Display()._set_column_width()


def _run_playbook() -> int:
    """Runs the command line and gives the exit code that the interpreter would give."""
    from ansible.cli.playbook import main

    try:
        main()
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return int(end.code or 0) & 0xFF
        print(end.code, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        sys.excepthook(*sys.exc_info())
        return -signal.SIGINT
    except BaseException:
        sys.excepthook(*sys.exc_info())
        return 1
    return 0


def _exit(code: int) -> NoReturn:
    """Ends as the interpreter does, without taking apart what was imported."""
    import atexit

    try:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        if code < 0:
            signal.signal(-code, signal.SIG_DFL)
            os.kill(os.getpid(), -code)
        os._exit(code)


if __name__ == "__main__":
    _serve(Path(sys.argv[1]))
