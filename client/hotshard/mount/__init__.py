"""The mount: S3 and Lustre data as a read-only file system, over raw FUSE.

Top down: `command` mounts and unmounts; `keeper` owns /dev/fuse and starts `reader`, which runs `loop`
over `filesystem`; `device` makes the system calls. Below them, pure: `session`, `inodes`, `handles`,
`tree`, `listing`, `codec`, `abi`. What must outlive a reader lies in the shared memory of `state`.
"""
