"""What mmseg's and mmdet's test tools do beside the metrics: test-time augmentation, kept predictions, pictures."""

from typing import Any

from mmengine.config import Config

_SCOPES = ("mmseg", "mmdet")


def add_test_extras(cfg: Config, tta: bool = False, out: str | None = None, show_dir: str | None = None) -> None:
    """Ask a config's test for more, in place, with the meaning that the flags have in mmseg's and mmdet's tools.

    Args:
        cfg: config of a segmentor or detector.
        tta: test by ``tta_model`` and ``tta_pipeline``.
        out: mmseg: folder for the predicted masks; mmdet: .pkl file for all predictions.
        show_dir: folder for pictures.

    Raises:
        ValueError: if the config is of another kind, or has no ``tta_model`` or no visualization hook.
    """
    scope = cfg.get("default_scope")
    if scope not in _SCOPES and (tta or out or show_dir):
        raise ValueError(f"default_scope={scope!r}: only mmseg and mmdet augment, save and draw predictions in a test")
    if tta:
        _augment(cfg)
    if out and scope == "mmseg":
        cfg.test_evaluator.update(output_dir=out, keep_results=True)
    elif out:
        if not out.endswith((".pkl", ".pickle")):
            raise ValueError(f"{out}: mmdet writes predictions as a .pkl file")
        metrics = cfg.test_evaluator
        listed = list(metrics) if isinstance(metrics, list | tuple) else [metrics]
        cfg.test_evaluator = [*listed, {"type": "DumpDetResults", "out_file_path": out}]
    if show_dir:
        hook: Any = cfg.get("default_hooks", {}).get("visualization")
        if not hook or not cfg.get("visualizer"):
            raise ValueError("the config has no default_hooks.visualization and visualizer to draw with")
        hook.draw = True
        if scope == "mmseg":
            cfg.visualizer.save_dir = show_dir
        else:
            hook.test_out_dir = show_dir


def _augment(cfg: Config) -> None:
    missing = [name for name in ("tta_model", "tta_pipeline") if not cfg.get(name)]
    if missing:
        raise ValueError(f"the config has no {' and '.join(missing)}: for segmentation add _base_/seg_tta.py")
    cfg.model = {**cfg.tta_model, "module": cfg.model}
    dataset = cfg.test_dataloader.dataset
    while "dataset" in dataset:
        dataset = dataset.dataset
    dataset.pipeline = cfg.tta_pipeline
