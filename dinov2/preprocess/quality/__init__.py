"""Which films and pictures are taken, and what is remarked on them."""
