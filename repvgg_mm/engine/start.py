"""What is checked before a training starts, because mmengine would pass over it in silence or with a traceback."""

from urllib.parse import urlsplit

import torch
from mmengine.config import Config

from ..checkpoint import CheckpointError, find_state_dict, recognise
from .loading import Loader, check_state


def check_start(cfg: Config, trust: bool = False) -> None:
    """Refuse a config that asks for mixed precision without a GPU, or starts from a file that does not fit.

    mmengine takes the tensors of ``load_from`` and ``--resume FILE`` by name and only warns of those that don't match:
    weights of timm, mmpretrain or the authors' classifier would leave the model as it was initialised.

    Args:
        cfg: the run's config.
        trust: unpickle the file, which may run code in it.

    Raises:
        ValueError: if AMP is asked for and there is no GPU.
        CheckpointError: if a RepVGG in the file has other names than ours, or a file to resume from has no training
            state; names the mend.
        FileNotFoundError: if there is no such file.
    """
    if (cfg.get("optim_wrapper") or {}).get("type") == "AmpOptimWrapper" and not torch.cuda.is_available():
        raise ValueError("AMP needs a GPU: mmengine's AmpOptimWrapper has no CPU form, in bfloat16 neither")
    path = cfg.get("load_from")
    if path and urlsplit(path).scheme == "":  # mmengine downloads the others
        _check_checkpoint(path, bool(cfg.get("resume")), trust)


def _check_checkpoint(path: str, resume: bool, trust: bool) -> None:
    loaded = Loader(trust, resume=False).load(path)
    layout = recognise(find_state_dict(loaded).state_dict)
    if layout not in (None, "repvgg_mm"):
        flag = "--resume" if resume else "load_from"
        raise CheckpointError(
            f"{path}: its RepVGG is named as in {layout}, which {flag} can't take: set "
            f"model.backbone.init_cfg=dict(type='Pretrained', checkpoint='{path}'), or rename it with "
            "tools/convert.py FILE OUT --to repvgg_mm"
        )
    if not resume:
        return
    if not (isinstance(loaded, dict) and {"meta", "optimizer"} <= set(loaded)):
        raise CheckpointError(f"{path} holds weights, but no state of a training: start from it with load_from={path}")
    if not trust:
        check_state(loaded, path)
