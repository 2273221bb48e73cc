"""Attribution methods, and the benchmark that a BagNet makes for them: its patches' contributions are known exactly."""
