"""For every test: what a shell's background job would otherwise hand down to the commands that tests start."""

import signal

# A shell starts background jobs with Ctrl-C ignored, and every process below them keeps that: tests that interrupt a
# command would wait for ever.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
