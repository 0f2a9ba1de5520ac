"""Becomes another program that Linux kills when its parent ends: `tether.py PARENT_PID PROGRAM ARGUMENTS...`.

A process that is killed cannot end its children. This asks the kernel to. It runs between fork and the program, instead of as a
`preexec_fn`, which may lock up in a process with threads. Needs only the standard library.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1

if __name__ == "__main__":
    parent, *command = sys.argv[1:]
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(parent):  # it ended before the kernel was asked
        sys.exit("the parent has ended")
    os.execv(command[0], command)
