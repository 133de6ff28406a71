"""Where the truth is: S3 buckets and POSIX trees behind one Protocol (origin.py)."""
