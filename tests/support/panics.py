"""Has a real function panic at a moment of the test's choice."""

import os
import stat
import subprocess
from pathlib import Path

from support.stack import BINARY

# `SystemTime::now()` panics when there is no time. Functions look at the wall clock in each invocation.
NO_TIME = r"""
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *time) {
    if (clock == CLOCK_REALTIME && unlink(getenv("PANIC")) == 0) {
        errno = EINVAL;
        return -1;
    }
    return syscall(SYS_clock_gettime, clock, time);
}
"""


class Panics:
    """Some functions behind a library that has them panic; the others as they are."""

    def __init__(self, directory, names):
        directory.mkdir()
        self.directory = self.functions_dir = directory
        library = directory / "no_time.so"
        subprocess.run(["cc", "-shared", "-fPIC", "-x", "c", "-o", library, "-"], input=NO_TIME, text=True, check=True)
        for binary in Path(os.environ.get("FUNCTIONS_DIR", BINARY.parent)).iterdir():
            if binary.name in names:
                self._wrap(binary, library)
            elif binary.is_file() and os.access(binary, os.X_OK):
                (directory / binary.name).symlink_to(binary)

    def _wrap(self, binary, library):
        path = self.directory / binary.name
        path.write_text(f'#!/bin/sh\nPANIC="{self._trigger(binary.name)}" LD_PRELOAD="{library}" exec "{binary}"\n')
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def _trigger(self, name):
        return self.directory / f"{name}.panic"

    def arm(self, name):
        """The function panics at its next look at the clock."""
        self._trigger(name).touch()

    def is_armed(self, name):
        """Whether it has still to panic."""
        return self._trigger(name).exists()
