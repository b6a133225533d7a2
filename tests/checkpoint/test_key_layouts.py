"""The names of other code bases against what their models really have; the models themselves: test_layouts_peers.py."""

import json
import zlib
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import Tensor

from repvgg_mm.checkpoint import CheckpointError
from repvgg_mm.checkpoint.key_layouts import LAYOUTS, PEERS, from_ours, recognise, to_ours
from repvgg_mm.models import ARCHS, CREATORS

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "official_repvgg.json").read_text())["archs"]

# How many keys the classifiers of mmpretrain 1.2.0, timm 1.0.31 and ZCls 0.15.2 have, in training and in deployed form,
# and the CRC-32 of the sorted keys joined by newlines. Keys hang on the number of blocks and SE alone.
FACTS = {
    ("mmpretrain", "A"): ((351, 2361650852), (46, 1281933377)),
    ("mmpretrain", "B"): ((453, 1194647473), (58, 4115513112)),
    ("mmpretrain", "D"): ((985, 2337899491), (290, 3417680235)),
    ("timm", "A"): ((351, 981029876), (46, 850643161)),
    ("timm", "B"): ((453, 1815185800), (58, 2499933181)),
    ("timm", "D"): ((985, 534415223), (290, 11817049)),
    ("zcls", "A"): ((351, 3362243100), (46, 1581726799)),
    ("zcls", "B"): ((453, 1010929619), (58, 1635880322)),
}

# A few of those keys, to see what is meant: ours, mmpretrain, timm, ZCls.
EXAMPLES = """
    stage0.rbr_dense.conv.weight backbone.stem.branch_3x3.conv.weight stem.conv_kxk.conv.weight stage0.0.rbr_dense.conv.weight
    stage0.rbr_1x1.bn.running_mean backbone.stem.branch_1x1.norm.running_mean stem.conv_1x1.bn.running_mean stage0.0.rbr_1x1.bn.running_mean
    stage1.0.rbr_dense.bn.weight backbone.stage_1.0.branch_3x3.norm.weight stages.0.0.conv_kxk.bn.weight stage1.0.0.rbr_dense.bn.weight
    stage2.13.rbr_1x1.conv.weight backbone.stage_2.13.branch_1x1.conv.weight stages.1.13.conv_1x1.conv.weight stage2.13.0.rbr_1x1.conv.weight
    stage3.1.rbr_identity.running_var backbone.stage_3.1.branch_norm.running_var stages.2.1.identity.running_var stage3.1.0.rbr_identity.running_var
    stage4.0.rbr_reparam.bias backbone.stage_4.0.branch_reparam.bias stages.3.0.reparam_conv.bias stage4.0.0.bias
    stage1.0.se.down.weight backbone.stage_1.0.se_layer.conv1.conv.weight stages.0.0.attn.fc1.weight -
    stage1.0.se.up.bias backbone.stage_1.0.se_layer.conv2.conv.bias stages.0.0.attn.fc2.bias -
    linear.weight head.fc.weight head.fc.weight head.fc.weight
"""  # noqa: E501


def weights_of(arch: str, deploy: bool = False) -> dict[str, Tensor]:
    with torch.device("meta"):
        return CREATORS[f"create_RepVGG_{arch}"](deploy=deploy).state_dict()


def named(*keys: str) -> dict[str, Tensor]:
    return {key: torch.tensor(index) for index, key in enumerate(keys)}


def count_and_crc(keys) -> tuple[int, int]:
    return len(keys), zlib.crc32("\n".join(sorted(keys)).encode())


def repvggplus_keys(deploy: bool = False) -> list[str]:
    """The keys of the authors' RepVGGplus-L2pse, spelled out; `test_repvggplus_*` hold them against the golden file."""
    bn = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]
    stages = {"stage1": 8, "stage2": 14, "stage3_first": 12, "stage3_second": 12, "stage4": 1}
    blocks = {"stage0": False}
    for stage, count in stages.items():
        for index in range(count):
            blocks[f"{stage}.blocks.{index}"] = index > 0 or stage == "stage3_second"
    keys = ["linear.weight", "linear.bias"]
    for block, has_identity in blocks.items():
        keys += [f"{block}.post_se.{conv}.{name}" for conv in ("down", "up") for name in ("weight", "bias")]
        if deploy:
            keys += [f"{block}.rbr_reparam.weight", f"{block}.rbr_reparam.bias"]
            continue
        for branch in ("rbr_dense", "rbr_1x1"):
            keys += [f"{block}.{branch}.conv.weight", *(f"{block}.{branch}.bn.{name}" for name in bn)]
        keys += [f"{block}.rbr_identity.{name}" for name in bn] if has_identity else []
    for head in () if deploy else ("stage1_aux", "stage2_aux", "stage3_first_aux"):
        keys += [f"{head}.0.conv.weight", *(f"{head}.0.bn.{name}" for name in bn), f"{head}.3.weight", f"{head}.3.bias"]
    return keys


