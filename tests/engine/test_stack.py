"""A tenant's whole stack with the real engine: from a revision in the registry to orders on the exchange and back."""

from __future__ import annotations

import json
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.hummingfleet.core.plugins.module_utils.strategies.grid import Grid, GridConfig, levels

from sandbox.control import ControlClient
from tests.engine.harness import wait_for
from tests.factories import catalogue, document, grid_bot, market_making_bot
from tests.installation import ROOT, Installation, docker
from webhook.operations import user_reason

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]

TENANT = "hfeng-acme"
PAIR = "BTC-USDT"
GRID = {"lower_bound": 30000, "upper_bound": 35000, "grid_count": 10, "order_amount": 100}


class Exchange:
    """What the sandbox exchange itself knows; bots cannot ask this."""

    def __init__(self, control: ControlClient) -> None:
        self.control = control

    def price(self, price: int) -> None:
        self.control.request("POST", "/price", {"pair": PAIR, "price": str(price)})

    def orders(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.control.get(f"/orders?account={TENANT}&state=open")["orders"]
        return found

    def resting(self, side: str) -> list[tuple[Decimal, Decimal]]:
        """Price and amount of the grid's open orders of one side, by price."""
        return sorted(
            (Decimal(order["price"]), Decimal(order["quantity"]))
            for order in self.orders()
            if order["side"] == side and order["pair"] == PAIR
        )

    def btc(self) -> Decimal:
        account = self.control.get(f"/account/{TENANT}")
        held = account["balances"].get("BTC", {"free": "0", "locked": "0"})
        return Decimal(held["free"]) + Decimal(held["locked"])

    def bad_signatures(self) -> int:
        return int(self.control.get("/stats")["accounts"][TENANT]["bad_signatures"])


@pytest.fixture(scope="module")
def installation() -> Iterator[Installation]:
    folder = Path(tempfile.mkdtemp(prefix="hfeng-", dir="/var/tmp"))
    made = Installation(folder, prefix="hfeng-", pool="10.196.0.0/20", images={}, uid_start=360_000)
    try:
        yield made
    finally:
        made.clean()
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def exchange(installation: Installation) -> Exchange:
    control = installation.start_sandbox()
    key, secret = secrets.token_hex(32), secrets.token_hex(32)
    account = {"name": TENANT, "api_key": key, "api_secret": secret, "balances": {"USDT": "20000", "ETH": "1"}}
    control.request("POST", "/accounts", account)
    made = Exchange(control)
    made.price(35250)
    installation.submit(
        document(
            tenant=TENANT,
            subdomain=TENANT,
            exchange_environment="sandbox",
            exchange_connections=[installation.connection(TENANT, api_key=key, api_secret=secret)],
            bots=[grid_bot(strategy_config=dict(GRID))],
        )
    )
    run = installation.converge()
    assert run.code == 0, run.output
    return made


def expected_levels(config: dict[str, Any]) -> list[tuple[Decimal, Decimal]]:
    """Price and amount of every level's buy order, as the template's own formula gives them."""
    rules = catalogue().exchanges["binance"].pairs[PAIR]
    return sorted((level.buy_price, level.amount) for level in levels(GridConfig.of(config), rules))


def bot_dir(installation: Installation, bot: str = "b1") -> Path:
    return installation.base_dir / "tenants" / TENANT / "bots" / bot


def lifecycle(installation: Installation, bot: str = "b1") -> dict[str, Any]:
    record: dict[str, Any] = json.loads((bot_dir(installation, bot) / "data" / "lifecycle.json").read_text())
    return record


def heartbeat(installation: Installation, bot: str = "b1") -> dict[str, Any]:
    beat: dict[str, Any] = json.loads((bot_dir(installation, bot) / "data" / "heartbeat.json").read_text())
    return beat


def process(bot: str = "b1") -> tuple[str, str]:
    """Container id and start time: the same as long as nothing was restarted."""
    return tuple(docker("inspect", "-f", "{{.Id}} {{.State.StartedAt}}", f"{TENANT}-bot_{bot}").split())  # type: ignore[return-value]


def edit_bot(**fields: Any) -> Callable[[dict[str, Any]], None]:
    """An edit that sets fields of the first bot; dictionaries are merged."""

    def edit(data: dict[str, Any]) -> None:
        bot = data["bots"][0]
        for name, value in fields.items():
            if isinstance(value, dict):
                bot[name] = {**bot[name], **value}
            else:
                bot[name] = value

    return edit


def converge(installation: Installation, *arguments: str) -> None:
    run = installation.converge(*arguments)
    assert run.code == 0, run.output


def settled(exchange: Exchange, buys: int, sells: int) -> None:
    wait_for(
        f"{buys} buys and {sells} sells rest",
        lambda: (len(exchange.resting("BUY")), len(exchange.resting("SELL"))) == (buys, sells),
    )


def test_the_grid_rests_exactly_at_its_levels(installation: Installation, exchange: Exchange) -> None:
    settled(exchange, 10, 0)
    assert exchange.resting("BUY") == expected_levels(GRID)
    assert exchange.bad_signatures() == 0
    assert Grid().fields["grid_count"].live
    bots = installation.registry.get(TENANT).outcome["bots"]
    assert bots["b1"]["state"] == "running"


def test_a_second_converge_changes_nothing_and_the_bot_does_not_notice(
    installation: Installation, exchange: Exchange
) -> None:
    before = (installation.containers(), process(), {order["client_order_id"] for order in exchange.orders()})
    run = installation.converge()
    assert (run.code, run.changed) == (0, 0), run.output
    assert (
        installation.containers(),
        process(),
        {order["client_order_id"] for order in exchange.orders()},
    ) == before


def test_a_live_change_moves_the_orders_under_the_same_process(installation: Installation, exchange: Exchange) -> None:
    before = process()
    changed = {**GRID, "upper_bound": 34000, "order_amount": 80}
    installation.change(TENANT, edit_bot(strategy_config=changed))
    converge(installation)
    wait_for("the orders are the new levels", lambda: exchange.resting("BUY") == expected_levels(changed))
    assert process() == before
    installation.change(TENANT, edit_bot(strategy_config=GRID))
    converge(installation)
    wait_for("the orders are the old levels", lambda: exchange.resting("BUY") == expected_levels(GRID))
    assert process() == before


def test_another_change_restarts_exactly_that_bot(installation: Installation, exchange: Exchange) -> None:
    others = {name: made for name, made in installation.containers().items() if not name.endswith("bot_b1")}
    before = process()
    installation.change(TENANT, edit_bot(risk_config={"max_drawdown_pct": 15}))
    converge(installation)
    assert process() != before
    assert {name: made for name, made in installation.containers().items() if not name.endswith("bot_b1")} == others
    settled(exchange, 10, 0)


def test_stop_keeps_the_position_and_the_next_start_adopts_it(installation: Installation, exchange: Exchange) -> None:
    exchange.price(33400)  # below the levels 34500, 34000 and 33500
    settled(exchange, 7, 3)
    held, sells = exchange.btc(), exchange.resting("SELL")
    assert held > 0
    installation.change(TENANT, edit_bot(state="stopped"))
    converge(installation)
    assert exchange.orders() == []
    assert exchange.btc() == held
    record = lifecycle(installation)
    assert (record["state"], record["clean"], record["verified"]) == ("stopped", True, "exchange")
    assert docker("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", f"{TENANT}-bot_b1") == "exited 0"
    assert installation.registry.get(TENANT).outcome["bots"]["b1"]["state"] == "stopped"

    installation.change(TENANT, edit_bot(state="running"))
    converge(installation)
    settled(exchange, 7, 3)
    assert exchange.resting("SELL") == sells
    assert exchange.btc() == held


def kill_agent(bot: str = "b1") -> None:
    """kill -9 of the process inside, as the kernel's memory killer would."""
    [pid] = [
        line.split()[0]
        for line in docker("top", f"{TENANT}-bot_{bot}", "-eo", "pid,args").splitlines()
        if "launcher.py run" in line and "docker-init" not in line
    ]
    subprocess.run(["kill", "-9", pid], check=True)


def test_a_killed_bot_that_is_stopped_leaves_no_order(installation: Installation, exchange: Exchange) -> None:
    held = exchange.btc()
    docker("update", "--restart", "no", f"{TENANT}-bot_b1")
    kill_agent()
    wait_for(
        "the container has ended", lambda: docker("inspect", "-f", "{{.State.Running}}", f"{TENANT}-bot_b1") == "false"
    )
    assert len(exchange.orders()) == 10
    assert lifecycle(installation)["clean"] is False
    survey = installation.playbook(Path("playbooks/show_tenants.yml"))
    assert "unclean" in survey.output

    installation.change(TENANT, edit_bot(state="stopped"))
    converge(installation)
    assert exchange.orders() == []
    assert exchange.btc() == held
    assert lifecycle(installation)["clean"] is True
    assert installation.registry.get(TENANT).outcome["bots"]["b1"]["state"] == "stopped"


def test_a_killed_bot_that_goes_on_counts_what_was_filled_meanwhile(
    installation: Installation, exchange: Exchange
) -> None:
    installation.change(TENANT, edit_bot(state="running"))
    converge(installation)
    settled(exchange, 7, 3)
    docker("update", "--restart", "no", f"{TENANT}-bot_b1")
    kill_agent()
    wait_for(
        "the container has ended", lambda: docker("inspect", "-f", "{{.State.Running}}", f"{TENANT}-bot_b1") == "false"
    )
    exchange.price(32900)  # the level 33000 fills while nobody looks
    assert len(exchange.resting("BUY")) == 6
    held = exchange.btc()
    converge(installation)
    settled(exchange, 6, 4)
    assert exchange.btc() == held
    assert exchange.bad_signatures() == 0


def test_an_unreachable_exchange_makes_the_stop_fail_and_the_bot_unclean(
    installation: Installation, exchange: Exchange
) -> None:
    docker("update", "--restart", "no", f"{TENANT}-bot_b1")
    kill_agent()
    exchange.control.request("POST", "/faults", {"kind": "outage"})
    try:
        installation.change(TENANT, edit_bot(state="stopped"))
        run = installation.converge()
        assert run.code != 0
        assert "bot b1 is unclean and its orders could not be checked" in run.output
        record = installation.registry.get(TENANT)
        assert record.outcome is not None and record.outcome["problem"] == "exchange_unanswered"
        assert record.applied_revision < record.revision
    finally:
        exchange.control.request("DELETE", "/faults")
    converge(installation)
    assert exchange.orders() == []
    assert lifecycle(installation)["clean"] is True


def test_liquidation_sells_the_bots_position_and_stops(installation: Installation, exchange: Exchange) -> None:
    assert exchange.btc() > 0
    installation.change(TENANT, edit_bot(state="liquidated"))
    converge(installation)
    assert exchange.orders() == []
    assert exchange.btc() == 0
    assert Decimal(lifecycle(installation)["position_base"]) == 0
    run = installation.converge()
    assert (run.code, run.changed) == (0, 0), run.output


def test_market_making_of_the_engine_runs_beside_it(installation: Installation, exchange: Exchange) -> None:
    installation.change(TENANT, lambda data: data["bots"].append(market_making_bot(id="mm1")))
    converge(installation)
    wait_for(
        "both quotes rest", lambda: {o["side"] for o in exchange.orders() if o["pair"] == "ETH-USDT"} == {"BUY", "SELL"}
    )
    installation.change(TENANT, lambda data: data["bots"].pop(1))
    converge(installation)
    assert exchange.orders() == []
    assert f"{TENANT}-bot_mm1" not in installation.containers()


def test_an_operators_own_strategy_goes_the_whole_way(installation: Installation, exchange: Exchange) -> None:
    """From the catalogue to the exchange; the changes that its own code refuses, too."""
    name = "range_keeper_v1"
    own = installation.allow_strategy(ROOT / "docs" / "examples" / name, plan="pro")
    config = {"buy_price": 34000, "sell_price": 36000, "order_amount": 340}
    exchange.price(35250)
    installation.change(
        TENANT,
        lambda data: data["bots"].append(
            grid_bot(id="own1", strategy_template=name, strategy_config=config, risk_config={"max_position": 1000})
        ),
    )
    converge(installation)

    def rests_at(price: int) -> None:
        wait_for(f"it buys at {price}", lambda: exchange.resting("BUY") == [(Decimal(price), Decimal("0.01"))])

    rests_at(34000)
    mounted = json.loads(docker("inspect", "-f", "{{json .Mounts}}", f"{TENANT}-bot_own1"))
    assert not any(mount["RW"] for mount in mounted if name in mount["Source"] or name in mount["Destination"])
    before = process("own1")

    def prices(buy: int, sell: int) -> Callable[[dict[str, Any]], None]:
        return lambda data: data["bots"][1]["strategy_config"].update(buy_price=buy, sell_price=sell)

    # Each field is within its range; only the strategy itself knows that they do not fit together.
    installation.change(TENANT, prices(34000, 33000))
    run = installation.converge()
    assert run.code != 0
    outcome = installation.registry.get(TENANT).outcome
    assert (outcome["problem"], outcome["bots"]["own1"]["state"]) == ("engine_refused", "running"), outcome
    assert user_reason(outcome["problem"], outcome["message"]) == (
        "Bot own1 refuses its new settings and goes on with the former ones. The bot's log says: "
        '"buy_price must be below sell_price"'
    )
    rests_at(34000)
    installation.change(TENANT, prices(33990, 36000))
    converge(installation)
    rests_at(33990)
    assert process("own1") == before

    # A version that was withdrawn while a bot uses it: said, and that bot goes on.
    shutil.move(own, installation.folder / "withdrawn")
    installation.change(TENANT, lambda data: data["redis"].update(enabled=not data["redis"]["enabled"]))
    run = installation.converge()
    assert run.code != 0
    outcome = installation.registry.get(TENANT).outcome
    assert outcome["problem"] == "document_refused" and name in outcome["message"], outcome
    rests_at(33990)
    shutil.move(installation.folder / "withdrawn", own)
    installation.change(TENANT, lambda data: data["bots"].pop(1))
    converge(installation)
    assert exchange.orders() == []


def test_a_key_that_the_exchange_refuses_is_told_to_operator_and_user(
    installation: Installation, exchange: Exchange
) -> None:
    good: list[Any] = []

    def use_another_key(data: dict[str, Any]) -> None:
        good.append(data["exchange_connections"])
        data["exchange_connections"] = [installation.connection(TENANT, api_key=secrets.token_hex(32))]
        data["bots"][0]["state"] = "running"

    installation.change(TENANT, use_another_key)
    run = installation.converge("-e", "tenant_stack_health_timeout_seconds=75")
    assert run.code != 0
    outcome = installation.registry.get(TENANT).outcome
    assert (outcome["problem"], outcome["bots"]["b1"]["state"]) == ("exchange_unanswered", "settling"), outcome
    assert "-2015" in outcome["message"]
    words = user_reason(outcome["problem"], outcome["message"])
    assert words.startswith("The exchange refused the API key of bot b1; ")
    assert "Invalid API-key" in words

    def mend(data: dict[str, Any]) -> None:
        data["exchange_connections"] = good[0]
        data["bots"][0]["state"] = "stopped"

    installation.change(TENANT, mend)
    converge(installation)
    assert lifecycle(installation)["clean"] is True


def test_removal_takes_everything_away(installation: Installation, exchange: Exchange) -> None:
    installation.change(TENANT, edit_bot(state="running"))
    converge(installation)
    wait_for("the grid rests again", lambda: len(exchange.orders()) > 0)
    installation.change(TENANT, lambda data: data.update(state="terminated"))
    converge(installation)
    assert exchange.orders() == []
    assert not [name for name in installation.containers() if name.startswith(TENANT)]
    assert not (installation.base_dir / "tenants" / TENANT).exists()
