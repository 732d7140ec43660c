"""Checkpoint, family and recipe make a plan; the plan makes a GGUF file."""
