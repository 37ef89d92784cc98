"""A finished conversion as one HTML page to look at.  Home of Jinja2."""
