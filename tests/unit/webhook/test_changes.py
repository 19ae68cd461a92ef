"""What an operator asks for becomes the next document."""

import pytest

from tests import factories
from webhook import changes


def test_bot_states() -> None:
    document = factories.grid_document()
    assert changes.set_bot_state("b1", "stopped")(document)["bots"][0]["state"] == "stopped"
    assert changes.set_bot_state("b1", "liquidated")(document)["bots"][0]["state"] == "liquidated"


def test_a_restart_counts_up_and_starts_a_stopped_bot() -> None:
    document = factories.grid_document(bots=[factories.grid_bot(state="stopped", restarts=2)])
    bot = changes.restart_bot("b1")(document)["bots"][0]
    assert (bot["state"], bot["restarts"]) == ("running", 3)


def test_a_resume_counts_up() -> None:
    bot = changes.resume_bot("b1")(factories.grid_document())["bots"][0]
    assert bot["resumes"] == 1


def test_only_the_named_bot_changes() -> None:
    document = factories.grid_document(bots=[factories.grid_bot(), factories.grid_bot(id="b2")])
    bots = changes.set_bot_state("b2", "stopped")(document)["bots"]
    assert [bot.get("state", "running") for bot in bots] == ["running", "stopped"]


def test_a_bot_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(changes.UnknownBotError, match="acme has no bot 'zz'; it has: b1"):
        changes.restart_bot("zz")(factories.grid_document())
