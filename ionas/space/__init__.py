"""What an architecture is: cells, their identity, their spaces."""
