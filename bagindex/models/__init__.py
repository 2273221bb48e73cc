"""Bag-of-patches models: one's own, those of packages that are installed, timm's; and as networks of image logits."""
