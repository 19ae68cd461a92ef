"""Random documents of every template: what we accept the engine loads, and trades as the document says."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.hummingfleet.core.plugins.module_utils.catalogue import PairRules
from ansible_collections.hummingfleet.core.plugins.module_utils.derive import order_tag
from ansible_collections.hummingfleet.core.plugins.module_utils.document import (
    DocumentError,
    bot_context,
    parse_document,
)
from ansible_collections.hummingfleet.core.plugins.module_utils.errors import Fault
from ansible_collections.hummingfleet.core.plugins.module_utils.errors import pointer as join
from ansible_collections.hummingfleet.core.plugins.module_utils.fields import Field
from ansible_collections.hummingfleet.core.plugins.module_utils.keystore import engine_keystore
from ansible_collections.hummingfleet.core.plugins.module_utils.rules import Findings
from ansible_collections.hummingfleet.core.plugins.module_utils.strategies import TEMPLATES
from ansible_collections.hummingfleet.core.plugins.module_utils.strategies.base import BotContext, engine_client_config

from tests.engine.first_orders import (
    HALF_SPREAD,
    WEALTH,
    Expected,
    Market,
    expected,
    floor,
    market_price,
    signal_size,
)
from tests.engine.forked import ForkedBots
from tests.engine.harness import BOT_UID, ROOT, Sandbox, engine_image, wait_for
from tests.factories import catalogue, document
from tests.strategies_documents import mutated, sample, valid_bot

pytestmark = pytest.mark.engine

PROBE = Path(__file__).with_name("documents_probe.py")
NAMES = [name for name in TEMPLATES if name in ("grid", "dca", "signal_webhook", "pure_market_making")]
RULES = ("tick", "lot", "min_amount", "min_notional")
COUNT, TRIALS = 200, 20
Case = dict[str, Any]


@cache
def valid_cases(template: str) -> list[Case]:
    return sample(valid_bot(template), COUNT)


@cache
def mutated_cases(template: str) -> list[Case]:
    return sample(mutated(valid_cases(template)), COUNT)


def context_of(case: Mapping[str, Any]) -> BotContext:
    """What the bot is rendered from. Raises DocumentError where it is refused."""
    parsed = parse_document(document(plan=case["plan"], bots=[case["bot"]]), catalogue())
    return bot_context(parsed, parsed.bots[0], catalogue())


def rules_of(context: BotContext) -> PairRules:
    return catalogue().exchanges[context.connector].pairs[context.trading_pair]


def faults_of(case: Mapping[str, Any]) -> tuple[Fault, ...]:
    try:
        context_of(case)
    except DocumentError as error:
        return tuple(error.faults)
    return ()


def ask_engine(template: str, contexts: list[BotContext], raw: list[dict[str, Any]]) -> dict[str, Any]:
    """What the engine makes of the bots' files, and of raw V1 strategy files, all in one container."""
    request = {
        "bots": [
            {
                "client": engine_client_config(context),
                "files": TEMPLATES[template].engine_files(context),
                "rules": {name: str(getattr(rules_of(context), name)) for name in RULES},
            }
            for context in contexts
        ],
        "raw": raw,
    }
    agent, home = ROOT / "agent", "/home/hummingbot"
    command = ["docker", "run", "--rm", "--interactive", "--init", "--network=none", "--cap-drop=ALL"]
    command += ["--env=HOME=/tmp", "--env=PYTHONDONTWRITEBYTECODE=1", "--tmpfs=/tmp", f"--tmpfs={home}/conf"]
    command += [f"--volume={PROBE}:/probe.py:ro"]
    command += [f"--volume={agent}:/opt/hummingfleet/agent:ro", f"--volume={agent}/scripts:{home}/scripts:ro"]
    command += [f"--volume={agent}/controllers:{home}/controllers:ro", engine_image(), "python", "/probe.py"]
    done = subprocess.run(command, input=json.dumps(request), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return dict(json.loads(done.stdout.splitlines()[-1]))


def differs(value: Any, taken: Any) -> bool:
    """Whether the engine took something else than the document says."""
    if isinstance(value, tuple):
        return taken is None or [Decimal(item) for item in taken] != list(value)
    if isinstance(value, bool | str):
        return str(value) != taken
    return taken is None or Decimal(taken) != Decimal(value)


@pytest.mark.parametrize("template", NAMES)
def test_the_engine_loads_every_valid_document_as_it_is_meant(template: str) -> None:
    """Valid ones, and those of the mutated ones that are accepted all the same."""
    cases = valid_cases(template)
    refused = [(case["bot"], faults) for case in cases if (faults := faults_of(case))]
    assert not refused, "by construction they are valid"
    cases = cases + [case for case in mutated_cases(template) if not faults_of(case)]
    contexts = [context_of(case) for case in cases]
    answer = ask_engine(template, contexts, [])
    assert len(answer["bots"]) == len(cases) > COUNT
    for case, context, loaded in zip(cases, contexts, answer["bots"], strict=True):
        assert loaded["complaints"] == [], case
        for name, value in context.config.items():
            assert not differs(value, loaded["values"].get(name)), (name, value, loaded["values"].get(name), case)
        market = loaded["values"].get("trading_pair") or loaded["values"].get("market")
        assert market == context.trading_pair


@pytest.mark.parametrize("template", NAMES)
def test_what_is_refused_is_refused_by_name(template: str) -> None:
    refused = [(case, faults) for case in mutated_cases(template) if (faults := faults_of(case))]
    assert len(refused) > COUNT / 2
    assert {case["kind"] for case, _ in refused} == {"junk", "drop", "unknown", "edge", "swap"}
    declared = {"strategy_config": TEMPLATES[template].fields, "risk_config": TEMPLATES[template].limits}
    for case, faults in refused:
        pointers = {fault.pointer for fault in faults}
        alone = wrong_alone(case, declared[case["part"]])
        for name in alone:
            assert any(pointer.startswith(pointer_to(case["part"], name)) for pointer in pointers), (case, faults)
        # What only does not go with others may be told at one of those.
        fields = [pointer_to(part, name) for part, all_ in declared.items() for f in all_.values() for name in f.names]
        assert alone or any(pointer.startswith(field) for pointer in pointers for field in fields), (case, faults)


def pointer_to(part: str, name: str) -> str:
    """How a fault names a field, the start of it where the name is long."""
    return f"/bots/0/{part}{join(name[:64])}"


def wrong_alone(case: Case, fields: Mapping[str, Field]) -> list[str]:
    """The changed fields that are wrong whatever the others are: missing, unknown, or with a value they never have."""
    by_name = {name: field for field in fields.values() for name in field.names}
    data, wrong = case["bot"][case["part"]], []
    for name in case["names"]:
        findings = Findings()
        if name in data and name in by_name:
            by_name[name].parse(data[name], "", findings)
        if findings.faults or name not in by_name or (name not in data and by_name[name].required):
            wrong.append(name)
    return wrong


def test_whatever_the_engines_own_validators_refuse_is_refused() -> None:
    """The engine starts a V1 strategy with a value it refused as if there were none: we must be as strict."""
    template = "pure_market_making"
    plain = {name: str(value) for name, value in context_of(valid_cases(template)[0]).config.items()}
    cases, raw = [], []
    for case in mutated_cases(template):
        field = TEMPLATES[template].fields.get(case["names"][0])
        value = case["bot"]["strategy_config"].get(case["names"][0])
        # Other spellings of a number are ours to read; the engine gets them as plain numbers.
        if case["part"] != "strategy_config" or field is None or value is None:
            continue
        if isinstance(value, str) and field.type in ("decimal", "integer") and any(c.isdigit() for c in value):
            continue
        cases.append(case)
        raw.append({"template_version": 24, "strategy": template, "exchange": "binance", "market": "BTC-USDT", **plain,
                    case["names"][0]: value})  # fmt: skip
    complaints = ask_engine(template, [], raw)["raw"]
    strict = [(case["names"], said) for case, said in zip(cases, complaints, strict=True) if said]
    assert len(strict) > 20, "the engine refuses many of them"
    lenient = [(case, said) for case, said in zip(cases, complaints, strict=True) if said and not faults_of(case)]
    assert not lenient


# Running ----------------------------------------------------------------------------------------------------------


class Exchange(Sandbox):
    """The sandbox exchange with all pairs of the catalogue, and accounts that have plenty of both assets."""

    def move(self, market: Market) -> None:
        """The pair's price, with the spread that ``Market`` has."""
        spread = str(HALF_SPREAD * 20_000)
        data = {"pair": market.rules.pair, "price": f"{market.price:f}", "spread_bps": spread}
        self.control.request("POST", "/price", data)

    def open(self, name: str, market: Market) -> tuple[str, str]:
        """An account of this name; key and secret."""
        base = floor(WEALTH / market.price, market.rules.lot)
        return self.add_account(name, {market.rules.base: f"{base:f}", market.rules.quote: f"{WEALTH:f}"})


@dataclass(frozen=True)
class Trial:
    """A document that is to be traded: its market, and the orders that have to come first."""

    number: int
    case: Case
    context: BotContext
    market: Market
    orders: list[Expected]


def trials(template: str) -> list[Trial]:
    """Documents that have something to trade."""
    found = []
    for number, case in enumerate(valid_cases(template)):
        context = context_of(case)
        rules = rules_of(context)
        market = Market(market_price(template, context.config, rules), rules)
        orders = expected(template, context.config, context.limits, market)
        if orders:
            found.append(Trial(number, case, context, market, orders))
    assert len(found) >= TRIALS, f"only {len(found)} of {COUNT} documents have something to trade"
    # Simple ones come first: take some of every kind.
    return found[:: len(found) // TRIALS][:TRIALS]


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[ForkedBots]]:
    """Two exchanges with a container each that bots are forked from."""
    pairs = {
        name: {"price": f"{rules.tick * 20_000:f}", "tick": f"{rules.tick:f}", "lot": f"{rules.lot:f}",
               "min_notional": f"{rules.min_notional:f}", "max_quantity": "90000000"}
        for name, rules in catalogue().exchanges["binance"].pairs.items()
    }  # fmt: skip
    made: list[ForkedBots] = []
    try:
        for number in range(2):
            folder = tmp_path_factory.mktemp(f"place{number}")
            (folder / "bots").mkdir()
            made.append(ForkedBots(Exchange(folder / "exchange", pairs), folder / "bots"))
        with ThreadPoolExecutor(len(made)) as pool:
            list(pool.map(lambda place: (place.sandbox.start(), place.start()), made))
        yield made
    finally:
        for place in made:
            place.remove()
            place.sandbox.remove()


def trade(trial: Trial, place: ForkedBots) -> list[str]:
    """Runs a document until its first orders are on the exchange; what is wrong with them."""
    template = trial.case["bot"]["strategy_template"]
    exchange, context, name = place.sandbox, trial.context, f"{template}-{trial.number}".replace("_", "-")
    assert isinstance(exchange, Exchange)
    exchange.move(trial.market)
    write_home(place.folder / name, template, context, *exchange.open(name, trial.market))
    signal = None
    if template == "signal_webhook":
        size = signal_size(context.config, trial.market.rules)
        given = None if "order_amount" in context.config else f"{size:f}"
        signal = {"id": "s1", "action": "buy", "size_quote": given}
    place.run(name, signal=signal)
    try:
        wait_for(f"{name} orders", lambda: len(exchange.orders(name, "all")) >= len(trial.orders))
    except AssertionError as error:
        return [f"{error}; expected {trial.orders}: {trial.case}", place.log(name)[-3000:]]
    finally:
        place.end()
    placed = sorted(exchange.orders(name, "all"), key=lambda order: int(order["order_id"]))[: len(trial.orders)]
    exchange.control.request("DELETE", f"/account/{name}")
    wrong = [order for order in placed if not any(wanted.fits(order) for wanted in trial.orders)]
    wrong += [] if len(trial.orders) > 1 or trial.orders[0].fits(placed[0]) else placed[:1]
    return [f"{name} at {trial.market.price}: {wrong}, expected {trial.orders}: {trial.case}"] if wrong else []


def write_home(folder: Path, template: str, context: BotContext, key: str, secret: str) -> None:
    """The bot's files as the renderer writes them."""
    password, strategy = secrets.token_urlsafe(32), TEMPLATES[template]
    about = {
        "tenant": context.tenant, "bot": context.bot, "connector": context.connector, "connection": "ex1",
        "trading_pair": context.trading_pair, "kind": strategy.kind, "config": f"{context.bot}.yml", "resumes": 0,
        "order_tag": order_tag(context.tenant, context.bot), "agent_version": "1.0.0", "release": "2026.09",
        "risk": json.loads(json.dumps(context.limits, default=str)) if strategy.kind == "v2" else {},
    }  # fmt: skip
    credentials = {"binance_api_key": key, "binance_api_secret": secret}
    files = {
        "config/bot.json": json.dumps(about),
        "config/conf_client.yml": engine_client_config(context),
        **{f"config/{path}": text for path, text in strategy.engine_files(context).items()},
        **{f"config/{path}": text for path, text in
           engine_keystore(password, catalogue().connectors["binance"], credentials).items()},
        "keystore_password": password,
    }  # fmt: skip
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    for path in (folder, *folder.rglob("*")):
        os.chown(path, BOT_UID, BOT_UID)


@pytest.mark.parametrize("template", NAMES)
def test_the_first_orders_are_those_of_the_document(template: str, places: list[ForkedBots]) -> None:
    due = trials(template)
    halves = [due[index :: len(places)] for index in range(len(places))]
    with ThreadPoolExecutor(len(places)) as pool:
        problems = list(pool.map(trade_all, halves, places))
    assert problems == [[] for _ in places]


def trade_all(half: list[Trial], place: ForkedBots) -> list[str]:
    """Problems of the first document that has any."""
    return next((problems for trial in half if (problems := trade(trial, place))), [])
