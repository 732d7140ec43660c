"""The terminal: the only package that prints, reads standard input or exits."""

import gc

# A command that is over in a tenth of a second would spend an eighth of it on looking for cycles among its imports.
gc.set_threshold(50_000, 20, 50)
