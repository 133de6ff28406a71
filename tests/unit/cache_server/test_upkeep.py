"""Settings of the process that cannot be seen from outside: in a process of their own."""

import subprocess
import sys

_FREES = """
import resource
from cache_server.upkeep import keep_freed_memory
if {kept}:
    keep_freed_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
before = faults()
for _ in range(50):
    messages = [b"x" * (1 << 20) for _ in range(8)]
    del messages
print(faults() - before)
"""


def page_faults(*, kept: bool) -> int:
    done = subprocess.run(
        [sys.executable, "-c", _FREES.format(kept=kept)], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


def test_what_is_freed_is_used_again_without_a_page_fault():
    once = 8 * 256  # pages of the messages
    assert page_faults(kept=True) < 3 * once
    assert page_faults(kept=False) > 10 * once
