"""One short file per model family: data and pure functions."""
