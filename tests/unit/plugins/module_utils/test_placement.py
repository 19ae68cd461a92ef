"""Placement: most free memory among the nodes that fit; a refusal says what each node lacks."""

from __future__ import annotations

import pytest
from ansible_collections.hummingfleet.core.plugins.module_utils.fleet import Node
from ansible_collections.hummingfleet.core.plugins.module_utils.placement import (
    PlacementError,
    check_node,
    choose_node,
)

NODES = {
    node.id: node
    for node in (
        Node("edge_1", 4096, {"region": "tokyo"}),
        Node("edge_2", 8192, {"region": "tokyo", "disk": "ssd"}),
        Node("edge_3", 8192, {"region": "frankfurt"}),
    )
}


@pytest.mark.parametrize(
    ("memory_mib", "labels", "reserved", "expected"),
    [
        (512, {}, {}, "edge_2"),  # a tie goes to the lowest id
        (512, {}, {"edge_2": 1}, "edge_3"),
        (512, {}, {"edge_2": 6000, "edge_3": 6000}, "edge_1"),
        (512, {"region": "tokyo"}, {"edge_2": 4000}, "edge_2"),
        (512, {"region": "tokyo"}, {"edge_2": 4096 + 1}, "edge_1"),
        (512, {"region": "frankfurt"}, {"edge_3": 7680}, "edge_3"),  # it fits exactly
        (512, {"region": "tokyo", "disk": "ssd"}, {"edge_2": 7000}, "edge_2"),
        (512, {}, {"a_node_that_left_the_fleet": 99999}, "edge_2"),
    ],
)
def test_the_node_with_the_most_free_memory_that_fits_is_chosen(
    memory_mib: int, labels: dict[str, str], reserved: dict[str, int], expected: str
) -> None:
    assert choose_node(memory_mib, labels, NODES, reserved) == expected


def test_the_order_of_the_nodes_does_not_matter() -> None:
    assert choose_node(1, {}, dict(reversed(NODES.items())), {}) == "edge_2"


def test_no_room_is_a_refusal_that_says_what_each_node_lacks() -> None:
    with pytest.raises(PlacementError) as caught:
        choose_node(2048, {"region": "tokyo"}, NODES, {"edge_1": 3000, "edge_2": 9000})
    text = str(caught.value)
    assert "needs 2048 MiB and the labels region=tokyo" in text
    assert "edge_1 has 1096 of 4096 MiB free" in text
    assert "edge_2 has 0 of 8192 MiB free" in text
    assert "edge_3 has region=frankfurt instead of region=tokyo" in text


def test_a_label_that_no_node_has_is_named() -> None:
    with pytest.raises(PlacementError, match="edge_1 has no label gpu instead of gpu=yes"):
        choose_node(1, {"gpu": "yes"}, NODES, {})


def test_a_given_node_is_checked() -> None:
    check_node("edge_1", 4096, {"region": "tokyo"}, NODES, {})
    with pytest.raises(PlacementError, match=r"node edge_1 has no room.*4095 of 4096 MiB free"):
        check_node("edge_1", 4096, {}, NODES, {"edge_1": 1})
    with pytest.raises(PlacementError, match="no node 'edge_9' in the fleet file; there are: edge_1, edge_2, edge_3"):
        check_node("edge_9", 1, {}, NODES, {})
