"""Files of tests run at the same time: each installation has names, addresses and users of its own."""

from __future__ import annotations

import ast
from ipaddress import ip_network
from itertools import combinations
from typing import Any

from tests.factories import ROOT


def installations() -> dict[str, dict[str, Any]]:
    """By place the arguments of every call of `Installation` that are written out there."""
    found = {}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = {
            target.id: node.value.value
            for node in tree.body
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        for node in ast.walk(tree):
            given = {word.arg: word.value for word in node.keywords} if isinstance(node, ast.Call) else {}
            if {"prefix", "pool", "uid_start"} <= set(given):
                arguments = {
                    name: names.get(value.id) if isinstance(value, ast.Name) else ast.literal_eval(value)
                    for name, value in given.items()
                    if name in ("prefix", "pool", "uid_start")
                }
                found[f"{path.relative_to(ROOT)}:{node.lineno}"] = arguments
    return found


def test_no_two_installations_share_anything() -> None:
    found = installations()
    assert len(found) >= 8
    for (place, one), (other_place, other) in combinations(found.items(), 2):
        where = f"{place} and {other_place}"
        assert not one["prefix"].startswith(other["prefix"]) and not other["prefix"].startswith(one["prefix"]), where
        assert not ip_network(one["pool"]).overlaps(ip_network(other["pool"])), where
        assert one["uid_start"] != other["uid_start"], where
