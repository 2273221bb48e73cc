"""Bag-of-patches models that are no BagNets: one's own, those of packages that are installed, and timm's."""
