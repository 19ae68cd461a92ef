"""An operator's own controller in the catalogue: what its description may say, and what becomes of it."""

from __future__ import annotations

import copy
import dataclasses
import shutil
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.hummingfleet.core.plugins.module_utils.catalogue import (
    Catalogue,
    CatalogueError,
    load_catalogue,
)
from ansible_collections.hummingfleet.core.plugins.module_utils.credentials import encrypt_connection
from ansible_collections.hummingfleet.core.plugins.module_utils.document import (
    DocumentError,
    bot_context,
    json_schema,
    parse_document,
    read_document,
)
from ansible_collections.hummingfleet.core.plugins.module_utils.fleet import parse_fleet
from ansible_collections.hummingfleet.core.plugins.module_utils.keyring import generate_keyring
from ansible_collections.hummingfleet.core.plugins.module_utils.render import Renderer, render_stack
from ansible_collections.hummingfleet.core.plugins.module_utils.scripts import script
from ansible_collections.hummingfleet.core.plugins.module_utils.strategies import TEMPLATES, templates

from tests import factories

EXAMPLE = factories.ROOT / "docs/examples/range_keeper_v1"
NAME = EXAMPLE.name
CODE = (EXAMPLE / "controller.py").read_text()
CONFIG = {"buy_price": 30000, "sell_price": 31000, "order_amount": 100}


@pytest.fixture
def description() -> dict[str, Any]:
    return dict(yaml.safe_load((EXAMPLE / "description.yml").read_text()))


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    """The shipped catalogue with the example in it."""
    folder = Path(shutil.copytree(factories.ROOT / "catalogue", tmp_path / "catalogue"))
    shutil.copytree(EXAMPLE, folder / "strategies" / NAME)
    return load_catalogue(folder)


def document(**fields: Any) -> dict[str, Any]:
    """A tenant with one bot of the example."""
    bot = {**factories.grid_bot(), "strategy_template": NAME, "strategy_config": CONFIG, "risk_config": {}, **fields}
    return factories.document(plan="business", bots=[bot])


def test_the_catalogue_offers_it_beside_our_own(catalogue: Catalogue) -> None:
    assert list(templates(catalogue)) == [*TEMPLATES, NAME]
    assert list(templates(factories.catalogue())) == [*TEMPLATES]
    assert NAME in json_schema(catalogue)["$defs"]["Bot"]["properties"]["strategy_template"]["enum"]


def test_a_document_may_name_it(catalogue: Catalogue) -> None:
    parsed = parse_document(document(), catalogue)
    bot = parsed.bots[0]
    assert bot.strategy_config["buy_price"] == Decimal(30000)
    assert read_document(parsed.plain(), catalogue) == parsed
    files = templates(catalogue)[NAME].engine_files(bot_context(parsed, bot, catalogue))
    assert files[f"code/controllers/generic/{NAME}.py"] == CODE
    controller = yaml.safe_load(files["controllers/b1.yml"])
    assert controller["controller_name"] == NAME
    assert (controller["total_amount_quote"], controller["sell_price"]) == (100, 31000)


@pytest.mark.parametrize(
    ("fields", "rule", "pointer"),
    [
        ({"strategy_config": {**CONFIG, "buy_price": 0}}, "range", "/bots/0/strategy_config/buy_price"),
        ({"strategy_config": {"buy_price": 1, "sell_price": 2}}, "missing", "/bots/0/strategy_config/order_amount"),
        ({"risk_config": {"max_position": 99}}, "order.max_position", "/bots/0/strategy_config/order_amount"),
    ],
)
def test_its_description_validates(catalogue: Catalogue, fields: dict[str, Any], rule: str, pointer: str) -> None:
    with pytest.raises(DocumentError) as caught:
        parse_document(document(**fields), catalogue)
    assert [(fault.rule, fault.pointer) for fault in caught.value.faults] == [(rule, pointer)]


