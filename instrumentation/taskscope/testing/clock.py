"""A wall clock that can be set, for one process and those it starts; the clock that only runs on stays true. Linux."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["WallClock", "wall_clock"]

_SOURCE: Final = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
static long ahead(void) {
    const char *name = getenv("TOLD_SECONDS_AHEAD");
    FILE *told = name ? fopen(name, "r") : NULL;
    long seconds = 0;
    if (told) { if (fscanf(told, "%ld", &seconds) != 1) seconds = 0; fclose(told); }
    return seconds;
}
int clock_gettime(clockid_t id, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = (int (*)(clockid_t, struct timespec *)) dlsym(RTLD_NEXT, "clock_gettime");
    int failed = real(id, now);
    if (!failed && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) now->tv_sec += ahead();
    return failed;
}
int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec at;
    (void) zone;
    int failed = clock_gettime(CLOCK_REALTIME, &at);
    now->tv_sec = at.tv_sec;
    now->tv_usec = at.tv_nsec / 1000;
    return failed;
}
time_t time(time_t *into) {
    struct timespec at;
    clock_gettime(CLOCK_REALTIME, &at);
    if (into) *into = at.tv_sec;
    return at.tv_sec;
}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class WallClock:
    """environ: what a process is given so that `step` sets its clock, also while it runs."""

    environ: dict[str, str]
    file: Path

    def step(self, seconds: int) -> None:
        """The clock shows so many seconds more than the machine's, or fewer if below 0."""
        # By rename: a process reads the old number or the new one, never none.
        draft = self.file.with_suffix(".new")
        draft.write_text(f"{seconds}\n")
        draft.rename(self.file)


def wall_clock(folder: Path) -> WallClock:
    """A clock that lives in `folder`, compiled there. Raises CalledProcessError without a compiler that works."""
    source, library, file = folder / "clock.c", folder / "clock.so", folder / "ahead"
    source.write_text(_SOURCE)
    subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", library, source, "-ldl"], check=True)
    before = os.environ.get("LD_PRELOAD", "")
    clock = WallClock(
        environ={
            "LD_PRELOAD": f"{library} {before}".strip(),
            "TOLD_SECONDS_AHEAD": str(file),
        },
        file=file,
    )
    clock.step(0)
    return clock
