"""Inference: predictors, and running them over image files."""
