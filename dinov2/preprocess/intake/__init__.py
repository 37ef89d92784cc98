"""Which files are looked at: folders, lists, archives, and what tables know of them.

`sources.iter_sources` lists the input; `archives.spool` unpacks what has no random access; `Source.read` gives a
worker the content; `table.read_table` joins what is known of the films.
"""
