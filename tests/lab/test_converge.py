"""A converge on this machine's Docker engine, with stand-in images: what it brings up, finds, repairs and refuses."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.hummingfleet.core.plugins.module_utils.registry import process_holder

from tests.factories import document, market_making_bot
from tests.installation import ROOT, SYSTEM_PATH, Installation, docker

pytestmark = pytest.mark.lab

ACME, BELL = "hflab-acme", "hflab-bell"


def tenant_document(installation: Installation, tenant: str, **overrides: Any) -> dict[str, Any]:
    """A tenant with Postgres, Redis and two bots on the live exchange (the stand-in calls nobody)."""
    data = document(
        tenant=tenant,
        subdomain=tenant,
        exchange_environment="live",
        exchange_connections=[installation.connection(tenant)],
        bots=[market_making_bot(id="b1"), market_making_bot(id="b2")],
    )
    return data | overrides


@pytest.fixture(scope="module")
def installation() -> Iterator[Installation]:
    folder = Path(tempfile.mkdtemp(prefix="hflab-", dir="/var/tmp"))
    made = Installation(folder, prefix="hflab-", pool="10.199.0.0/20", uid_start=330_000)
    try:
        for tenant in (ACME, BELL):
            made.submit(tenant_document(made, tenant))
        run = made.converge()
        assert run.code == 0, run.output
        yield made
    finally:
        made.clean()
        shutil.rmtree(folder)


def snapshot(installation: Installation) -> dict[str, object]:
    """Ids of containers, and times and contents of files: what a converge that changes nothing leaves alone."""
    files = {}
    for path in sorted((installation.base_dir / "tenants").rglob("*")):
        # What the bots write themselves changes by itself.
        if path.is_file() and "data" not in path.parts and "logs" not in path.parts:
            files[str(path)] = (path.stat().st_mtime_ns, path.read_bytes())
    return {"containers": installation.containers(), "files": files}


def tenant_dir(installation: Installation, tenant: str = ACME) -> Path:
    return installation.base_dir / "tenants" / tenant


def applied(installation: Installation, tenant: str = ACME) -> bool:
    record = installation.registry.get(tenant)
    return record.applied_revision == record.revision


def test_first_converge_brings_both_tenants_up(installation: Installation) -> None:
    names = {f"{tenant}-{service}" for tenant in (ACME, BELL) for service in ("postgres", "redis", "bot_b1", "bot_b2")}
    assert set(installation.containers()) == names
    assert applied(installation) and applied(installation, BELL)
    assert installation.registry.get(ACME).outcome["bots"]["b1"]["state"] == "running"
    assert installation.registry.leases() == {}


def test_second_converge_changes_nothing(installation: Installation) -> None:
    before = snapshot(installation)
    run = installation.converge()
    assert run.code == 0, run.output
    assert run.changed == 0
    assert snapshot(installation) == before


def test_no_task_overrides_changed() -> None:
    files = [*(ROOT / "roles" / "tenant_stack" / "tasks").glob("*.yml"), ROOT / "playbooks" / "converge_tenant.yml"]
    assert len(files) >= 4
    assert not [path for path in files if "changed_when" in path.read_text()]


def test_docker_compose_up_by_hand_changes_nothing(installation: Installation) -> None:
    before = snapshot(installation)
    done = subprocess.run(
        ["docker", "compose", "up", "-d"],
        cwd=tenant_dir(installation),
        env={**os.environ, "PATH": SYSTEM_PATH},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert snapshot(installation) == before
    listed = subprocess.run(
        ["docker", "compose", "ps", "--format", "json"],
        cwd=tenant_dir(installation),
        env={**os.environ, "PATH": SYSTEM_PATH},
        capture_output=True,
        text=True,
        check=True,
    )
    assert len(listed.stdout.strip().splitlines()) == 4


def test_every_tenant_has_a_user_and_folders_of_its_own(installation: Installation) -> None:
    users = {tenant: installation.registry.get(tenant).document["uid"] for tenant in (ACME, BELL)}
    assert users[ACME] != users[BELL]
    for tenant, uid in users.items():
        for path in tenant_dir(installation, tenant).rglob("*"):
            if path.parent.name in ("data", "logs"):
                continue  # written by the bot itself, behind a folder that only its user can enter
            status = path.lstat()
            assert status.st_mode & 0o007 == 0, f"{path} is open to others"
            assert status.st_gid in (uid, 0), path
            assert status.st_uid in (uid, 0), path
        for name in ("postgres", "redis", "bot_b1"):
            facts = json.loads(docker("inspect", f"{tenant}-{name}"))[0]
            assert facts["Config"]["User"] == f"{uid}:{uid}"
            host = facts["HostConfig"]
            assert host["ReadonlyRootfs"] and host["CapDrop"] == ["ALL"] and not host["Privileged"]
            assert "no-new-privileges:true" in host["SecurityOpt"]
            assert host["Memory"] > 0 and host["PidsLimit"] > 0
            assert not any("docker.sock" in mount["Source"] for mount in facts["Mounts"])


class TestRepair:
    """Alterations by hand. What a list of containers shows is found every time, the rest by a deep converge."""

    def test_a_removed_container_is_found_at_once(self, installation: Installation) -> None:
        before = installation.containers()
        docker("rm", "-f", f"{ACME}-redis")
        run = installation.converge("--limit", f"tenant-{ACME}")
        assert run.code == 0, run.output
        after = installation.containers()
        assert after.pop(f"{ACME}-redis") != before.pop(f"{ACME}-redis")
        assert after == before

    def test_a_stopped_bot_that_should_run_is_started(self, installation: Installation) -> None:
        docker("stop", "-t", "5", f"{ACME}-bot_b1")
        run = installation.converge()
        assert run.code == 0, run.output
        assert docker("inspect", "-f", "{{.State.Status}}", f"{ACME}-bot_b1") == "running"

    def test_an_edited_file_is_found_and_repaired_by_a_deep_converge(self, installation: Installation) -> None:
        target = tenant_dir(installation) / "bots/b1/config/conf_client.yml"
        good = target.read_bytes()
        target.write_bytes(b"edited: by hand\n")
        assert installation.converge().changed == 0
        run = installation.converge("-e", "tenant_stack_deep=true")
        assert run.code == 0, run.output
        assert target.read_bytes() == good
        assert run.recap[f"tenant-{BELL}"]["changed"] == 0 if f"tenant-{BELL}" in run.recap else True
        assert installation.converge("-e", "tenant_stack_deep=true").changed == 0

    @pytest.mark.parametrize("mode", [0o644, 0o777])
    def test_an_opened_secret_is_closed_by_a_deep_converge(self, installation: Installation, mode: int) -> None:
        target = tenant_dir(installation) / "secrets/keystore_password"
        target.chmod(mode)
        run = installation.converge("-e", "tenant_stack_deep=true")
        assert run.code == 0, run.output
        assert target.stat().st_mode & 0o777 == 0o400

    def test_a_container_altered_by_hand_is_replaced_by_a_deep_converge(self, installation: Installation) -> None:
        before = installation.containers()
        docker("update", "--memory", "128m", "--memory-swap", "128m", f"{ACME}-redis")
        assert installation.converge().changed == 0
        run = installation.converge("-e", "tenant_stack_deep=true")
        assert run.code == 0, run.output
        after = installation.containers()
        assert after.pop(f"{ACME}-redis") != before.pop(f"{ACME}-redis")
        assert after == before
        assert docker("inspect", "-f", "{{.HostConfig.Memory}}", f"{ACME}-redis") == str(16 * 2**20)


class TestCheckMode:
    def test_check_predicts_what_a_real_run_reports(self, installation: Installation) -> None:
        before = snapshot(installation)
        amount = 0.07
        installation.change(ACME, lambda data: data["bots"][0]["strategy_config"].update(order_amount=amount))
        predicted = installation.converge("--check", "--diff")
        assert predicted.code == 0, predicted.output
        assert snapshot(installation) == before
        assert not applied(installation)
        real = installation.converge("--diff")
        assert real.code == 0, real.output
        assert predicted.recap == real.recap
        assert diffs(predicted.output) == diffs(real.output)
        assert "+order_amount: 0.07" in real.output
        assert applied(installation)

    def test_a_new_tenant_is_predicted_without_touching_the_node(self, installation: Installation) -> None:
        tenant = "hflab-new"
        installation.submit(tenant_document(installation, tenant, bots=[]))
        before = snapshot(installation)
        run = installation.converge("--check", "--diff")
        assert run.code == 0, run.output
        assert run.recap[f"tenant-{tenant}"]["changed"] == 1
        assert snapshot(installation) == before
        secret = (tenant_dir(installation) / "secrets/postgres_password").read_text()
        assert len(secret) > 20 and secret not in run.output
        assert "(a secret, not shown)" in run.output
        installation.change(tenant, lambda data: data.update(state="terminated"))
        run = installation.converge()
        assert run.code == 0, run.output
        assert applied(installation, tenant)


def diffs(output: str) -> list[str]:
    """The lines of all diffs, in the order of the tenants."""
    return sorted(line for line in output.splitlines() if line.startswith(("---", "+++", "@@", "+", "-")))


class TestOneTenantAlone:
    def test_a_limit_to_one_tenant_leaves_the_other_alone(self, installation: Installation) -> None:
        for tenant in (ACME, BELL):
            installation.change(tenant, lambda data: data["redis"].update(enabled=False))
        before = installation.containers()
        run = installation.converge("--limit", f"tenant-{ACME}")
        assert run.code == 0, run.output
        gone = set(before) - set(installation.containers())
        assert gone == {f"{ACME}-redis"}
        assert applied(installation) and not applied(installation, BELL)
        assert installation.converge().code == 0
        assert f"{BELL}-redis" not in installation.containers()

    def test_only_the_changed_bot_is_restarted(self, installation: Installation) -> None:
        before = installation.containers()
        installation.change(ACME, lambda data: data["bots"][1]["strategy_config"].update(order_amount=0.09))
        run = installation.converge()
        assert run.code == 0, run.output
        after = installation.containers()
        assert after.pop(f"{ACME}-bot_b2") != before.pop(f"{ACME}-bot_b2")
        assert after == before

    def test_a_limit_to_a_node_alone_fails_loudly(self, installation: Installation) -> None:
        run = installation.converge("--limit", "lab")
        assert run.code != 0
        assert "no tenant is in the limit 'lab'" in run.output


class TestLifecycle:
    def test_a_stopped_bot_stops_and_stays_stopped(self, installation: Installation) -> None:
        installation.change(ACME, lambda data: data["bots"][0].update(state="stopped"))
        run = installation.converge()
        assert run.code == 0, run.output
        assert docker("inspect", "-f", "{{.State.Status}}", f"{ACME}-bot_b1") == "exited"
        assert installation.registry.get(ACME).outcome["bots"]["b1"]["state"] == "stopped"
        assert installation.converge().changed == 0
        docker("start", f"{ACME}-bot_b1")
        run = installation.converge()
        assert run.code == 0, run.output
        assert docker("inspect", "-f", "{{.State.Status}}", f"{ACME}-bot_b1") == "exited"
        installation.change(ACME, lambda data: data["bots"][0].update(state="running"))
        assert installation.converge().code == 0
        assert docker("inspect", "-f", "{{.State.Status}}", f"{ACME}-bot_b1") == "running"

    def test_a_restart_is_a_new_container_of_that_bot(self, installation: Installation) -> None:
        before = installation.containers()
        installation.change(ACME, lambda data: data["bots"][0].update(restarts=data["bots"][0].get("restarts", 0) + 1))
        assert installation.converge().code == 0
        after = installation.containers()
        assert after.pop(f"{ACME}-bot_b1") != before.pop(f"{ACME}-bot_b1")
        assert after == before

    def test_a_deleted_bots_data_is_put_away_and_a_new_one_of_the_name_starts_empty(
        self, installation: Installation
    ) -> None:
        home = tenant_dir(installation) / "bots" / "b2"
        (home / "data" / "mark").write_text("old")
        kept: list[Any] = []
        installation.change(ACME, lambda data: kept.append(data["bots"].pop(1)))
        run = installation.converge()
        assert run.code == 0, run.output
        assert f"{ACME}-bot_b2" not in installation.containers()
        assert not home.exists()
        [put_away] = (tenant_dir(installation) / "removed").iterdir()
        assert (put_away / "data" / "mark").read_text() == "old"
        assert not (put_away / "config").exists()
        installation.change(ACME, lambda data: data["bots"].append(kept[0]))
        assert installation.converge().code == 0
        assert not (home / "data" / "mark").exists()

    def test_suspend_stops_everything_and_resume_brings_it_back(self, installation: Installation) -> None:
        installation.change(BELL, lambda data: data.update(state="suspended"))
        assert installation.converge().code == 0
        states = {name: docker("inspect", "-f", "{{.State.Status}}", name) for name in installation.containers()}
        assert {state for name, state in states.items() if name.startswith(BELL)} == {"exited"}
        assert installation.converge().changed == 0
        installation.change(BELL, lambda data: data.update(state="active"))
        assert installation.converge().code == 0
        assert docker("inspect", "-f", "{{.State.Status}}", f"{BELL}-bot_b1") == "running"


class TestLease:
    def test_a_converge_is_refused_while_another_run_holds_the_tenant(self, installation: Installation) -> None:
        holder = process_holder(os.getpid())
        leases = installation.registry.acquire_leases([ACME], holder=holder, ttl_seconds=60)
        fence = leases[ACME].fence
        before = snapshot(installation)
        try:
            installation.change(ACME, lambda data: data["bots"][0]["strategy_config"].update(order_amount=0.11))
            run = installation.converge("-e", "tenant_stack_lease_wait_seconds=0")
            assert run.code != 0
            assert f"tenant {ACME} is being worked on by process {os.getpid()}" in run.output
            assert snapshot(installation) == before
        finally:
            installation.registry.release_leases({ACME: fence})
        assert installation.converge().code == 0
        assert applied(installation)

    def test_a_run_that_lost_its_lease_writes_nothing(self, installation: Installation) -> None:
        fence = installation.base_dir / "fences" / f"{ACME}.json"
        known = json.loads(fence.read_text())["fence"]
        fence.write_text(json.dumps({"fence": known + 1000}))
        installation.change(ACME, lambda data: data["bots"][0]["strategy_config"].update(order_amount=0.12))
        before = snapshot(installation)
        run = installation.converge()
        assert run.code != 0
        assert "lost its lease" in run.output
        assert snapshot(installation) == before
        assert not applied(installation)
        fence.write_text(json.dumps({"fence": known}))
        assert installation.converge().code == 0


class TestFailures:
    """Each has a code, which the registry keeps beside what the bots did meanwhile."""

    def test_credentials_that_do_not_open(self, installation: Installation) -> None:
        good: list[Any] = []

        def break_key(data: dict[str, Any]) -> None:
            good.append(data["exchange_connections"])
            strange = installation.connection("hflab-other")
            data["exchange_connections"] = [strange]

        installation.change(ACME, break_key)
        run = installation.converge()
        assert run.code != 0
        assert '"problem": "credentials_refused"' in run.output
        outcome = installation.registry.get(ACME).outcome
        assert (outcome["problem"], outcome["applied"]) == ("credentials_refused", False)
        assert "connection ex1" in outcome["message"]
        installation.change(ACME, lambda data: data.update(exchange_connections=good[0]))
        assert installation.converge().code == 0
        outcome = installation.registry.get(ACME).outcome
        assert (outcome["problem"], outcome["message"]) == (None, None)

    def test_a_bot_that_does_not_stay_up(self, installation: Installation) -> None:
        """A folder where its heartbeat belongs: the stand-in cannot report, so nothing shows that it trades."""
        heartbeat = tenant_dir(installation) / "bots" / "b1" / "data" / "heartbeat.json"
        installation.change(ACME, lambda data: data["bots"][0].update(state="stopped"))
        assert installation.converge().code == 0
        heartbeat.unlink()
        heartbeat.mkdir()
        installation.change(ACME, lambda data: data["bots"][0].update(state="running"))
        run = installation.converge("-e", "tenant_stack_health_timeout_seconds=2")
        assert run.code != 0
        outcome = installation.registry.get(ACME).outcome
        assert outcome["problem"] == "engine_refused"
        assert outcome["bots"]["b2"]["state"] == "running"
        assert set(outcome["bots"]["b1"]) >= {"state", "open_orders", "fills", "position", "halted", "engine_version"}
        heartbeat.rmdir()
        assert installation.converge().code == 0


def test_a_removal_is_predicted_as_it_comes(installation: Installation) -> None:
    tenant = "hflab-gone"
    installation.submit(tenant_document(installation, tenant, bots=[]))
    assert installation.converge().code == 0
    playbook = ROOT / "playbooks" / "remove_tenant.yml"
    predicted = installation.playbook(playbook, "--check", "--limit", f"tenant-{tenant}")
    assert predicted.code == 0, predicted.output
    assert tenant_dir(installation, tenant).is_dir()
    assert installation.registry.get(tenant).document["state"] == "active"
    real = installation.playbook(playbook, "--limit", f"tenant-{tenant}")
    assert real.code == 0, real.output
    assert predicted.recap == real.recap
    assert not tenant_dir(installation, tenant).exists()


def test_removal_leaves_nothing_on_the_node(installation: Installation) -> None:
    installation.change(BELL, lambda data: data.update(state="terminated"))
    run = installation.converge()
    assert run.code == 0, run.output
    assert not [name for name in installation.containers() if name.startswith(BELL)]
    assert f"hf-{BELL}" not in docker("network", "ls", "--format", "{{.Name}}").splitlines()
    assert not tenant_dir(installation, BELL).exists()
    assert applied(installation, BELL)
    assert installation.converge().changed == 0
