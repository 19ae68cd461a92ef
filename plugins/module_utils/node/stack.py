# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One tenant's stack on a node: brought to its desired state, or removed, in the order that is safe for its orders.

A stack arrives as plain data (see ``module_utils/render.py``).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ansible_collections.hummingfleet.core.plugins.module_utils.node import broker
from ansible_collections.hummingfleet.core.plugins.module_utils.node.bot_log import excerpt
from ansible_collections.hummingfleet.core.plugins.module_utils.node.docker_api import DockerEngine
from ansible_collections.hummingfleet.core.plugins.module_utils.node.files import (
    digest,
    directory_is,
    ensure_directory,
    file_facts,
    read_json,
    write_file,
)
from ansible_collections.hummingfleet.core.plugins.module_utils.node.observe import (
    LABEL_TENANT,
    STATE_FILE,
    altered_containers,
    container_facts,
    inspect_digest,
    is_one_off,
    networks_of,
    read_lifecycle,
    read_state,
    tenants_dir,
)
from ansible_collections.hummingfleet.core.plugins.module_utils.node.problem import Problem, Trouble, gravest

GRACE_SECONDS = 60
SETTLE_TIMEOUT_SECONDS = 120
LOCK_WAIT_SECONDS = 10
DIFF_MAX_CHARACTERS = 65_536
FOLDER = "the stack's folder"
# The agent's exit codes that say something else than that the exchange could not be asked (agent/launcher.py).
AGENT_EXITS = {2: Problem.ENGINE_REFUSED, 4: Problem.ENGINE_REFUSED}
AGENT_EXIT_EXCHANGE = 3


class StackError(Exception):
    """One tenant's stack could not be brought to its desired state; the text says what and where.

    ``exit_code`` is that of the command that failed, if one did.
    """

    def __init__(self, message: str, problem: Problem = Problem.NODE_REFUSED, *, exit_code: int | None = None) -> None:
        super().__init__(message)
        self.problem = problem
        self.exit_code = exit_code


