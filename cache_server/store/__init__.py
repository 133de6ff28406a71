"""The node's disks: partial and sealed shard files, and what is known of them."""
