"""Visual words: clusters of features, and what each says."""
