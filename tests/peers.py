"""Peers that tests call, and what has to be known about them."""

import os
import subprocess

# qemu-img 7.2 measures how fast it derives a key from the processor time it used, and gives up when
# that is too little to tell: another try is all it takes.
_GAVE_UP = "Unable to get accurate CPU usage"
TRIES = 50

# Where this is set there is no need of one, and deriving keys is measured in no time (support/quick_clock.cc).
_QUICK_CLOCK = "PLATTER_QUICK_CLOCK"


def environment(**more):
    """For QEMU's programs."""
    clock = {"LD_PRELOAD": os.environ[_QUICK_CLOCK]} if _QUICK_CLOCK in os.environ else {}
    return {**os.environ, **clock, **more}


def gave_up(said):
    return _GAVE_UP in said


def qemu_img_create_encrypted(*arguments):
    """Runs "qemu-img create -q" with these arguments; CalledProcessError if it fails."""
    for _ in range(TRIES):
        done = subprocess.run(["qemu-img", "create", "-q", *arguments], stderr=subprocess.PIPE, text=True,
                              env=environment())
        if done.returncode == 0 or not gave_up(done.stderr):
            break
    if done.returncode != 0:
        raise subprocess.CalledProcessError(done.returncode, done.args, stderr=done.stderr)
