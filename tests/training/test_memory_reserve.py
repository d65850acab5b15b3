"""The reserve of address space, in a process of its own with a limit."""

import subprocess
import sys

import pytest

FULL_ADDRESS_SPACE = """
import mmap, resource, threading
from segpipe.training.memory_reserve import reserve, release_piece

def address_space():
    return int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()

def starts():
    try:
        threading.Thread(target=int).start()
    except RuntimeError:
        return False
    return True

reserve()
free = address_space()
resource.setrlimit(resource.RLIMIT_AS, (free + (1 << 30),) * 2)
touched = resident()
reserve()
reserve()
print((address_space() - free) >> 20, (resident() - touched) >> 20)
full = []
for size in (64 << 20, 4 << 20, 1 << 16):
    try:
        while True:
            full.append(mmap.mmap(-1, size))
    except OSError:
        pass
print(starts())
release_piece()
print(starts())
for _ in range(9):
    release_piece()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs RLIMIT_AS and /proc")
def test_if_address_space_is_full_the_reserve_makes_room(repo_root):
    process = subprocess.run(
        [sys.executable, "-c", FULL_ADDRESS_SPACE], cwd=repo_root, capture_output=True, text=True, timeout=100
    )
    assert process.stdout.split() == ["512", "0", "False", "True"], process.stdout + process.stderr
