"""A thousand nodes on paper, with the cache's own placement and eviction policy: `benchmarks simulate`."""