@pytest.mark.parametrize("deploy", [False, True], ids=["train", "deploy"])
@pytest.mark.parametrize("arch", [name for name in ARCHS if not ARCHS[name].plus])
def test_every_key_of_every_arch_has_the_name_that_the_other_code_has(arch: str, deploy: bool) -> None:
    ours = weights_of(arch, deploy)
    for name in PEERS:
        if (name, arch[0]) not in FACTS:
            continue
        theirs = from_ours(ours, name)
        assert count_and_crc(theirs) == FACTS[name, arch[0]][deploy]
        assert recognise(theirs) == name
        back = from_ours(to_ours(theirs), "authors")
        assert list(back) == list(ours)
        assert all(back[key] is tensor for key, tensor in ours.items())


@pytest.mark.parametrize("arch", [name for name in ARCHS if not ARCHS[name].plus])
def test_the_authors_names_are_ours(arch: str) -> None:
    golden = GOLDEN[f"RepVGG-{arch}"]
    ours = weights_of(arch)
    assert count_and_crc(ours) == (golden["train_keys"], golden["train_keys_crc32"])
    assert recognise(ours) == "authors"
    assert list(to_ours(ours)) == list(from_ours(ours, "authors")) == list(ours)


@pytest.mark.parametrize("deploy", [False, True], ids=["train", "deploy"])
def test_repvggplus_keeps_its_names(deploy: bool) -> None:
    golden, form = GOLDEN["RepVGGplus-L2pse"], "deploy" if deploy else "train"
    weights = named(*repvggplus_keys(deploy))
    assert count_and_crc(weights) == (golden[f"{form}_keys"], golden[f"{form}_keys_crc32"])
    assert recognise(weights) == "authors"
    for renamed in (to_ours(weights), from_ours(weights, "authors")):
        assert list(renamed) == list(weights)
        assert all(renamed[key] is tensor for key, tensor in weights.items())


@pytest.mark.parametrize("name", PEERS)
def test_repvggplus_has_no_counterpart_elsewhere(name: str) -> None:
    with pytest.raises(CheckpointError, match=rf"'stage0\.post_se\.down\.weight' has no counterpart in .* {name}"):
        from_ours(named("stage0.rbr_dense.conv.weight", "stage0.post_se.down.weight"), name)
    with pytest.raises(CheckpointError, match=r"'stage3_first\.blocks\.1\.rbr_identity\.weight' has no counterpart"):
        from_ours(named("stage3_first.blocks.1.rbr_identity.weight"), name)


@pytest.mark.parametrize("example", EXAMPLES.strip().splitlines())
def test_examples(example: str) -> None:
    ours, mmpretrain, timm, zcls = example.split()
    assert list(from_ours(named(ours), "mmpretrain")) == [mmpretrain]
    assert list(from_ours(named(ours), "timm")) == [timm]
    if zcls != "-":
        assert list(from_ours(named(ours), "zcls")) == [f"backbone.{zcls}".replace("backbone.head", "head")]
    if ours.startswith("stage"):
        assert list(to_ours(named(mmpretrain))) == [f"backbone.{ours}"]
        assert list(to_ours(named(timm))) == [ours]
    if ours.startswith("stage") and zcls != "-":
        assert list(to_ours(named(zcls))) == [ours]
        assert list(to_ours(named(f"backbone.{zcls}"))) == [f"backbone.{ours}"]


def test_a_classifier_of_mmpretrain_gets_the_names_of_our_image_classifier() -> None:
    theirs = named("backbone.stem.branch_3x3.conv.weight", "head.fc.weight", "head.fc.bias")
    ours = to_ours(theirs)
    assert list(ours) == ["backbone.stage0.rbr_dense.conv.weight", "linear.weight", "linear.bias"]
    assert recognise(ours) == "repvgg_mm"
    assert list(from_ours(ours, "mmpretrain")) == list(theirs)


def test_a_backbone_alone_is_read_without_prefix() -> None:
    theirs = named("stem.branch_3x3.conv.weight", "stage_4.0.branch_1x1.norm.bias")
    assert list(to_ours(theirs)) == ["stage0.rbr_dense.conv.weight", "stage4.0.rbr_1x1.bn.bias"]


def test_our_two_classifiers_differ_by_the_prefix_alone() -> None:
    authors = named("stage0.rbr_dense.conv.weight", "stage2.1.rbr_identity.bias", "linear.bias")
    ours = from_ours(authors, "repvgg_mm")
    assert list(ours) == ["backbone.stage0.rbr_dense.conv.weight", "backbone.stage2.1.rbr_identity.bias", "linear.bias"]
    assert list(from_ours(ours, "authors")) == list(authors)


