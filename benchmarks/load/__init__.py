"""The load generator: seeded workloads, targets, open and closed loops, client processes."""
