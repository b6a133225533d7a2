"""Deployment: converting checkpoints and proving that nothing changed."""
