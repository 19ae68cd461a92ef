from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.hummingfleet.core.plugins.modules import strategy_config

from tests import factories
from tests.unit.plugins.modules.running import Runner, accepted_options, documented_options, run_ansible


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Runner:
    return Runner(strategy_config.main, capsys)


@pytest.fixture
def arguments(tmp_path: Path) -> dict[str, Any]:
    return {
        "document": document(factories.grid_bot()),
        "bot": "b1",
        "catalogue": str(factories.ROOT / "catalogue"),
        "dest": str(tmp_path / "config"),
    }


def document(*bots: dict[str, Any]) -> dict[str, Any]:
    return factories.document(exchange_connections=[factories.connection()], bots=list(bots))


def written(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_the_files_are_written_as_returned(run: Runner, arguments: dict[str, Any]) -> None:
    result = run(arguments)

    assert result["changed"] is True
    assert sorted(result["config"]["files"]) == ["conf_client.yml", "controllers/b1.yml", "scripts/b1.yml"]
    assert written(Path(arguments["dest"])) == result["config"]["files"]
    assert yaml.safe_load(result["config"]["files"]["controllers/b1.yml"])["grid_count"] == 10
    assert {path.stat().st_mode & 0o7777 for path in Path(arguments["dest"]).rglob("*.yml")} == {0o440}


def test_the_documented_sample_is_what_the_module_returns(run: Runner, arguments: dict[str, Any]) -> None:
    documented = yaml.safe_load(strategy_config.RETURN)["config"]["sample"]

    assert run(arguments)["config"] == documented


def test_a_second_run_changes_nothing(run: Runner, arguments: dict[str, Any]) -> None:
    run(arguments)

    again = run(arguments)

    assert (again["changed"], again["diff"]) == (False, {"before": {}, "after": {}})


def test_check_mode_predicts_the_run_and_writes_nothing(run: Runner, arguments: dict[str, Any]) -> None:
    predicted = run(arguments, check=True)
    assert not Path(arguments["dest"]).exists()

    done = run(arguments)

    assert predicted == done | {"invocation": predicted["invocation"]}


def test_the_diff_shows_the_changed_field(run: Runner, arguments: dict[str, Any]) -> None:
    run(arguments)
    bot = factories.grid_bot()
    bot["strategy_config"]["grid_count"] = 8

    result = run(arguments | {"document": document(bot)})

    assert list(result["diff"]["after"]) == ["controllers/b1.yml"]
    assert "grid_count: 10" in result["diff"]["before"]["controllers/b1.yml"]
    assert "grid_count: 8" in result["diff"]["after"]["controllers/b1.yml"]


def test_files_of_the_strategy_before_are_removed(run: Runner, arguments: dict[str, Any]) -> None:
    run(arguments)

    result = run(arguments | {"document": document(factories.market_making_bot(id="b1"))})

    assert (result["config"]["strategy"], result["config"]["kind"]) == ("pure_market_making", "v1")
    assert sorted(written(Path(arguments["dest"]))) == ["conf_client.yml", "strategies/b1.yml"]


def test_without_a_destination_the_files_are_only_returned(run: Runner, arguments: dict[str, Any]) -> None:
    dest = Path(arguments.pop("dest"))

    result = run(arguments)

    assert result["changed"] is False
    assert "controllers/b1.yml" in result["config"]["files"]
    assert not dest.exists()


def test_a_refused_document_names_field_problem_and_what_is_allowed(run: Runner, arguments: dict[str, Any]) -> None:
    bot = factories.grid_bot()
    bot["strategy_config"]["grid_count"] = 1

    result = run(arguments | {"document": document(bot)})

    assert result["failed"] is True
    assert "/bots/0/strategy_config/grid_count" in result["msg"]
    assert result["faults"][0]["pointer"] == "/bots/0/strategy_config/grid_count"
    assert set(result["faults"][0]) == {"pointer", "problem", "allowed", "rule"}
    assert not Path(arguments["dest"]).exists()


def test_an_unknown_bot_is_refused_with_the_known_ones(run: Runner, arguments: dict[str, Any]) -> None:
    result = run(arguments | {"bot": "b9"})

    assert result["failed"] is True
    assert result["msg"] == "Tenant acme has no such bot; its bots are: b1."


def test_a_hostile_name_is_data(run: Runner, arguments: dict[str, Any]) -> None:
    bot = factories.grid_bot(name="{{ lookup('pipe', 'id') }} $(id) `id` %s {0}")

    result = run(arguments | {"document": document(bot)})

    assert result["changed"] is True
    assert "uid=" not in run.printed


def test_ansible_itself_runs_the_module(tmp_path: Path, arguments: dict[str, Any]) -> None:
    done = run_ansible("strategy_config", arguments, tmp_path, "--diff")

    assert "localhost | CHANGED" in done, done
    assert sorted(written(Path(arguments["dest"]))) == ["conf_client.yml", "controllers/b1.yml", "scripts/b1.yml"]


def test_the_documentation_describes_every_option(monkeypatch: pytest.MonkeyPatch) -> None:
    assert documented_options("strategy_config") == accepted_options(strategy_config, monkeypatch)
