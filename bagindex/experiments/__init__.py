"""The paper's experiments, run on an index. One module for each; `catalogue` has them all."""
