"""How good a model is: perplexity, divergence from its source, activations."""
