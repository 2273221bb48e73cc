"""Maps of patches: features laid out in two dimensions, so that patches that look alike to the model lie together."""
