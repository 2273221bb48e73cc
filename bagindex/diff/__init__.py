"""What is different between two indexes, or between two models of one: `Index.diff`."""