def test_the_heads_of_a_segmentor_or_detector_keep_their_names_and_versions() -> None:
    ours = OrderedDict(named("backbone.stage1.0.rbr_dense.conv.weight", "decode_head.conv_seg.weight", "neck.0.bias"))
    ours._metadata = OrderedDict({"": {"version": 1}, "backbone.stage1": {"version": 1}, "neck": {"version": 7}})
    theirs = from_ours(ours, "mmpretrain")
    assert list(theirs) == [
        "backbone.stage_1.0.branch_3x3.conv.weight",
        "decode_head.conv_seg.weight",
        "neck.0.bias",
    ]
    assert theirs._metadata == {"": {"version": 1}, "neck": {"version": 7}}
    assert list(to_ours(theirs)) == list(ours)


@pytest.mark.parametrize(
    ("layout", "block"),
    [
        ("authors", "backbone.stage1.0.rbr_dense.conv.weight"),
        ("repvgg_mm", "backbone.stage1.0.rbr_dense.conv.weight"),
        ("mmpretrain", "backbone.stage_1.0.branch_3x3.conv.weight"),
        ("timm", "backbone.timm_model.stages.0.0.conv_kxk.conv.weight"),
        ("zcls", "backbone.stage1.0.0.rbr_dense.conv.weight"),
    ],
)
def test_a_segmentor_is_renamed_under_its_prefix(layout: str, block: str) -> None:
    ours = named("backbone.stage1.0.rbr_dense.conv.weight", "decode_head.conv_seg.weight", "auxiliary_head.0.bn.bias")
    theirs = from_ours(ours, layout)
    assert list(theirs) == [block, "decode_head.conv_seg.weight", "auxiliary_head.0.bn.bias"]
    assert list(to_ours(theirs)) == list(ours)
    assert recognise(theirs) == ("repvgg_mm" if layout == "authors" else layout)


@pytest.mark.parametrize("wrapper", ["model.", "net.", "module.", "student.body.", "model.module."])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_wrapper_around_everything_goes(wrapper: str, layout: str) -> None:
    theirs = from_ours(named("stage0.rbr_dense.conv.weight", "stage2.1.rbr_identity.bias", "linear.bias"), layout)
    wrapped = OrderedDict((wrapper + key, tensor) for key, tensor in theirs.items())
    wrapped._metadata = OrderedDict({"": {"version": 1}, f"{wrapper}decode_head": {"version": 3}})
    assert recognise(wrapped) == layout
    assert list(from_ours(to_ours(wrapped), layout)) == list(theirs)
    renamed = to_ours(
        {**wrapped, "criterion.weight": torch.ones(1)}
    )  # not around everything: it stays, as does the rest
    assert list(renamed) == [*(wrapper + key for key in to_ours(theirs)), "criterion.weight"]
    with pytest.raises(CheckpointError, match=rf"'{wrapper}foo\.weight' is no key .* the nearest one is '{wrapper}"):
        to_ours({**wrapped, f"{wrapper}foo.weight": torch.ones(1)})


def test_versions_follow_the_wrapper() -> None:
    weights = OrderedDict(named("model.backbone.stem.branch_3x3.conv.weight", "model.decode_head.conv_seg.weight"))
    weights._metadata = OrderedDict({"": 1, "model": 2, "model.backbone.stem": 3, "model.decode_head.conv_seg": 4})
    assert to_ours(weights)._metadata == {"": 1, "decode_head.conv_seg": 4}
    weights["loss.weight"], weights._metadata["loss"] = torch.ones(1), 5
    assert to_ours(weights)._metadata == {"": 1, "loss": 5, "model.decode_head.conv_seg": 4}


def test_timm_inside_of_mmpretrains_wrapper() -> None:
    """`TIMMBackbone` of mmpretrain and mmcls, in a classifier and in a segmentor."""
    theirs = named("backbone.timm_model.stem.conv_kxk.conv.weight", "backbone.timm_model.stages.2.13.identity.bias")
    ours = ["backbone.stage0.rbr_dense.conv.weight", "backbone.stage3.13.rbr_identity.bias"]
    assert recognise(theirs) == "timm" and list(to_ours(theirs)) == ours
    assert list(to_ours({**theirs, "head.fc.bias": torch.ones(1)})) == [*ours, "linear.bias"]
    features_only = {key.replace("stages.2", "stages_2"): tensor for key, tensor in theirs.items()}
    assert recognise(features_only) == "timm" and list(to_ours(features_only)) == ours
    assert recognise(["stages_2.13.identity.bias"]) == "timm"
    assert list(to_ours({**theirs, "decode_head.a": torch.ones(1)})) == [*ours, "decode_head.a"]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("wrong", ["aackbone.", "ackbone.", "b.ckbone.", "backbone.x.", ""])
