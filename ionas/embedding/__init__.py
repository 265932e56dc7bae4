"""The embedding models, their training and what is measured of them."""