def test_plans_decide_who_gets_it_and_a_lost_one_is_named(catalogue: Catalogue) -> None:
    with pytest.raises(DocumentError, match="plan starter does not include range_keeper_v1"):
        parse_document({**document(), "plan": "starter"}, catalogue)
    parsed = parse_document(document(), catalogue)
    with pytest.raises(DocumentError, match="there is no strategy template 'range_keeper_v1'"):
        read_document(parsed.plain(), dataclasses.replace(catalogue, scripts={}))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"title": None, "licence": "x"}, "has the keys"),
        ({"fields": {"a": 1}}, "list of mappings"),
        ({"fields": [{"name": "a b"}]}, "'a b' must be a name"),
        ({"fields": [{"name": "trading_pair"}]}, "taken by the engine"),
        ({"fields": [{"name": "a", "type": "decimal"}]}, "field a: unit is missing"),
        ({"fields": [{"name": "a", "type": "float", "unit": "", "text": "t", "example": 1}]}, "type must be one of"),
        ({"fields": [{"name": "a", "type": "decimal", "unit": "", "text": "t", "example": 1, "max": 2}]}, "no max is"),
        (
            {"fields": [{"name": "a", "type": "integer", "unit": "", "text": "t", "example": 9, "maximum": 5}]},
            "example must be a whole number at most 5",
        ),
        ({"capital": "nothing"}, "capital: 'nothing'"),
    ],
)
def test_a_wrong_description_is_refused_with_the_reason(
    description: dict[str, Any], change: dict[str, Any], problem: str
) -> None:
    data = {**copy.deepcopy(description), **change}
    with pytest.raises(ValueError, match=problem):
        script(NAME, data, CODE)


@pytest.mark.parametrize(
    ("name", "code", "problem"),
    [
        ("range_keeper", CODE, "must be named <name>_v<version>"),
        (NAME, "class A:\n  def", "line 2"),
        (NAME, "class A: pass\n", "configuration class and a controller class"),
        (NAME, CODE + "#" * 300_000, "larger than 256 KiB"),
    ],
)
def test_wrong_code_is_refused_with_the_reason(description: dict[str, Any], name: str, code: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        script(name, description, code)


def test_every_folder_of_its_bot_is_made_after_the_one_above(catalogue: Catalogue, tmp_path: Path) -> None:
    keyring = generate_keyring(tmp_path / "keyring.yml")
    node = {"ansible_connection": "local", "memory_mib": 8192}
    fleet = {"plugin": "hummingfleet.core.tenants", "nodes": {"local": node}}
    renderer = Renderer(parse_fleet(fleet, tmp_path / "fleet.tenants.yml"), catalogue, keyring, "build")
    connection = encrypt_connection(
        {"api_key": "key", "api_secret": "secret"}, connection_id="ex1", exchange="binance", tenant="acme",
        keyring=keyring, key_id="k1", connectors=catalogue.connectors,
    )  # fmt: skip
    data = factories.stored_document(bots=document()["bots"], exchange_connections=[connection], plan="business")
    stack, secrets = render_stack(parse_document(data, catalogue).plain(), renderer, revision=1, fence=1)
    made = [entry["path"] for entry in stack["directories"]]
    paths = [file["path"] for file in stack["files"]]
    assert f"bots/b1/config/code/controllers/generic/{NAME}.py" in paths
    for number, path in enumerate(made):
        assert str(Path(path).parent) in {".", *made[:number]}, path
    for path in (*paths, *secrets):
        assert str(Path(path).parent) in {".", *made}, path


def test_what_is_not_a_strategys_folder_is_named(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(factories.ROOT / "catalogue", tmp_path / "catalogue"))
    shutil.copytree(EXAMPLE, folder / "strategies")
    with pytest.raises(CatalogueError, match="has to be in a folder of its strategy's name"):
        load_catalogue(folder)
    shutil.rmtree(folder / "strategies")
    (folder / "strategies" / NAME).mkdir(parents=True)
    with pytest.raises(CatalogueError, match=r"range_keeper_v1/description\.yml cannot be read"):
        load_catalogue(folder)


def test_the_file_at_fault_is_named(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(factories.ROOT / "catalogue", tmp_path / "catalogue"))
    shutil.copytree(EXAMPLE, folder / "strategies" / NAME)
    (folder / "strategies" / NAME / "controller.py").unlink()
    with pytest.raises(CatalogueError, match=r"controller\.py cannot be read"):
        load_catalogue(folder)


def test_a_change_of_the_code_or_of_a_range_shows(description: dict[str, Any]) -> None:
    first = script(NAME, description, CODE)
    wider = copy.deepcopy(description)
    wider["fields"][0]["maximum"] = 5
    wider["fields"][0]["example"] = 5
    assert len({first.digest, script(NAME, description, CODE + "\n").digest, script(NAME, wider, CODE).digest}) == 3
