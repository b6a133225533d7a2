"""Looking into a checkpoint before it is exported: what each of its layers would lose in 8 bits."""

from pathlib import Path
from tempfile import TemporaryDirectory

import onnx

from ..checkpoint.rounded import trained_layers
from ..engine.gate import open_model
from ..quantization.sensitivity import LayerLoss, measure_losses
from .complete_graph import write_whole
from .original_images import OriginalImages
from .writers import quiet


def examine(checkpoint: str, images: int, config: str | None = None, trust: bool = False) -> list[LayerLoss]:
    """Measure what each layer of a checkpoint loses in 8 bits.

    Args:
        checkpoint: trained or converted.
        images: how many of the config's training images to look at.
        config: config file; None takes the config inside the checkpoint, as data: nothing in it is run.
        trust: unpickle the checkpoint, which may run code in it.

    Returns:
        One entry a layer, in the order in which they run.

    Raises:
        ValueError: if the checkpoint can't be exported as a complete file, has no training data, or was trained with
            rounded numbers: its layers lose nothing more.
    """
    opened = open_model(checkpoint, config, ["pipeline", "calibration"], trust)
    if trained_layers(opened.weights):
        raise ValueError(
            f"{checkpoint} was trained with rounded numbers: its layers lose nothing more; give the checkpoint that "
            f"this training began with"
        )
    with opened.limits(), TemporaryDirectory() as folder:
        model = opened.build().eval()
        samples = OriginalImages(opened.cfg, "train_dataloader", images)
        _, whole = write_whole(opened.cfg, model, Path(folder))
        with quiet():
            return measure_losses(onnx.load(whole), samples)
