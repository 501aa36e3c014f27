"""What users look at: costs, curves, predictions, and what the layers select."""
