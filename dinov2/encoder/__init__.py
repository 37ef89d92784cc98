"""Films in, features out: the one class that users of a backbone need.

In: a name of weights; pictures or films. Out: tokens.
"""
