"""The embedding models: arch2vec, and the IO and Accuracy models that extend it."""
