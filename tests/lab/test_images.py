"""The built images keep the contract of the official ones: any user, read-only root, passwords that count."""

import json
import subprocess
import uuid

import pytest

from images.builder import docker
from images.builder.recipes import load_recipes
from tests.engine.harness import PATIENCE_SECONDS

pytestmark = pytest.mark.lab

UID = 213_577
PASSWORD = "p'ass $word:{{ 7 }}"
HARDENED = (
    "--init", "--read-only", "--user", f"{UID}:{UID}", "--cap-drop", "ALL", "--security-opt", "no-new-privileges",
    "--network", "none", "--tmpfs", "/tmp",
)  # fmt: skip


def run(*command, check=True):
    done = subprocess.run(command, capture_output=True, text=True)
    if check and done.returncode != 0:
        raise AssertionError(f"{command}: {done.stdout}{done.stderr}")
    return done


def reference(name):
    found = {recipe.name: recipe.reference for recipe in load_recipes().values()}
    image = next(ref for recipe, ref in found.items() if recipe.split("-2")[0] == name)
    if docker.find_image(image) is None:
        pytest.fail(f"{image} is missing; run: python images/build.py {name}")
    return image


@pytest.fixture
def owned(tmp_path):
    """Makes files and folders that belong to the container's user."""

    def make(name, text=None):
        path = tmp_path / name
        if text is None:
            path.mkdir()
        else:
            path.write_text(text)
        run("chown", f"{UID}:{UID}", str(path))
        path.chmod(0o700 if text is None else 0o400)
        return path

    tmp_path.chmod(0o755)
    for parent in list(tmp_path.parents)[:2]:
        parent.chmod(parent.stat().st_mode | 0o011)
    return make


@pytest.fixture
def start():
    """Starts containers that are gone after the test."""
    started = []

    def start_one(image, *options, command=()):
        name = f"hf-test-images-{uuid.uuid4().hex[:8]}"
        started.append(name)
        run("docker", "run", "--detach", "--name", name, *options, reference(image), *command)
        return name

    yield start_one
    for name in started:
        run("docker", "rm", "--force", "--volumes", name, check=False)


def wait_until(container, *command):
    """Run a command in a container until it succeeds; fail when the container stops first."""
    script = f"until {' '.join(command)} > /dev/null 2>&1; do sleep 0.2; done"
    waiting = subprocess.Popen(["docker", "exec", container, "sh", "-c", script])
    ended = subprocess.Popen(["docker", "wait", container], stdout=subprocess.DEVNULL)
    try:
        assert waiting.wait(timeout=PATIENCE_SECONDS) == 0, run("docker", "logs", container).stderr
    finally:
        for process in (waiting, ended):
            process.kill()
            process.wait()


def state(container):
    return json.loads(run("docker", "inspect", "--format", "{{json .State}}", container).stdout)


POSTGRES = (
    "-e", "POSTGRES_USER=hummingbot", "-e", "POSTGRES_DB=fleet", "-e", "POSTGRES_PASSWORD_FILE=/run/secrets/password",
    "--tmpfs", f"/var/run/postgresql:uid={UID},mode=0700",
)  # fmt: skip


def query(container, password, database="fleet"):
    """Ask over TCP, where the password counts."""
    command = ["docker", "exec", "--env", f"PGPASSWORD={password}", container]
    return run(
        *command, "psql", "-tA", "-h", "127.0.0.1", "-U", "hummingbot", "-c", "SELECT 6 * 7", database, check=False
    )


@pytest.fixture
def postgres(owned, start):
    data, password = owned("data"), owned("password", PASSWORD)
    mounts = ("-v", f"{data}:/var/lib/postgresql/data", "-v", f"{password}:/run/secrets/password:ro")

    def make(*options):
        return start("postgres", *HARDENED, *POSTGRES, *mounts, *options)

    make.data = data
    return make


