"""The server's pure parts: what to fetch, what to keep. No I/O, no clock, no randomness."""
