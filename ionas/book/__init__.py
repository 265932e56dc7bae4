"""Parameters, the runner of the notebooks, publications and the HTML book."""
