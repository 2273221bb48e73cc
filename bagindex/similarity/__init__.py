"""Similar patches: nearest neighbours among the features."""
