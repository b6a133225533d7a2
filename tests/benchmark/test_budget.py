"""The search for the fewest layers in float32."""

import pytest
from onnx import helper
from small_graphs import numbers, small_graph

from repvgg_mm.benchmark.budget import fewest, is_within, worst_first
from repvgg_mm.quantization.scheme import Scheme


@pytest.mark.parametrize("total", [0, 1, 2, 3, 8, 23])
def test_the_fewest_that_fit_with_few_questions(total: int) -> None:
    for wanted in range(1, total + 2):
        asked: list[int] = []

        def fits(count: int, wanted: int = wanted, asked: list[int] = asked) -> bool:
            asked.append(count)
            return count >= wanted

        assert fewest(total, fits) == (wanted if wanted < total else None)
        assert len(asked) == len(set(asked)) <= 2 * total.bit_length()


def test_what_is_lost_to_the_point_is_within_the_budget() -> None:
    """COCO's mAP has three decimals, whose differences float makes a little larger or smaller."""
    for thousandths in range(5, 1000):
        wanted, got = thousandths / 1000, (thousandths - 5) / 1000
        assert is_within(got, wanted, "coco/bbox_mAP", 0.5), wanted
        assert not is_within(got, wanted, "coco/bbox_mAP", 0.499), wanted
    assert is_within(80.0, 70.0, "accuracy/top1", 0)


def test_the_order_is_that_of_the_grids_and_of_layers_that_can_be_rounded() -> None:
    """A channel a thousand times as large as all others drowns them only where they share its grid."""
    nodes = [
        helper.make_node("Conv", ["x", "a.weight"], ["a"], "a"),
        helper.make_node("Relu", ["a"], ["ra"], "ra"),
        helper.make_node("Conv", ["ra", "b.weight"], ["b"], "b"),
    ]
    first, second = numbers(6, 3, 1, 1), numbers(6, 6, 1, 1, seed=1)
    first[0] = first[0] * 1000
    second[:, 0] = second[:, 0] / 1000
    model = small_graph(nodes, {"a.weight": first, "b.weight": second}, [1, 3, 10, 12])
    samples = [numbers(1, 3, 10, 12, seed=seed) for seed in range(4)]
    assert worst_first(model, samples, ()) == ["b", "a"]
    assert worst_first(model, samples, (), Scheme(by_channel=False)) == ["a", "b"]
    assert worst_first(model, samples, ("b",)) == ["a"]