def test_postgres_starts_as_any_user_on_a_read_only_root_and_asks_for_its_password(postgres):
    container = postgres()
    wait_until(container, "pg_isready", "-h", "127.0.0.1", "-U", "hummingbot", "-d", "fleet")
    assert query(container, PASSWORD).stdout.strip() == "42"
    refused = query(container, PASSWORD + "x")
    assert refused.returncode != 0
    assert "password authentication failed" in refused.stderr
    assert (postgres.data / "PG_VERSION").stat().st_uid == UID
    inside = run("docker", "exec", container, "sh", "-c", "cat /proc/1/environ /proc/*/cmdline").stdout
    assert PASSWORD not in inside


def test_postgres_keeps_its_data_and_stops_cleanly(postgres):
    first = postgres()
    wait_until(first, "pg_isready", "-h", "127.0.0.1", "-U", "hummingbot", "-d", "fleet")
    run("docker", "exec", first, "psql", "-U", "hummingbot", "-c", "CREATE TABLE kept AS SELECT 1 AS one", "fleet")
    run("docker", "stop", "--time", "60", first)
    assert state(first)["ExitCode"] == 0
    second = postgres()
    wait_until(second, "pg_isready", "-h", "127.0.0.1", "-U", "hummingbot", "-d", "fleet")
    kept = run("docker", "exec", second, "psql", "-tA", "-U", "hummingbot", "-c", "SELECT one FROM kept", "fleet")
    assert kept.stdout.strip() == "1"
    assert "initdb" not in run("docker", "logs", second).stdout


def test_postgres_completes_a_first_start_that_was_cut_short(postgres):
    first = postgres()
    wait_until(first, "pg_isready", "-h", "127.0.0.1", "-U", "hummingbot", "-d", "fleet")
    run("docker", "exec", first, "psql", "-U", "hummingbot", "-c", "DROP DATABASE fleet", "postgres")
    run("docker", "kill", first)
    (postgres.data / "initialising").touch()
    second = postgres()
    wait_until(second, "pg_isready", "-h", "127.0.0.1", "-U", "hummingbot", "-d", "fleet")
    assert query(second, PASSWORD).stdout.strip() == "42"
    assert not (postgres.data / "initialising").exists()


def test_postgres_runs_the_scripts_of_its_first_start(postgres, owned):
    scripts = owned("scripts")
    (scripts / "1.sql").write_text("CREATE TABLE made AS SELECT 5 AS five;")
    container = postgres("-v", f"{scripts}:/docker-entrypoint-initdb.d:ro")
    wait_until(container, "pg_isready", "-h", "127.0.0.1", "-U", "hummingbot", "-d", "fleet")
    made = run("docker", "exec", container, "psql", "-tA", "-U", "hummingbot", "-c", "SELECT five FROM made", "fleet")
    assert made.stdout.strip() == "5"


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ((), "needs a password"),
        (("-e", "POSTGRES_PASSWORD=a", "-e", "POSTGRES_PASSWORD_FILE=/b"), "both POSTGRES_PASSWORD and"),
        (("-e", "POSTGRES_PASSWORD_FILE=/missing"), "/missing, which user"),
    ],
)
def test_postgres_says_what_is_wrong_with_its_password(owned, start, options, reason):
    container = start("postgres", *HARDENED, "-v", f"{owned('data')}:/var/lib/postgresql/data", *options)
    run("docker", "wait", container)
    assert state(container)["ExitCode"] == 1
    assert reason in run("docker", "logs", container).stderr


def test_redis_starts_as_any_user_from_a_file_and_asks_for_its_password(owned, start):
    data = owned("data")
    config = owned("redis.conf", "requirepass secret-word\ndir /data\nappendonly yes\n")
    container = start(
        "redis", *HARDENED, "-v", f"{data}:/data", "-v", f"{config}:/etc/redis/redis.conf:ro",
        command=("redis-server", "/etc/redis/redis.conf"),
    )  # fmt: skip
    wait_until(container, "redis-cli", "ping")
    assert "NOAUTH" in run("docker", "exec", container, "redis-cli", "get", "x").stdout
    told = run("docker", "exec", "--env", "REDISCLI_AUTH=secret-word", container, "redis-cli", "set", "x", "1")
    assert told.stdout.strip() == "OK"
    run("docker", "stop", "--time", "30", container)
    assert state(container)["ExitCode"] == 0
    assert (data / "appendonlydir").is_dir()


