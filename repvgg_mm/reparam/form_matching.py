"""Loading weights into a block whatever form they are in, so that no block is left unfilled.

``load_state_dict`` of torch, mmengine and all that builds on them calls ``_load_from_state_dict`` of every module; with
``strict=False`` what does not match is a line in a log at most. So the block itself looks at names and shapes first:
weights in training form are fused into a deployed block, weights in deployed form switch a block in training form.
"""

import gc
import re
from collections.abc import Iterable, Mapping, MutableMapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from .block_tensors import check_finite, read_blocks

if TYPE_CHECKING:
    from .block import RepVGGBlock

_COUNTER = "num_batches_tracked"  # old files lack it, and torch knows what to do
_OUR_NAMES = re.compile(
    r"(?:rbr_(?:dense|reparam)\.conv|rbr_1x1(?:\.conv)?)\.weight|rbr_reparam\.(?:weight|bias)"
    r"|(?:rbr_(?:(?:dense|1x1|reparam)\.bn|identity)|bn)\.(?:weight|bias|running_mean|running_var)"
)
_OF_BRANCHES = ("rbr_", "bn.")  # the second in QARepVGG blocks


def match_form(block: "RepVGGBlock", state_dict: MutableMapping[str, Tensor], prefix: str) -> None:
    """Bring a block and the weights that it is about to load into one form.

    Args:
        block: switched to its deployed form, in place, if the weights are in that form.
        state_dict: names and tensors; those of the block are fused, in place, if the block is deployed.
        prefix: the name of the block in it, with a dot at the end; empty for the block itself.

    Raises:
        ValueError: if the block's weights are of both forms, not all there, of other shapes, or not finite once fused;
            if they are deployed, and the block is in training form, but an optimizer or DistributedDataParallel holds
            its parameters, or it computes something that no kernel can hold.
    """
    own = {name: tensor.shape for name, tensor in (*block.named_parameters(), *block.named_buffers())}
    wrapped = any(_is_of_branches(name) and not _OUR_NAMES.fullmatch(name) for name in own)

    def is_ours(name: str) -> bool:  # where branches are wrapped, by adapters or pruning, the rest is for the caller
        return _is_of_branches(name) and (not wrapped or _OUR_NAMES.fullmatch(name) is not None)

    own = {name: shape for name, shape in own.items() if is_ours(name)}
    given = {name: state_dict[prefix + name] for name in _names(state_dict, prefix) if is_ours(name)}
    if not given or not own:  # a file without this block; that, too, is for the caller to judge
        return
    where = prefix.removesuffix(".") or "the RepVGG block"
    deployed = [name for name in given if name in ("rbr_reparam.weight", "rbr_reparam.bias")]
    if deployed and len(deployed) < len(given):
        raise ValueError(f"{where}: the weights hold both forms, rbr_reparam and the branches")
    if deployed and not block.deployed:
        reason = block.why_not_deployable()
        if reason is not None:
            raise ValueError(f"{where}: the weights are in deployed form (rbr_reparam), but {reason}")
        weight = block.convs()[0].weight
        _expect(where, given, {"rbr_reparam.weight": weight.shape, "rbr_reparam.bias": weight.shape[:1]})
        _refuse_if_held(block, where)
        block.become_deployed(torch.empty_like(weight), weight.new_empty(len(weight)))
        return
    if block.deployed and not deployed:
        _expect(where, given, _branch_shapes(block, where))
        for name in [name for name in _names(state_dict, prefix) if name.startswith(_OF_BRANCHES)]:
            del state_dict[prefix + name]
        given = _fuse(block, given, prefix)
        state_dict.update({prefix + name: tensor for name, tensor in given.items()})
    _expect(where, given, own)


def _names(state_dict: Mapping[str, Tensor], prefix: str) -> list[str]:
    return [key.removeprefix(prefix) for key in state_dict if key.startswith(prefix)]


def _is_of_branches(name: str) -> bool:
    return name.startswith(_OF_BRANCHES) and not name.endswith(_COUNTER)


def _branch_shapes(block: "RepVGGBlock", where: str) -> dict[str, torch.Size]:
    """Return the names and shapes that a deployed block has in training form."""
    assert block.rbr_reparam is not None
    if block.norm is None:
        raise ValueError(
            f"{where}: its batch normalisations had different settings, which a deployed block does not keep: convert "
            "the weights first"
        )
    dense = block.rbr_reparam.weight.shape
    kernels, norms = block.training_names()
    shapes = dict(zip(kernels, (dense, torch.Size((*dense[:2], 1, 1))), strict=False))
    for bn in norms:
        shapes.update({f"{bn}.{name}": dense[:1] for name in block.norm.tensors})
    return shapes


def _expect(where: str, given: Mapping[str, Tensor], wanted: Mapping[str, torch.Size]) -> None:
    """Refuse weights that do not fill the block, or that it has no place for."""
    shapes = {name: torch.Size(getattr(tensor, "shape", ())) for name, tensor in given.items()}
    misshaped = [
        f"{n} {tuple(shapes[n])}, not {tuple(wanted[n])}" for n in wanted if shapes.get(n, wanted[n]) != wanted[n]
    ]
    for problem, found in (
        ("the weights lack", [name for name in wanted if name not in given]),
        ("the weights hold, but the block has no", [name for name in given if name not in wanted]),
        ("wrong shape of", misshaped),
    ):
        if found:
            raise ValueError(f"{where}: {problem} {', '.join(found)}; a block is filled as a whole or not at all")


def _fuse(block: "RepVGGBlock", given: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Fuse as if the tensors had been loaded first: in the precision of the block where that is higher."""
    assert block.norm is not None and block.rbr_reparam is not None
    own = block.rbr_reparam.weight.dtype
    halves = (torch.float16, torch.bfloat16)
    tensors = {
        prefix + name: tensor.to(torch.promote_types(tensor.dtype, own)) if tensor.dtype in halves else tensor
        for name, tensor in given.items()
    }
    with torch.no_grad():
        kernel, bias = read_blocks(tensors, block.norm.eps, {prefix: block.has_identity})[prefix].fuse()
    fused = {"rbr_reparam.weight": kernel, "rbr_reparam.bias": bias}
    for name, tensor in fused.items():
        check_finite(prefix + name, tensor)
    return fused


def _refuse_if_held(block: "RepVGGBlock", where: str) -> None:
    holder = _holder(block.parameters())
    if holder is not None:
        raise ValueError(
            f"{where}: the weights are in deployed form (rbr_reparam), the block in training form, and a {holder} "
            "holds its parameters already: it would go on with branches that are no longer there. Build the model "
            "with deploy=True to train it as a plain network, or load weights in training form"
        )


def _holder(parameters: Iterable[nn.Parameter]) -> str | None:
    """Name the class of a living optimizer or DistributedDataParallel that holds one of the parameters.

    Nothing leads from a parameter to them, so all living objects are looked through: about 20 ms, where forms differ.
    """
    wanted = {id(parameter) for parameter in parameters}
    kinds = _with_subclasses(Optimizer) | _with_subclasses(DistributedDataParallel)
    for holder in [candidate for candidate in gc.get_objects() if type(candidate) in kinds]:
        if isinstance(holder, Optimizer):
            held = [parameter for group in holder.param_groups for parameter in group["params"]]
        else:
            held = list(holder.parameters())
        if any(id(parameter) in wanted for parameter in held):
            return type(holder).__name__
    return None


def _with_subclasses(kind: type) -> set[type]:
    children: list[type] = kind.__subclasses__()
    return {kind}.union(*map(_with_subclasses, children))
