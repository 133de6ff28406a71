"""Reading the origin itself while no cache server answers: a cache must not be what a job fails for.

`answers` does what a server would be asked for, with the rights and credentials of this process;
`outage` says when; `fallback` puts both behind the transport of a client or of a mount.
"""
