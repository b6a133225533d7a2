"""What training starts from: refuse a checkpoint that mmengine would not load, or load in part and in silence."""

from collections.abc import Mapping
from urllib.parse import urlsplit

from mmengine.config import Config

from ..checkpoint import CheckpointError, find_state_dict, load_checkpoint, recognise


def check_start(cfg: Config) -> None:
    """Look into the file that ``load_from`` or ``--resume FILE`` names.

    mmengine takes its tensors by name and only warns of those that don't match: weights of timm, mmpretrain or the
    authors' classifier would leave the model as it was initialised.

    Args:
        cfg: the run's config, with ``load_from`` and ``resume``.

    Raises:
        CheckpointError: if a RepVGG in the file has other names than ours, or a file to resume from has no training
            state; names the mend.
        FileNotFoundError: if there is no such file.
    """
    path = cfg.get("load_from")
    if not path or urlsplit(path).scheme not in ("", "file"):
        return
    loaded = load_checkpoint(path)
    layout = recognise(find_state_dict(loaded).state_dict)
    if layout not in (None, "repvgg_mm"):
        raise CheckpointError(
            f"{path}: its RepVGG is named as in {layout}, which {'--resume' if cfg.get('resume') else 'load_from'} can't "
            f"take: set model.backbone.init_cfg=dict(type='Pretrained', checkpoint='{path}'), "
            "or rename it with tools/convert.py FILE OUT --to repvgg_mm"
        )
    if cfg.get("resume") and not (isinstance(loaded, Mapping) and {"meta", "optimizer"} <= set(loaded)):
        raise CheckpointError(f"{path} holds weights, but no state of a training: start from it with load_from={path}")
