"""What a run will need and do, before a GPU is taken.

In: a configuration and the number of processes. Out: whether its pictures can be read, the memory of each process, the
plan in steps and days, and doubts in words. Nothing here starts a process or touches an accelerator.
"""
