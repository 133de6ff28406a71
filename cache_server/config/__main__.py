"""`python -m cache_server.config`: print the reference."""

import sys

from cache_server.config.reference import reference

sys.stdout.write(reference())
