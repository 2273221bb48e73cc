"""The HTTP service: questions about one or several opened indexes, answered as JSON, Arrow and pictures."""
