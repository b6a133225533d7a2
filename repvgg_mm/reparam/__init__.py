"""The algebra of RepVGG: three branches in training, one 3x3 convolution in deployment. Imports torch only."""

from .block import RepVGGBlock, SEBlock
from .conv_bn_block import ConvBNBlock
from .convert import convert_state_dict, repvgg_model_convert, whole_model_convert
from .qa_block import QARepVGGBlock

__all__ = [
    "ConvBNBlock",
    "QARepVGGBlock",
    "RepVGGBlock",
    "SEBlock",
    "convert_state_dict",
    "repvgg_model_convert",
    "whole_model_convert",
]