def test_a_misspelt_prefix_of_one_key_is_no_second_model(layout: str, wrong: str) -> None:
    """Else that key alone would be renamed, and all others left as they are."""
    keys = [f"backbone.{key}" for key in weights_of("A0", deploy=True) if not key.startswith("linear.")]
    theirs = list(from_ours(named(*keys, "decode_head.weight"), layout))
    first = theirs[0]
    spoilt = named(wrong + first.removeprefix("backbone."), *theirs[1:])
    with pytest.raises(CheckpointError, match="is no key of a RepVGG of"):
        to_ours(spoilt)


def test_the_shortest_prefix_is_the_model_where_there_is_a_teacher() -> None:
    block, teacher = "stem.conv_kxk.conv.weight", "teacher.model.backbone.timm_model."
    weights = named(f"model.{block}", f"{teacher}{block}", f"{teacher}stages.0.0.conv_kxk.conv.weight")
    assert list(to_ours(weights)) == ["model.stage0.rbr_dense.conv.weight", *list(weights)[1:]]


def test_squeeze_and_excitation_has_no_counterpart_in_zcls() -> None:
    with pytest.raises(CheckpointError, match=r"'stage1\.0\.se\.up\.bias' has no counterpart in a RepVGG of zcls"):
        from_ours(named("stage1.0.rbr_dense.conv.weight", "stage1.0.se.up.bias"), "zcls")


@pytest.mark.parametrize(
    ("known", "unknown", "nearest"),
    [
        (
            "backbone.stem.branch_3x3.conv.weight",
            "backbone.stage_2.3.branch_3x3.conv.wieght",
            "backbone.stage_2.3.branch_3x3.conv.weight",
        ),
        ("backbone.stem.branch_3x3.conv.weight", "head.fcs.weight", "head.fc.weight"),
        ("backbone.stem.branch_3x3.conv.weight", "backbone.stage_5.0.branch_1x1.norm.bias", "stage_4.0.branch_1x1"),
        ("backbone.stem.branch_3x3.conv.weight", "backbone.ppf.conv1.conv.weight", "conv1.conv.weight"),
        ("stem.conv_kxk.conv.weight", "stages.1.2.conv_kxk.bn.running_vars", "stages.1.2.conv_kxk.bn.running_var"),
        ("stem.conv_kxk.conv.weight", "stages.0.1.identity.conv.weight", "stages.0.1.identity.weight"),
        ("stage0.rbr_dense.conv.weight", "stage1.0.rbr_dence.conv.weight", "stage1.0.rbr_dense.conv.weight"),
        ("backbone.stage0.rbr_dense.conv.weight", "backbone.linear.weight", "linear.weight"),
        ("backbone.stage0.0.weight", "backbone.stage1.0.1.excitation.0.weight", "backbone.stage1.1"),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest_known_one(known: str, unknown: str, nearest: str) -> None:
    with pytest.raises(CheckpointError) as error:
        to_ours(named(known, unknown))
    message = str(error.value)
    assert f"{unknown!r} is no key of a RepVGG of" in message and nearest in message.rpartition(" ")[2]
    assert "\n" not in message and len(message) < 250


def test_an_unknown_key_of_ours_is_named_too() -> None:
    with pytest.raises(
        CheckpointError, match=r"'stage1\.0\.rbr_dense\.conv\.bias' has no .* 'stage1\.0\.rbr_dense\.bn\.bias'"
    ):
        from_ours(named("stage1.0.rbr_dense.conv.bias"), "timm")


def test_what_is_no_repvgg_is_not_recognised() -> None:
    resnet = named("conv1.weight", "layer1.0.conv1.weight", "fc.weight")
    assert recognise(resnet) is None
    assert recognise([]) is None
    for weights in (resnet, {}):
        with pytest.raises(
            CheckpointError, match="no block of a RepVGG as in repvgg_mm, authors, mmpretrain, timm, zcls"
        ):
            to_ours(weights)


def test_an_unknown_layout_lists_the_choices() -> None:
    assert LAYOUTS == ("repvgg_mm", "authors", "mmpretrain", "timm", "zcls")
    with pytest.raises(ValueError, match="'tim' is unknown: choose one of repvgg_mm, authors, mmpretrain, timm, zcls"):
        from_ours(named("stage0.rbr_dense.conv.weight"), "tim")


def test_a_huge_block_number_is_unknown_and_costs_nothing() -> None:
    with pytest.raises(CheckpointError, match="is no key"):
        to_ours(named("stem.conv_kxk.conv.weight", "stages.0.99999999999.conv_kxk.conv.weight"))
