"""Numbers with their spread, and the table of them."""

from repvgg_mm.benchmark import Result, Spread
from repvgg_mm.benchmark.results import results_table


def test_spread_is_median_and_quartiles() -> None:
    assert Spread.of([5.0, 1.0, 3.0, 2.0, 4.0]) == Spread(3.0, 2.0, 4.0)
    assert Spread.of([7.0]) == Spread(7.0, 7.0, 7.0)


def test_table_has_one_line_a_result() -> None:
    result = Result(
        "training step", "A0", "repvgg_mm", Spread(800.0, 790.0, 812.5), "ms", Spread(1.25, 1.2, 1.3), "<= 1.25"
    )
    header, rule, line = results_table([result]).splitlines()
    assert header.split()[0] == "case" and set(rule) == {"-"}
    assert line.split() == "training step A0 repvgg_mm 800.0 790.0-812.5 ms 1.250 1.200-1.300 <= 1.25".split()
