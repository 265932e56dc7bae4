"""What embeddings are good for: clusters, search, prediction."""
