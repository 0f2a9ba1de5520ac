"""`python tasks.py fuzz`: a few hundred mutated files for each fast reader, and the fuzzer notices what it should."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="children with limited memory need Linux")
READERS = (
    "state",
    "unpickle",
    "flame",
    "landmarks",
    "uvs",
    "texture",
    "converted",
    "heads",
    "tables",
    "identity",
    "onnx",
    "photos",
)


def fuzz(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "capface.tools.fuzz", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=dict(os.environ, OMP_NUM_THREADS="1"),
    )


def test_mutated_files_end_in_the_packs_own_errors():
    pytest.importorskip("onnx", reason="onnx, which writes the tiny networks, is not installed")
    shown = fuzz("fast", "--count", "200", "--seed", "1")
    print(shown.stdout)
    assert shown.returncode == 0, shown.stdout + shown.stderr[-2000:]
    assert all(f"| {reader} | 200 |" in shown.stdout for reader in READERS)


FAULTY = """
import os, time
from capface.tools.fuzz import __main__ as tool
from capface.tools.fuzz.readers import Reader, Seed
from capface.errors import BadFile
def read(path):
    data, start = path.read_bytes(), time.process_time()
    if data[0] == 0: raise BadFile("mine")
    if data[0] == 1: raise KeyError("leaked")
    if data[0] == 2: bytearray(300_000_000)[::4096] = b"x" * len(range(0, 300_000_000, 4096))
    while data[0] == 3 and time.process_time() < start + 1.2: pass
    if data[0] == 4: time.sleep(60)
    if data[0] == 5: os.abort()
    if data[0] == 6: open("/etc/hostname").close()
    if data[0] == 7: os.system("true")
    if data[0] == 8: raise BadFile("Re-run with weights_only=False")
tool.HANGS = 10.0
tool.mutated = lambda reader, seeds, number, seed: (seeds[0], bytes([number]))
result = tool.fuzz(Reader("faulty", lambda: [Seed("x", b"sound", lambda data, rng: data)], read), 10, 5)
print(result.tried, result.accepted, result.own, result.slow, result.large, result.hangs, len(result.leaked))
print(sorted(result.outside))
"""


def test_the_fuzzer_notices_each_kind_of_failure():
    shown = subprocess.run([sys.executable, "-c", FAULTY], capture_output=True, text=True, check=True).stdout
    assert shown.splitlines() == ["10 5 1 1 1 2 2", "['open /etc/hostname r', \"os.system (b'true',)\"]"], shown
