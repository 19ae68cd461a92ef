# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stands for ``ansible-playbook`` in a run's PATH: has the fork server run the playbook, or becomes the plain program.

Started with ``python -IS`` for every run, so it imports nothing but what the interpreter has built in: 10 ms in all.
What it sends is read by ``webhook/playbook_server.py``. A request that the server does not take is no error.
"""

from __future__ import annotations

# pathlib and contextlib would take as long to import as all the rest:
# ruff: noqa: PTH104, PTH109, PTH118, PTH119, PTH120, PTH123, SIM105
import _signal  # type: ignore[import-not-found]
import _socket
import fcntl
import marshal
import os
import sys

# Where things are; set by webhook/runs.py and not passed on to the playbook.
PLAIN, LEADER, SERVER = "HUMMINGFLEET_RUN_PLAIN", "HUMMINGFLEET_RUN_LEADER", "HUMMINGFLEET_RUN_SERVER"
TIOCSCTTY, TIOCNOTTY = 0x540E, 0x5422
FORWARDED = (_signal.SIGHUP, _signal.SIGINT, _signal.SIGQUIT, _signal.SIGTERM, _signal.SIGUSR1, _signal.SIGUSR2)
LOST = 70  # exit code if the server ended before it told how the playbook did


def main() -> None:
    """Runs the playbook; does not return."""
    plain, leader, server = (os.environ.pop(name, "") for name in (PLAIN, LEADER, SERVER))
    folder = os.path.dirname(leader)
    first, _colon, rest = os.environ["PATH"].partition(":")
    if first == os.path.join(folder, "bin"):
        os.environ["PATH"] = rest  # a task that calls ansible-playbook means the plain one
    arguments = [plain, *sys.argv[1:]]
    # Without a terminal of our own to hand over this is not ansible-runner's call.
    if server and os.getsid(0) == os.getpid() and _terminal_group() == os.getpgrp():
        _ask(server, leader, arguments)
    import ctypes

    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER, kept across exec
    with open(f"/proc/{os.getpid()}/stat") as stat, open(leader + ".new", "w") as file:
        file.write(f"{os.getpid()} {stat.read().rpartition(')')[2].split()[19]}")
    os.rename(leader + ".new", leader)
    os.execv(plain, arguments)  # noqa: S606


def _terminal_group() -> int:
    try:
        return os.tcgetpgrp(0)
    except OSError:
        return 0


def _ask(server: str, leader: str, arguments: list[str]) -> None:
    """Has the server run the playbook and ends as that does; returns if the server does not take it."""
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    ignored = [number for number in FORWARDED if _signal.getsignal(number) == _signal.SIG_IGN]
    before = {number: _signal.getsignal(number) for number in FORWARDED}
    try:
        # By way of the folder's descriptor, since a socket's path may not be longer than 107 characters.
        folder = os.open(os.path.dirname(server), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        connection.connect(f"/proc/self/fd/{folder}/{os.path.basename(server)}")
        os.close(folder)
        peer = connection.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, 12)
        if int.from_bytes(peer[4:8], sys.byteorder) != os.getuid():
            return
        umask = os.umask(0o077)
        os.umask(umask)
        blocked = [int(number) for number in _signal.pthread_sigmask(_signal.SIG_BLOCK, ())]
        request = marshal.dumps(
            (arguments, dict(os.environb), os.getcwdb(), umask, [int(n) for n in ignored], blocked, leader)
        )
        # The terminal of a session can only be passed on by giving it up. That sends us a SIGHUP.
        _signal.signal(_signal.SIGHUP, _signal.SIG_IGN)
        fcntl.ioctl(0, TIOCNOTTY)
        child = 0
        try:
            for number in FORWARDED:
                if number not in ignored:
                    _signal.signal(number, lambda number, _frame: _forward(connection, number))
            descriptors = b"".join(number.to_bytes(4, sys.byteorder) for number in (0, 1, 2))
            head = len(request).to_bytes(4, sys.byteorder)
            connection.sendmsg([head], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, descriptors)])
            connection.sendall(request)
            child = int.from_bytes(_receive(connection, 4), sys.byteorder)
        finally:
            if not child:
                fcntl.ioctl(0, TIOCSCTTY, 0)
    except OSError:
        child = 0
    if not child:
        connection.close()
        for number, handler in before.items():
            _signal.signal(number, handler)
        return
    try:
        watched = os.pidfd_open(child)
    except OSError:
        watched = -1
    status = _receive(connection, 4)
    if len(status) < 4:
        import select

        if watched >= 0:
            select.select([watched], [], [])
        os.write(2, b"the fork server ended during this run; how the playbook did is unknown\n")
        os._exit(LOST)
    _end(int.from_bytes(status, sys.byteorder))


def _forward(connection: _socket.socket, number: int) -> None:
    try:
        connection.send(bytes([number]), _socket.MSG_NOSIGNAL)
    except OSError:
        pass


def _receive(connection: _socket.socket, size: int) -> bytes:
    """``size`` bytes, or fewer if the connection ended."""
    data = b""
    try:
        while len(data) < size and (part := connection.recv(size - len(data))):
            data += part
    except OSError:
        pass
    return data


def _end(status: int) -> None:
    """Ends as the process did whose wait status this is."""
    if os.WIFSIGNALED(status):
        _signal.signal(os.WTERMSIG(status), _signal.SIG_DFL) if os.WTERMSIG(status) != _signal.SIGKILL else None
        os.kill(os.getpid(), os.WTERMSIG(status))
    os._exit(os.WEXITSTATUS(status))


if __name__ == "__main__":
    main()
