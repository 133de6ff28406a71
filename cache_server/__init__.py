"""The node daemon: fronts origins, keeps shards on the node's disks, hands them to clients."""
