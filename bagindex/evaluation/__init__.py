"""The benchmark that a BagNet makes for attribution methods: what its patches contribute is known exactly."""
