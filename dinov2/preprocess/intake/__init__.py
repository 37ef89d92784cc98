"""Which files are looked at: folders, lists, archives, and what tables know of them."""
