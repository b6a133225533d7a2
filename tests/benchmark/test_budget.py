"""The search for the fewest layers in float32."""

import pytest

from repvgg_mm.benchmark.budget import fewest


@pytest.mark.parametrize("total", [1, 2, 3, 8, 23])
def test_the_fewest_that_fit_with_few_questions(total: int) -> None:
    for wanted in range(1, total + 2):
        asked: list[int] = []

        def fits(count: int, wanted: int = wanted, asked: list[int] = asked) -> bool:
            asked.append(count)
            return count >= wanted

        assert fewest(total, fits) == (wanted if wanted < total else None)
        assert len(asked) == len(set(asked)) <= 2 * total.bit_length()
