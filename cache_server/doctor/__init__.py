"""Checks of a node from the server's side: its configuration, disks, origins, clock, members, limits.

`python -m cache_server.doctor` prints what they find as JSON; `hotshard doctor` shows it to people. Nothing
is changed, and no server has to run.
"""
