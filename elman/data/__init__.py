"""Files to tensors."""
