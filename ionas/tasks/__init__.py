"""Tasks that use outputs and embeddings: clusters, search, prediction."""
