"""The embedding models, their training and their metrics."""
