"""A loss or weights that are not finite end a training in time."""

from pathlib import Path

import pytest
import torch
from command_lines import losses
from training_runs import ITERATIONS, at, finish, start_processes, train, write_config

from repvgg_mm.engine.finite import NonFiniteError, _total, check_finite


def weights(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=False)["state_dict"]


def test_a_loss_that_is_nan_stops_before_weights_and_files(digits: Path, tmp_path: Path) -> None:
    done = train(write_config(tmp_path, digits, ITERATIONS, at(4, "poison_data")), tmp_path / "work")
    assert done.code == 1
    assert done.err.count("\n") == 1 and "iteration 4: a loss is not finite: loss_ce=nan" in done.err
    assert "default_hooks.finite_loss.skip=True" in done.err
    assert f"last good checkpoint: {tmp_path}/work/iter_2.pth" in done.err
    assert [path.name for path in (tmp_path / "work").glob("*.pth")] == ["iter_2.pth"]  # max_keep_ckpts=1
    assert all(tensor.isfinite().all() for tensor in weights(tmp_path / "work/iter_2.pth").values())


def test_skip_leaves_the_iteration_out_as_if_it_had_not_been(digits: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path, digits, ITERATIONS, at(4, "poison_data"))
    options = ["default_hooks.finite_loss.skip=True", "default_hooks.checkpoint.interval=1"]
    done = train(config, tmp_path / "work", options=[*options, "default_hooks.checkpoint.max_keep_ckpts=-1"])
    assert done.code == 0, done.err
    assert "left out: iteration 4: a loss is not finite: loss_ce=nan" in done.out
    before, after = (weights(tmp_path / f"work/iter_{number}.pth") for number in (3, 4))
    torch.testing.assert_close(after, before, rtol=0, atol=0)  # batch statistics included
    last = weights(tmp_path / "work/iter_6.pth")
    assert all(tensor.isfinite().all() for tensor in last.values())
    assert any(not torch.equal(last[name], after[name]) for name in after)


@pytest.mark.parametrize("skip", [False, True])
def test_weights_that_are_nan_are_neither_saved_nor_skipped_over(digits: Path, tmp_path: Path, skip: bool) -> None:
    """A finite loss with gradients that are not leaves NaN behind the step, right where the hook saves."""
    config = write_config(tmp_path, digits, ITERATIONS, at(3 if skip else 4, "poison_weights"))
    done = train(config, tmp_path / "work", options=[f"default_hooks.finite_loss.skip={skip}"])
    assert done.code == 1
    assert "iteration 4: weights are not finite (backbone.stage0.rbr_dense.conv.weight)" in done.err
    assert [path.name for path in (tmp_path / "work").glob("*.pth")] == ["iter_2.pth"]


def test_all_processes_stop_where_one_has_a_bad_loss(digits: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path, digits, ITERATIONS, at(3, "poison_data", rank=1))
    ends = finish(start_processes(config, tmp_path / "work", digits))
    assert [end.code for end in ends] == [1, 1], ends
    assert "iteration 3: a loss is not finite: process 1: loss_ce=nan" in ends[0].err and "Traceback" not in ends[0].err
    assert sorted(losses(tmp_path / "work")) == [1, 2]


def test_running_statistics_count_as_weights() -> None:
    bn = torch.nn.BatchNorm2d(3)
    bn.register_buffer("mask", torch.tensor([0.0, -torch.inf]))
    check_finite(bn, 7)
    bn.running_var[1] = torch.nan
    with pytest.raises(NonFiniteError, match=r"iteration 7: .*running_var"):
        check_finite(bn, 7)


def test_a_loss_that_is_a_list_counts_as_mmengine_counts_it() -> None:
    """As detectors of mmdet return them, one for each level."""
    levels = [torch.tensor([1.0, 3.0]), torch.tensor(0.5)]
    torch.testing.assert_close(_total(levels), torch.tensor(2.5))
    assert _total([*levels, torch.tensor(torch.nan)]).isnan() and _total([1.0]) is None
