"""Bytes on disk: knows nothing of models."""
