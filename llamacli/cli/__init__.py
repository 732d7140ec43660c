"""The terminal: the only package that prints, reads standard input or exits."""
