"""Features as a map of films that can be walked about in: a local page, or a folder to pass on.

In: the Parquet file of `dinov2 embed` and the manifest that it was made from. Out: a page served to this machine, or
written with small pictures beside it.
"""
