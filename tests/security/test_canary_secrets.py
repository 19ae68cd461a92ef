"""A whole run with random secrets on the real engine, after which none of them is anywhere it does not belong.

Beside the run's own secrets, the search looks for others that are planted on purpose in each place, once in each form:
that those are found shows that the run's own would have been.
"""

from __future__ import annotations

import base64
import os
import secrets
import shutil
import string
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from ansible_collections.hummingfleet.core.plugins.module_utils.derive import PURPOSES, document_password
from ansible_collections.hummingfleet.core.plugins.module_utils.registry import Cause

from tests.factories import document, grid_bot, market_making_bot
from tests.installation import ROOT, SYSTEM_PATH, Installation, docker
from tests.security import evidence
from tests.security.evidence import Finding, Piece, Sampler
from tests.security.search import Search
from webhook import runs

pytestmark = [pytest.mark.engine, pytest.mark.lab]

PREFIX = "hfsec-c-"
TENANT = f"{PREFIX}acme"
CONTROL_CONTAINER = f"{PREFIX}planted"
CONTROL_IMAGE = f"{PREFIX}planted:1"
SMALL_IMAGE = "hummingfleet/sandbox:1"

FORMS: dict[str, Callable[[str], str]] = {
    "plain": lambda secret: secret,
    "hex": lambda secret: secret.encode().hex(),
    "base64": lambda secret: base64.b64encode(secret.encode()).decode(),
    "base64 inside a longer text": lambda secret: base64.b64encode(f"k={secret}\n".encode()).decode(),
    "urlsafe base64": lambda secret: base64.urlsafe_b64encode(f"xy{secret}".encode()).decode(),
    "percent-encoded": lambda secret: "".join(f"%{byte:02X}" for byte in secret.encode()),
}
PLACES = (
    "files of the node",
    "files of the installation",
    "registry",
    "temporary files",
    "temporary files of Ansible",
    "environments",
    "command lines",
    "output of Ansible",
    "runner artifacts",
    "container logs",
    "containers",
    "networks",
    "images",
    "files of Docker",
    "files in memory",
)


def random_word(length: int = 64) -> str:
    """Like an exchange's key."""
    return "".join(secrets.choice(string.ascii_letters + string.digits + "_-") for _ in range(length))


PLANTED = {(place, form): random_word(48) for place in PLACES for form in FORMS}


def planted(place: str) -> str:
    """The secrets for that place, each written in its form."""
    return " ".join(write(PLANTED[place, form]) for form, write in FORMS.items())


