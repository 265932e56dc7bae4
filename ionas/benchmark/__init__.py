"""Tables of the measured accuracies of networks."""
