"""Load benchmarks: each row beside the limit of the machine, measured in the same run."""
