"""Exporting: the network of a checkpoint as a file for another runtime, run there and compared."""
