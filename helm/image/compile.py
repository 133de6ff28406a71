"""Compiles every module below a directory, to the same bytes each time.

    PYTHONHASHSEED=0 python compile.py DIRECTORY

Two runs of compileall over the same files were seen to write different bytes; what marshal writes from its
version 3 on depends on which constants are shared in memory at the time, and version 2 has no references.
The files are bound neither to the time of the source nor to its hash, since the image is not changed.
"""

import importlib.util
import marshal
import os
import sys
from pathlib import Path

UNCHECKED = (0b01).to_bytes(4, "little")  # PEP 552: by hash, and the hash is not looked at


def main(directory: str) -> None:
    """Write the files; what does not compile is no module of ours (a template, a test of errors)."""
    for source in sorted(Path(directory).rglob("*.py")):
        content = source.read_bytes()
        try:
            code = compile(content, str(source), "exec", dont_inherit=True)
        except SyntaxError as error:
            sys.stderr.write(f"left out: {source}: {error.msg}\n")
            continue
        target = Path(importlib.util.cache_from_source(str(source)))
        target.parent.mkdir(exist_ok=True)
        header = importlib.util.MAGIC_NUMBER + UNCHECKED + importlib.util.source_hash(content)
        target.write_bytes(header + marshal.dumps(code, 2))
        os.chmod(target, 0o644)


if __name__ == "__main__":
    main(sys.argv[1])
