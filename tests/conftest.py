"""For every test: what a busy machine or a shell's background job would otherwise decide."""

import signal

from hypothesis import settings

# A test is never timed: a slow moment of the machine is no fault of the code.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

# A shell starts background jobs with Ctrl-C ignored, and every process below them keeps that: tests that interrupt a
# command would wait for ever.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
