"""What networks achieved: tables of measured accuracies."""
