"""Fewer bits for .onnx files: which layers can take them, the ranges of their numbers, 8 bits and float16."""
