"""Clusters of real servers on one Linux machine, each on a host of its own: for benchmarks and for tests.

network   hosts as network namespaces on a bridge; cut, unplugged, slow or losing packets
fleet     server processes on them, members of one cluster, over one S3 server
readers   readers at the servers, and what they saw
"""
