"""Random documents of every template: what we accept the engine loads, and trades as the document says."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.hummingfleet.core.plugins.module_utils.document import (
    DocumentError,
    bot_context,
    parse_document,
)
from ansible_collections.hummingfleet.core.plugins.module_utils.errors import Fault
from ansible_collections.hummingfleet.core.plugins.module_utils.errors import pointer as join
from ansible_collections.hummingfleet.core.plugins.module_utils.fields import Field
from ansible_collections.hummingfleet.core.plugins.module_utils.rules import Findings
from ansible_collections.hummingfleet.core.plugins.module_utils.strategies import TEMPLATES
from ansible_collections.hummingfleet.core.plugins.module_utils.strategies.base import BotContext, engine_client_config

from tests.engine.harness import ROOT, engine_image
from tests.factories import catalogue, document
from tests.strategies_documents import mutated, sample, valid_bot

pytestmark = pytest.mark.engine

PROBE = Path(__file__).with_name("documents_probe.py")
NAMES = [name for name in TEMPLATES if name in ("grid", "dca", "signal_webhook", "pure_market_making")]
COUNT = 200
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
            {"client": engine_client_config(context), "files": TEMPLATES[template].engine_files(context)}
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
