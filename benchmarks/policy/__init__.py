"""Eviction policies at work without a disk: others to compare with, traces, and a cache to replay them."""
