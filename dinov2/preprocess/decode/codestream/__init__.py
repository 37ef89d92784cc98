"""Bytes of a compressed picture -> what they say about themselves, once their structure has been walked to the end."""
