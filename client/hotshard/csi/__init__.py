"""The CSI node driver: volumes of Kubernetes pods, served by the cache of the node.

Top down: `driver` is the process; `service` and `registration` speak gRPC to kubelet; `volumes` publishes
and unpublishes; `ledger` remembers, `served` has the mounts served, `mounter` makes the privileged system
calls. `keeper` is a program of its own, in another pod: it holds the descriptors of the mounts while the
driver is replaced (`keeper_line` is how the driver talks to it). `volume` is pure: what a request asks for.
"""
