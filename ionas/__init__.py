"""Graph embedding for neural architecture search with input-output information, step by step."""

__version__ = "0.1.0"