def test_the_engine_has_its_home_and_its_command_line_for_any_user():
    script = (
        "import os, hummingbot, hummingbot.client.settings as s\n"
        "print(os.getuid(), hummingbot.root_path(), s.CONF_DIR_PATH)"
    )
    options = (*HARDENED, "-e", "HOME=/tmp", "--tmpfs", "/home/hummingbot/logs:mode=1777")
    image = reference("engine")
    told = run("docker", "run", "--rm", *options, image, "python", "-c", script)
    assert told.stdout.split() == [str(UID), "/home/hummingbot", "/home/hummingbot/conf"]
    status = run("docker", "run", "--rm", *options, "--workdir", "/tmp", image, "hbot", "status", "--json")
    assert json.loads(status.stdout)["running"] is False


@pytest.mark.parametrize("name", ["engine", "postgres", "redis", "sandbox", "standin"])
def test_images_keep_nothing_of_the_machine_that_built_them(name):
    image = reference(name)
    config = json.loads(run("docker", "image", "inspect", "--format", "{{json .Config}}", image).stdout)
    names = {variable.split("=")[0] for variable in config["Env"]}
    assert names <= {"PATH", "LANG", "PGDATA", "PG_MAJOR", "PYTHONPATH", "PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE"}
    container = run("docker", "create", image, "none").stdout.strip()
    try:
        archive = subprocess.Popen(["docker", "export", container], stdout=subprocess.PIPE)
        listing = subprocess.run(["tar", "-t"], stdin=archive.stdout, capture_output=True, text=True, check=True)
        archive.wait()
    finally:
        run("docker", "rm", container)
    files = set(listing.stdout.splitlines())
    left = [
        path
        for path in files
        if path.startswith(("etc/apt/sources.list", "run/build/", "root/.cache", "var/lib/apt/lists/", "root/.config/"))
        and not path.endswith("/")
    ]
    assert left == []
    assert "etc/pip.conf" not in files
    assert not [path for path in files if path.endswith(".whl") and "python-wheels" not in path]


def test_the_stand_in_for_a_bot_beats_and_stops_cleanly(owned, start):
    data, config = owned("data"), owned("config")
    (config / "controllers").mkdir()
    (config / "controllers" / "b1.yml").write_text("live: 1\n")
    (config / "bot.json").write_text(
        json.dumps({"connector": "binance", "kind": "v2", "config": "b1.yml", "agent_version": "1.0.0"})
    )
    run("chown", "-R", f"{UID}:{UID}", str(config))
    container = start(
        "standin", *HARDENED[:-2], "-v", f"{data}:/home/hummingbot/data", "-v", f"{config}:/opt/hummingfleet/config:ro",
        command=("python", "/opt/hummingfleet/agent/launcher.py", "run", "hummingbot.cli.engine"),
    )  # fmt: skip
    for _ in range(600):
        if (data / "heartbeat.json").exists():
            break
        run("docker", "exec", container, "pg_isready")
    beat = json.loads((data / "heartbeat.json").read_text())
    expected = run("sha256sum", str(config / "controllers" / "b1.yml")).stdout.split()[0]
    assert (beat["phase"], beat["connectors"], beat["config_digest"]) == ("trading", {"binance": True}, expected)
    assert json.loads((data / "lifecycle.json").read_text())["state"] == "running"
    run("docker", "stop", "--time", "30", container)
    assert state(container)["ExitCode"] == 0
    lifecycle = json.loads((data / "lifecycle.json").read_text())
    assert (lifecycle["state"], lifecycle["clean"], lifecycle["open_orders"]) == ("stopped", True, 0)


def test_the_stand_in_is_small_and_stands_for_databases_too(start):
    found = docker.find_image(reference("standin"))
    assert found.size_bytes < 1_500_000
    container = start("standin", *HARDENED[:-2], command=("postgres", "-c", "x=y"))
    assert run("docker", "exec", container, "redis-cli", "ping").stdout.strip() == "PONG"
    assert run("docker", "exec", container, "sh", "-c", "pg_isready -q").returncode == 0
    assert state(container)["Running"]
    run("docker", "stop", "--time", "30", container)
    assert state(container)["ExitCode"] == 0
