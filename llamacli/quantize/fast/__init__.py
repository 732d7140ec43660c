"""Vectorised searches for the quantized types."""
