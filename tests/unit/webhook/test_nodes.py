"""Commands for nodes are lists of words; over SSH they are quoted for the shell there."""

from __future__ import annotations

import shlex

import pytest

from webhook.nodes import NodeAccess, NodeAccessError, log_command

REMOTE = {"ansible_host": "192.0.2.11", "ansible_user": "root", "ansible_port": 2222}


def test_a_local_nodes_log_comes_from_docker() -> None:
    access = NodeAccess.from_variables("local", {"ansible_connection": "local"})
    assert log_command(access, "acme", "b1", follow=False, lines=5) == ["docker", "logs", "--tail", "5", "acme-bot_b1"]


def test_a_remote_nodes_log_comes_over_ssh_with_ansibles_settings() -> None:
    command = log_command(NodeAccess.from_variables("edge_1", REMOTE), "acme", "b1", follow=True, lines=5)
    assert command[0] == "ssh"
    assert command[command.index("-p") + 1] == "2222"
    assert command[command.index("-l") + 1] == "root"
    assert command[-3:-1] == ["--", "192.0.2.11"]
    assert command[-1] == "docker logs --tail 5 --follow acme-bot_b1"


@pytest.mark.parametrize("bot", ["$(id)", "b1; id", "a b", "`id`", "'"])
def test_words_stay_words_on_the_other_side(bot: str) -> None:
    command = log_command(NodeAccess.from_variables("edge_1", REMOTE), "acme", bot, follow=False, lines=1)
    assert shlex.split(command[-1])[-1] == f"acme-bot_{bot}"


def test_become_asks_sudo() -> None:
    access = NodeAccess.from_variables("edge_1", {**REMOTE, "ansible_become": True})
    assert access.command(["docker", "ps"])[-1] == "sudo -n docker ps"


def test_an_address_that_is_an_option_is_refused() -> None:
    with pytest.raises(NodeAccessError, match="edge_1"):
        NodeAccess.from_variables("edge_1", {"ansible_host": "-oProxyCommand=id"})