class Run:
    """The run under test, step by step; what it leaves behind is searched as soon as it may go away again."""

    def __init__(self, installation: Installation) -> None:
        self.installation = installation
        self.keys = {"api_key": random_word(), "api_secret": random_word(60) + "+/%="}
        installation.registry.submit(
            self.document(installation.connection(TENANT, **self.keys)),
            cause=Cause("test", planted("registry"), "a test"),
            fleet=installation.fleet,
            catalogue=installation.catalogue,
        )
        stored = installation.registry.get(TENANT).document
        self.uid = int(stored["uid"])
        ring = yaml.safe_load((installation.folder / "keyring.yml").read_text())
        self.passwords = {
            purpose: document_password(installation.keyring, stored, purpose).encode() for purpose in PURPOSES
        }
        self.secrets: dict[str, bytes] = {
            **{name: value.encode() for name, value in self.keys.items()},
            **{f"password for {purpose}": password for purpose, password in self.passwords.items()},
            "master key": base64.b64decode(ring["master"]["key"]),
            **{f"portal key {name}": base64.b64decode(key) for name, key in ring["keys"].items()},
        }
        controls = {f"{place}: {form}": secret.encode() for (place, form), secret in PLANTED.items()}
        self.search = Search(self.secrets | controls)
        self.found: set[Finding] = set()
        self.sampler = Sampler(self.search)
        # New to the sampler, so it is watched.
        self.run_dir = Path(tempfile.mkdtemp(prefix=PREFIX))
        self.artifacts: list[Path] = []
        self.node = installation.base_dir
        self.own_files = {
            self.node / "tenants" / TENANT / "secrets" / name: purpose
            for name, purpose in (
                ("keystore_password", "keystore"),
                ("postgres_password", "postgres"),
                ("redis.conf", "redis"),
            )
        }
        # The sandbox is the exchange: it has to know its customers' keys.
        self.exchange_files = (self.node / "sandbox" / "state" / "added_accounts.json",)
        self.key_files = (installation.folder / "keyring.yml",)
        self.own_file_facts: dict[str, Any] = {}

    def document(self, connection: dict[str, Any], **overrides: Any) -> dict[str, Any]:
        return document(
            tenant=TENANT,
            exchange_environment="sandbox",
            exchange_connections=[connection],
            bots=[grid_bot(), market_making_bot()],
            **overrides,
        )

    # - looking -

    def look(self, place: str, pieces: Iterator[Piece] | list[Piece]) -> None:
        for where, data in pieces:
            self.found.update(Finding(place, where, *trace) for trace in self.search.scan(data))

    def look_at_output(self, output: str) -> None:
        self.look("output of Ansible", [("output", output.encode())])

    def look_around(self) -> None:
        """Everything that is there now and may be gone later."""
        folder = self.installation.folder
        self.look("files of the node", evidence.files(self.node, without=(*self.own_files, *self.exchange_files)))
        self.look("files of the installation", evidence.files(folder, without=(self.node, *self.key_files)))
        self.look("registry", evidence.database(folder / "registry.db"))
        self.look("container logs", evidence.container_logs(PREFIX))
        self.look("containers", evidence.container_inspections(PREFIX))
        self.look("networks", evidence.network_inspections((PREFIX, f"hf-{PREFIX}")))
        self.look("files of Docker", evidence.docker_files(PREFIX))
        self.look("files in memory", evidence.memory_files(PREFIX, ()))
        used = [docker("container", "inspect", "-f", "{{.Image}}", name) for name in evidence.containers(PREFIX)]
        self.look("images", evidence.image_inspections([*used, CONTROL_IMAGE]))
        for artifacts in self.artifacts:
            self.look("runner artifacts", evidence.files(artifacts))

    # - the run -

    def converge(self, *arguments: str) -> str:
        run = self.installation.converge("-vvv", "--diff", *arguments)
        self.look_at_output(run.output)
        assert run.code == 0, run.output
        return run.output

    def command(self, *arguments: str, text: str = "") -> str:
        """A run of the command line tool."""
        done = subprocess.run(
            [f"{ROOT}/.venv/bin/hummingfleet", *arguments],
            input=text,
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "HUMMINGFLEET_FLEET": str(self.installation.fleet_path), "PATH": SYSTEM_PATH},
        )
        self.look_at_output(done.stdout + done.stderr)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def run_in_runner(self, playbook: str, **options: Any) -> runs.RunResult:
        """A run as the worker does it, whose artifacts are kept."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PATH", f"{ROOT}/.venv/bin:{SYSTEM_PATH}")
            kept = SimpleNamespace(rmtree=lambda folder, **_options: self.artifacts.append(Path(folder)))
            patch.setattr(runs, "shutil", kept)
            result = runs.run_playbook(
                playbook,
                fleet_path=self.installation.fleet_path,
                only=[TENANT],
                run_dir=self.run_dir,
                **options,
            )
        self.look_at_output("\n".join(result.output))
        assert result.ok, result.problem()
        return result

    def everything(self) -> None:
        control = self.installation.start_sandbox()
        account = {"name": "acme", **self.keys, "balances": {"USDT": "100000", "BTC": "1", "ETH": "100"}}
        control.request("POST", "/accounts", account)
        control.request("POST", "/price", {"pair": "BTC-USDT", "price": "35500"})
        with self.sampler:
            self.plant()
            self.converge("--check")
            self.converge()
            assert control.get("/orders", account="acme", state="open")["orders"]
            assert control.get("/stats")["bad_signatures"] == 0
            self.judge_own_files()
            # The credentials once more, through the command line tool and bound to their place.
            connection = yaml.safe_load(
                self.command(
                    *("credentials", "encrypt", "--tenant", TENANT, "--exchange", "binance", "--from", "-"),
                    text=yaml.safe_dump(self.keys),
                )
            )[0]
            source = self.installation.folder / "tenant.yml"
            source.write_text(yaml.safe_dump(self.document(connection)))
            self.command("tenant", "apply", "-f", str(source))
            self.command("tenant", "get", TENANT, "--document")
            self.command("tenant", "history", TENANT, "--diff", "--json")
            self.command("bot", "status", TENANT)
            self.command("bot", "logs", TENANT, "b1", "--lines", "10000")
            self.look_around()
            self.installation.change(TENANT, lambda data: data["bots"].pop())
            self.run_in_runner("converge_tenant", diff=True)
            (self.artifacts[0] / "artifacts" / "planted").write_text(planted("runner artifacts"))
            self.look_around()
            self.run_in_runner("remove_tenant")
            self.look_around()
        assert self.sampler.rounds > 100
        self.found |= self.sampler.found

    def judge_own_files(self) -> None:
        for path, purpose in self.own_files.items():
            status = path.stat()
            self.own_file_facts[path.name] = {
                "mode": f"{status.st_mode & 0o7777:04o}",
                "uid": status.st_uid,
                "holds its own": {trace.secret for trace in self.search.scan(path.read_bytes())}
                == {f"password for {purpose}"},
            }
        for path in self.exchange_files:
            assert {trace.secret for trace in self.search.scan(path.read_bytes())} == {"api_key", "api_secret"}
            assert path.stat().st_mode & 0o077 == 0 and path.parent.stat().st_mode & 0o077 == 0
        for path in self.key_files:
            assert self.search.scan(path.read_bytes()) and path.stat().st_mode & 0o077 == 0

    # - on purpose -

    def plant(self) -> None:
        folder = self.installation.folder
        (self.node / "planted").write_text(planted("files of the node"))
        (folder / "planted").write_text(planted("files of the installation"))
        for place, target in (
            ("temporary files", "/tmp"),
            ("temporary files of Ansible", evidence.ANSIBLE_FOLDER),
        ):
            with tempfile.NamedTemporaryFile("w", prefix=PREFIX, dir=target) as handle:
                handle.write(planted(place))
                handle.flush()
                self.sampler.look_once()
        idle = [sys.executable, "-c", "import sys; sys.stdin.read()"]
        for words, variables in (((), {"PLANTED": planted("environments")}), ((planted("command lines"),), {})):
            with subprocess.Popen([*idle, *words], env={**os.environ, **variables}, stdin=subprocess.PIPE):
                self.sampler.look_once()
        self.plant_containers()
        self.look_at_output(self.say(planted("output of Ansible")))

    def say(self, text: str) -> str:
        """What Ansible prints of a task that shows a text."""
        task = {"ansible.builtin.debug": {"msg": text}}
        play = {"hosts": "nodes", "gather_facts": False, "tasks": [task]}
        path = self.installation.folder / "planted.yml"
        path.write_text(yaml.safe_dump([play]))
        try:
            return self.installation.playbook(path, "-vvv").output
        finally:
            path.unlink()

    def plant_containers(self) -> None:
        folder = self.installation.folder
        for name, place in (("log", "container logs"), ("memory", "files in memory")):
            (folder / name).write_text(planted(place))
            (folder / name).chmod(0o444)
        program = (
            "import pathlib, time; print(pathlib.Path('/log').read_text(), flush=True); "
            "pathlib.Path('/mem/x').write_text(pathlib.Path('/memory').read_text()); time.sleep(3600)"
        )
        subnet = list(self.installation.fleet.address_pool.subnets(new_prefix=29))[-1]
        docker(
            *("network", "create", "--internal", "--subnet", str(subnet)),
            *("--label", f"planted={planted('networks')}", f"{PREFIX}planted"),
        )
        docker(
            *("run", "--detach", "--init", "--name", CONTROL_CONTAINER, "--network", f"{PREFIX}planted"),
            *("--label", f"planted={planted('containers')}", "--label", f"more={planted('files of Docker')}"),
            *("--volume", f"{folder}/log:/log:ro", "--volume", f"{folder}/memory:/memory:ro", "--tmpfs", "/mem"),
            *(SMALL_IMAGE, "python3", "-c", program),
        )
        docker("commit", "--change", f'LABEL planted="{planted("images")}"', CONTROL_CONTAINER, CONTROL_IMAGE)


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    folder = Path(tempfile.mkdtemp(prefix="hfsec-c-", dir="/var/tmp"))
    installation = Installation(folder, prefix=PREFIX, pool="10.197.0.0/23", uid_start=350_000, images={})
    made = None
    try:
        made = Run(installation)
        made.everything()
        yield made
    finally:
        installation.clean()
        docker("image", "rm", CONTROL_IMAGE, check=False)
        for path in (folder, *([made.run_dir] if made else ())):
            shutil.rmtree(path, ignore_errors=True)


def test_no_secret_of_the_run_is_anywhere_it_does_not_belong(run: Run) -> None:
    found = sorted(
        f"{finding.secret} ({finding.form}) in {finding.place}: {finding.where}"
        for finding in run.found
        if finding.secret in run.secrets
    )
    assert found == [], "\n".join(found)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("place", PLACES)
def test_a_secret_planted_on_purpose_is_found(run: Run, place: str, form: str) -> None:
    assert any(finding.place == place and finding.secret == f"{place}: {form}" for finding in run.found)


def test_the_tenants_secret_files_are_its_own(run: Run) -> None:
    expected = {"mode": "0400", "uid": run.uid, "holds its own": True}
    assert run.own_file_facts == dict.fromkeys(("keystore_password", "postgres_password", "redis.conf"), expected)