class Stack:
    """One tenant's stack on this node; ``present`` and ``absent`` bring it there and say what they changed."""

    def __init__(
        self,
        engine: DockerEngine,
        base_dir: str,
        stack: dict[str, Any],
        secrets: dict[str, str],
        containers: dict[str, dict[str, Any]],
        *,
        check: bool,
        deep: bool = False,
    ) -> None:
        self.engine = engine
        self.base_dir = base_dir
        self.stack = stack
        self.secrets = secrets
        self.containers = containers
        self.check = check
        self.deep = deep
        self._lock: int | None = None
        self.tenant: str = stack["tenant"]
        self.directory = tenants_dir(base_dir) / self.tenant
        self.changes: list[str] = []
        self.diffs: list[dict[str, str]] = []

    # - present -

    def present(self) -> dict[str, Any]:
        """Files, network, containers; raises StackError, DockerError or OSError, with ``changes`` made so far kept."""
        if self.check:
            self._apply(read_state(self.directory) or {})
        else:
            with self._locked() as state:
                self._apply(state)
        return {"changed": bool(self.changes), "changes": self.changes, "diff": self.diffs}

    def _apply(self, state: dict[str, Any]) -> None:
        stack = self.stack
        services: dict[str, dict[str, Any]] = stack["services"]
        new_directories, new_files, obsolete = self._file_changes(state)
        altered = {c["name"] for c in altered_containers(self.engine, state, self.containers)} if self.deep else set()
        network = self.engine.network(stack["network"]["name"])
        self._check_network(network)
        self._folder()
        self._end_leftovers()

        starts, replaces, stops, removes = [], [], [], []
        for name, service in services.items():
            container = self.containers.get(name)
            if service["running"]:
                if container is None:
                    starts.append(name)
                elif container["spec"] != service["spec"] or container["name"] in altered:
                    replaces.append(name)
                elif container["state"] != "running":
                    starts.append(name)
            elif container is not None and container["state"] in ("running", "restarting", "paused"):
                stops.append(name)
        removes = [name for name in self.containers if name not in services]

        known_bots = {bot["service"]: bot for bot in [*state.get("bots", []), *stack["bots"]]}
        leaving = [bot for bot in state.get("bots", []) if bot["id"] not in {b["id"] for b in stack["bots"]}]
        bots_to_stop = [name for name in [*replaces, *stops, *removes] if name in known_bots]

        # A bot's orders come off the book before anything of it changes, with the configuration it ran with.
        for name in bots_to_stop:
            self._note(f"stop {self.containers[name]['name']}")
        failed_bots: dict[str, Trouble] = {}
        if bots_to_stop and not self.check:
            with ThreadPoolExecutor(len(bots_to_stop)) as pool:
                list(pool.map(lambda name: self.engine.stop(self.containers[name]["id"], GRACE_SECONDS), bots_to_stop))
        # A settling bot needs its network, which may be gone although nothing else changed.
        self._network(network)
        to_settle = [
            bot
            for service, bot in known_bots.items()
            if self._needs_settling(bot, service, services, leaving, bots_to_stop)
        ]
        for bot in to_settle:
            self._note(f"settle bot {bot['id']}: cancel what a dead process left on the exchange")
            if not self.check:
                trouble = self._run_agent(bot, "settle")
                if trouble:
                    failed_bots[bot["id"]] = trouble
        if any(bot["id"] in failed_bots for bot in leaving):
            # Its configuration is in the files as they are, and would be lost with the new ones.
            raise _unclean(failed_bots)

        for path in new_directories:
            self._note(f"folder {path['path']}")
            if not self.check:
                ensure_directory(self.directory / path["path"], path["mode"], path["uid"], path["gid"])
        for file, before in new_files:
            self._note(f"file {file['path']}")
            self._note_diff(file, before)
            if not self.check:
                content = self._content(file)
                write_file(self.directory / file["path"], content, file["mode"], file["uid"], file["gid"])

        # Credentials may have been replaced because the old ones were revoked: what could not be settled with the old
        # configuration is tried once with the new one.
        for bot_id in list(failed_bots):
            bot = next((b for b in stack["bots"] if b["id"] == bot_id), None)
            if bot is not None and not self._run_agent(bot, "settle"):
                del failed_bots[bot_id]
        if failed_bots:
            raise _unclean(failed_bots)

        for name in stops:
            if name not in bots_to_stop:
                self._note(f"stop {self.containers[name]['name']}")
                if not self.check:
                    self.engine.stop(self.containers[name]["id"], GRACE_SECONDS)
        for name in removes:
            self._note(f"remove container {self.containers[name]['name']}")
            if not self.check:
                self.engine.remove(self.containers[name]["id"])
        for name in replaces:
            self._note(f"replace container {services[name]['container']}")
            if not self.check and self.containers[name]["name"] in altered:
                self.engine.remove(self.containers[name]["id"])
        for name in starts:
            self._note(f"start container {services[name]['container']}")
        for bot in leaving:
            self._note(f"put away the data of bot {bot['id']}")
            if not self.check:
                self._put_away(bot["id"])
        for relative in obsolete:
            if not any(relative.startswith(f"bots/{bot['id']}/") for bot in leaving):
                self._note(f"remove file {relative}")
                if not self.check:
                    (self.directory / relative).unlink(missing_ok=True)
        # Before the bots that log in with them start, and after those that lose them were stopped.
        if broker.USERS_FILE in {*state.get("files", {}), *(file["path"] for file in stack["files"])}:
            self._hand_over_users()
        self._leave_network(network)
        if (starts or replaces) and not self.check:
            self._announce(state)
            options = ["--detach", "--no-build", "--no-deps", "--pull", "never", "--quiet-pull"]
            self._compose("up", *options, *starts, *replaces)
        for bot in stack["bots"]:
            if bot["state"] == "liquidated" and self._position(bot["id"]):
                self._note(f"liquidate bot {bot['id']}: sell its position at market")
                if not self.check:
                    trouble = self._run_agent(bot, "liquidate")
                    if trouble:
                        raise StackError(f"bot {bot['id']} could not be liquidated: {trouble.text}", trouble.problem)
        if not self.check:
            self._remember(state)

    def _needs_settling(
        self,
        bot: dict[str, Any],
        service: str,
        services: dict[str, dict[str, Any]],
        leaving: list[dict[str, Any]],
        stopped: list[str],
    ) -> bool:
        """A bot that does not run any more and whose record does not say that its book is clean.

        One that is about to start again settles by itself, before it trades.
        """
        lifecycle = read_lifecycle(self.directory / "bots" / bot["id"])
        if lifecycle is None:
            return False
        container = self.containers.get(service)
        runs = container is not None and container["state"] in ("running", "restarting", "paused")
        wanted = bool(services.get(service, {}).get("running")) and bot not in leaving
        if wanted and service not in stopped:
            return False
        if self.check:
            return not runs and lifecycle.get("clean") is not True
        if runs and service not in stopped:
            return False
        return not (lifecycle.get("state") == "stopped" and lifecycle.get("clean") is True)

    def _position(self, bot_id: str) -> bool:
        lifecycle = read_lifecycle(self.directory / "bots" / bot_id) or {}
        try:
            return float(lifecycle.get("position_base") or 0) != 0
        except (TypeError, ValueError, OverflowError):
            return True

    def _run_agent(self, bot: dict[str, Any], mode: str) -> Trouble | None:
        """Runs the agent once in the bot's own surroundings; what went wrong, or None."""
        command = ["run", "--rm", "--no-deps", "-T", bot["service"], *bot["command"], mode]
        began = time.time()
        try:
            self._compose(*command, timeout=SETTLE_TIMEOUT_SECONDS + GRACE_SECONDS)
        except StackError as error:
            self._end_leftovers()
            problem = AGENT_EXITS.get(error.exit_code or 0, Problem.EXCHANGE_UNANSWERED)
            return Trouble(self._agent_reason(bot, mode, error, began), problem, bot["id"])
        lifecycle = read_lifecycle(self.directory / "bots" / bot["id"]) or {}
        if lifecycle.get("state") == "stopped" and lifecycle.get("clean") is True:
            return None
        words = f"{mode} ended, but its record does not say that no order is left"
        return Trouble(words, Problem.EXCHANGE_UNANSWERED, bot["id"])

    def _agent_reason(self, bot: dict[str, Any], mode: str, error: StackError, began: float) -> str:
        """What the agent wrote down about its failure, else what the command said."""
        record = read_lifecycle(self.directory / "bots" / bot["id"]) or {}
        at, reason = record.get("at"), record.get("reason")
        fresh = isinstance(at, (int, float)) and not isinstance(at, bool) and at >= began
        if error.exit_code == AGENT_EXIT_EXCHANGE and fresh and isinstance(reason, str) and reason.strip():
            return f"{mode}: {excerpt(reason)}"
        return str(error)

    def _end_leftovers(self) -> None:
        """Ends one-off containers of a run that broke off; under the tenant's lock nobody else has any."""
        for container in self.engine.containers([f"{LABEL_TENANT}={self.tenant}"]):
            if not is_one_off(container):
                continue
            self._note(f"remove container {container['Names'][0].lstrip('/')}, which a run that broke off left")
            if not self.check:
                if container["State"] in ("running", "restarting", "paused"):
                    self.engine.stop(container["Id"], GRACE_SECONDS)
                self.engine.remove(container["Id"])

    def _folder(self) -> None:
        gid = self.stack.get("gid", 0)
        if not directory_is(self.directory, "0750", 0, gid):
            self._note(FOLDER)
            if not self.check:
                ensure_directory(self.directory, "0750", 0, gid)

    def _put_away(self, bot_id: str) -> None:
        source = self.directory / "bots" / bot_id
        if not source.is_dir() or source.is_symlink():
            return
        target = self.directory / "removed"
        ensure_directory(target, "0700", 0, 0)
        shutil.rmtree(source / "config", ignore_errors=True)
        source.rename(
            target / f"{bot_id}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{time.time_ns() % 10**6:06d}"
        )

    # - absent -

    def absent(self, *, keep_data: bool, force: bool) -> dict[str, Any]:
        """Stops the bots in the safe order, then removes containers, network and folder."""
        here = self.directory.is_dir()
        if not here and not self.containers and self._own_network() is None:
            return {"changed": False, "changes": [], "diff": []}
        if self.check:
            self._remove(read_state(self.directory) or {}, force)
            self._note(f"remove {FOLDER}")
        else:
            with self._locked() as state:
                # Docker compose needs it, for bots that must settle.
                ensure_directory(self.directory, "0750", 0, self.stack.get("gid", 0))
                self._remove(state, force)
                self._delete_folder(keep_data)
        return {"changed": True, "changes": self.changes, "diff": self.diffs}

    def _remove(self, state: dict[str, Any], force: bool) -> None:
        self._end_leftovers()
        bots = {bot["service"]: bot for bot in state.get("bots", [])}
        running = [n for n in bots if n in self.containers and self.containers[n]["state"] != "exited"]
        for name in running:
            self._note(f"stop {self.containers[name]['name']}")
        if running and not self.check:
            with ThreadPoolExecutor(len(running)) as pool:
                list(pool.map(lambda name: self.engine.stop(self.containers[name]["id"], GRACE_SECONDS), running))
        troubles = [] if self.check else self._settle_before_removal(list(bots.values()))
        if troubles and not force:
            raise StackError(
                "; ".join(f"bot {trouble.bot} is unclean: {trouble.text}" for trouble in troubles)
                + ". The stack was kept; remove it with force to give its orders up",
                gravest(trouble.problem for trouble in troubles),
            )
        for container in self.containers.values():
            self._note(f"remove container {container['name']}")
            if not self.check:
                self.engine.remove(container["id"])
        if not self.check:
            (self.directory / broker.USERS_FILE).unlink(missing_ok=True)
        self._hand_over_users()
        found = self._own_network()
        if found is not None:
            self._note(f"remove network {found['Name']}")
            if not self.check:
                for attached in (found.get("Containers") or {}).values():
                    self.engine.disconnect(found["Id"], attached["Name"])
                self.engine.remove_network(found["Id"])

    def _settle_before_removal(self, bots: list[dict[str, Any]]) -> list[Trouble]:
        troubles = []
        for bot in bots:
            lifecycle = read_lifecycle(self.directory / "bots" / bot["id"])
            if lifecycle is not None and not (lifecycle.get("state") == "stopped" and lifecycle.get("clean") is True):
                self._network(self.engine.network(self.stack["network"]["name"]))
                trouble = self._run_agent(bot, "settle")
                if trouble:
                    troubles.append(trouble)
        return troubles

    def _own_network(self) -> dict[str, Any] | None:
        """The tenant's network: of its name and with its label; a stranger's of that name is left alone."""
        found = self.engine.network(f"hf-{self.tenant}")
        return found if found is not None and self._is_own(found) else None

    def _is_own(self, network: dict[str, Any]) -> bool:
        return bool((network.get("Labels") or {}).get(LABEL_TENANT) == self.tenant)

    def _delete_folder(self, keep_data: bool) -> None:
        self._note(f"remove {FOLDER}")
        if keep_data:
            target = Path(self.base_dir) / "removed"
            ensure_directory(target, "0700", 0, 0)
            self.directory.rename(target / f"{self.tenant}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}")
        else:
            shutil.rmtree(self.directory)

    # - parts -

    @contextlib.contextmanager
    def _locked(self) -> Iterator[dict[str, Any]]:
        """The tenant's state, under its lock, with this run's fencing number checked and written first."""
        # Outside the stack's folder: they outlive it, so a run from before a removal cannot bring the stack back.
        fences = Path(self.base_dir) / "fences"
        ensure_directory(fences, "0700", 0, 0)
        descriptor = os.open(fences / f"{self.tenant}.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        self._lock = descriptor
        try:
            deadline = time.monotonic() + LOCK_WAIT_SECONDS
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except OSError:
                    if time.monotonic() > deadline:
                        raise StackError(
                            "another run is changing this stack on the node; converge again later", Problem.BUSY
                        ) from None
                    time.sleep(0.1)
            fence_path = fences / f"{self.tenant}.json"
            known = (read_json(fence_path) or {}).get("fence", 0)
            if self.stack["fence"] < known:
                raise StackError(
                    f"this run lost its lease (its number is {self.stack['fence']}, run {known} has taken over); "
                    "it wrote nothing",
                    Problem.BUSY,
                )
            if self.stack["fence"] > known:
                write_file(fence_path, json.dumps({"fence": self.stack["fence"]}).encode(), "0600", 0, 0)
            yield read_state(self.directory) or {}
        finally:
            os.close(descriptor)

    def _content(self, file: dict[str, Any]) -> bytes:
        text = self.secrets[file["path"]] if file["secret"] else file["content"]
        return str(text).encode()

    def _file_changes(
        self, state: dict[str, Any]
    ) -> tuple[list[dict[str, Any]], list[tuple[dict[str, Any], dict[str, object] | None]], list[str]]:
        directories = [
            d
            for d in self.stack["directories"]
            if not directory_is(self.directory / d["path"], d["mode"], d["uid"], d["gid"])
        ]
        files = []
        for file in self.stack["files"]:
            before = file_facts(self.directory / file["path"])
            wanted = {
                "sha256": digest(self._content(file)),
                "mode": file["mode"],
                "uid": file["uid"],
                "gid": file["gid"],
            }
            if before != wanted:
                files.append((file, before))
        wanted_paths = {file["path"] for file in self.stack["files"]}
        obsolete = [path for path in state.get("files", {}) if path not in wanted_paths]
        return directories, files, obsolete

    def _note(self, change: str) -> None:
        self.changes.append(change)

    def _note_diff(self, file: dict[str, Any], before: dict[str, object] | None) -> None:
        header = f"{self.tenant}/{file['path']}"
        if file["secret"]:
            old, new = ("(a secret)\n" if before else "", "(a secret, not shown)\n")
        else:
            old = ""
            if before is not None:
                with contextlib.suppress(OSError):
                    old = (self.directory / file["path"]).read_text(errors="replace")
            new = str(file["content"])
        facts = "" if before is None else f" mode={before['mode']} owner={before['uid']}:{before['gid']}"
        self.diffs.append(
            {
                "before_header": header + facts,
                "after_header": f"{header} mode={file['mode']} owner={file['uid']}:{file['gid']}",
                "before": old[:DIFF_MAX_CHARACTERS],
                "after": new[:DIFF_MAX_CHARACTERS],
            }
        )

    def _check_network(self, network: dict[str, Any] | None) -> None:
        """Raises StackError for a network that would have to be made anew; asked before anything is stopped."""
        wanted = self.stack["network"]
        for guest in wanted["attach"]:
            self._guest(guest)
        if network is None:
            return
        if not self._is_own(network):
            raise StackError(
                f"there is a network {wanted['name']} on the node that is not of this tenant (its label "
                f"{LABEL_TENANT} says otherwise); remove it by hand. Nothing was changed"
            )
        subnet = [c.get("Subnet") for c in (network.get("IPAM") or {}).get("Config") or []]
        if subnet != [wanted["subnet"]] or bool(network.get("Internal")) != wanted["internal"]:
            raise StackError(
                f"network {wanted['name']} exists with another subnet or kind ({subnet}, internal: "
                f"{network.get('Internal')}). A deployed tenant cannot change between the live and the sandbox "
                "exchange: remove it and store it anew. Nothing was changed"
            )

    def _network(self, network: dict[str, Any] | None) -> None:
        wanted = self.stack["network"]
        labels = {LABEL_TENANT: self.tenant}
        if network is None:
            self._note(f"network {wanted['name']} {wanted['subnet']}")
            if not self.check:
                self.engine.create_network(
                    wanted["name"], wanted["subnet"], wanted["gateway"], wanted["internal"], labels
                )
        for guest in wanted["attach"]:
            container = self._guest(guest)
            if wanted["name"] in networks_of(container):
                continue
            self._note(f"attach {guest['container']} to {wanted['name']}")
            if not self.check:
                self.engine.connect(wanted["name"], guest["container"], guest["aliases"], guest["address"])

    def _guest(self, guest: dict[str, Any]) -> dict[str, Any]:
        """A shared service's container; raises StackError where it is missing."""
        container = self.engine.inspect(guest["container"])
        if container is None:
            raise StackError(
                f"container {guest['container']}, which this tenant needs, is not on the node; "
                f"run the playbook {guest['playbook']} for it first"
            )
        return container

    def _leave_network(self, network: dict[str, Any] | None) -> None:
        """Takes shared services out of the network that no bot of the tenant needs any more."""
        name = self.stack["network"]["name"]
        for service in self.stack["network"].get("detach", []):
            container = self.engine.inspect(service) if network is not None else None
            if container is not None and name in networks_of(container):
                self._note(f"detach {service} from {name}")
                if not self.check:
                    self.engine.disconnect(name, service)

    def _hand_over_users(self) -> None:
        """Has the node's broker know the stack's users as they are now; those that are gone are logged out."""
        wanted = next((file for file in self.stack.get("files", []) if file["path"] == broker.USERS_FILE), None)
        text = None if wanted is None else self._content(wanted).decode()
        try:
            changed = broker.hand_over_users(
                self.engine, self.base_dir, self.stack["broker"], check=self.check, instead={self.tenant: text}
            )
        except broker.BrokerUnavailableError as error:
            # Without a broker that runs nobody is logged in, and it reads its users when it starts.
            if wanted is not None:
                raise StackError(str(error)) from None
            return
        if changed:
            self._note("hand the broker's users over")

    def _compose(self, *arguments: str, timeout: float = 600) -> str:
        command = ["docker", "compose", "--project-directory", str(self.directory), *arguments]
        environment = {key: value for key, value in os.environ.items() if key in ("PATH", "HOME", "LANG")}
        environment.setdefault("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        # Debian's client is the one that was set up for this engine; another one found first in PATH may not fit.
        environment["PATH"] = "/usr/bin:" + environment["PATH"]
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=timeout,
                env=environment,
                check=False,
                cwd=self.directory,
                # Whatever ends this process, the lock lasts as long as its docker compose does.
                pass_fds=() if self._lock is None else (self._lock,),
            )
        except FileNotFoundError:
            raise StackError("docker is not installed on this node; run the playbook prepare_nodes") from None
        except subprocess.TimeoutExpired:
            raise StackError(
                f"docker compose {arguments[0]} took longer than {timeout:.0f} s", Problem.TIMEOUT
            ) from None
        if done.returncode != 0:
            lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
            raise StackError(
                f"docker compose {arguments[0]} ended with exit code {done.returncode}: "
                + (" / ".join(lines[-4:])[:600] or "no output"),
                exit_code=done.returncode,
            )
        return done.stdout

    def _announce(self, state: dict[str, Any]) -> None:
        """Writes new bots down before they can trade: if this run breaks off, the next one knows of them."""
        known = {bot["service"] for bot in state.get("bots", [])}
        new = [bot for bot in self.stack["bots"] if bot["service"] not in known]
        if new:
            announced = {**state, "digest": None, "bots": [*state.get("bots", []), *new]}
            write_file(self.directory / STATE_FILE, json.dumps(announced, sort_keys=True).encode(), "0600", 0, 0)

    def _remember(self, before: dict[str, Any]) -> None:
        """Writes what was applied, last: a run that ends earlier leaves the tenant behind."""
        stack = self.stack
        containers = container_facts(self.engine, f"{LABEL_TENANT}={self.tenant}").get(self.tenant, {})
        services = {}
        for name, service in stack["services"].items():
            facts = self.engine.inspect(containers[name]["id"]) if name in containers else None
            services[name] = {
                "container": service["container"],
                "spec": service["spec"],
                "running": service["running"],
                "image": service["image"],
                "inspect": inspect_digest(facts) if facts else None,
            }
        state = {
            "digest": stack["digest"],
            "revision": stack["revision"],
            "uid": stack["gid"],
            "services": services,
            "bots": stack["bots"],
            "network": stack["network"],
            "directories": {d["path"]: {k: d[k] for k in ("mode", "uid", "gid")} for d in stack["directories"]},
            "files": {
                f["path"]: {"sha256": digest(self._content(f)), "mode": f["mode"], "uid": f["uid"], "gid": f["gid"]}
                for f in stack["files"]
            },
        }
        if state != before:
            write_file(self.directory / STATE_FILE, json.dumps(state, sort_keys=True).encode(), "0600", 0, 0)


def _unclean(troubles: dict[str, Trouble]) -> StackError:
    """The error for bots, by id, whose orders could not be checked."""
    return StackError(
        "; ".join(
            f"bot {bot} is unclean and its orders could not be checked: {trouble.text}"
            for bot, trouble in troubles.items()
        )
        + ". It was not started again; converge once more when the exchange answers",
        gravest(trouble.problem for trouble in troubles.values()),
    )
