"""Attribution methods: what of a network's input speaks for a class, by Captum, Zennit and ourselves."""
