"""The study: parameters of the notebooks, running them, where results come from, the book."""
