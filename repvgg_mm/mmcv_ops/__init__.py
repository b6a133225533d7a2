"""torchvision's operators in place of mmcv's compiled extension, where that extension is missing; see `finder`."""
