"""Run language models on one's own computer: convert, quantize, chat, pipe and measure."""

__version__ = "0.1.0"
