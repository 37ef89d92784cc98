"""A run, or several, as one HTML page that needs nothing else: curves, pictures of what was learned, warnings in words.

In: run folders, finished or still being written. Out: a page. Nothing in a run's folder is touched.
"""

from dinov2.report.page import Written, settle, write_report

__all__ = ["Written", "settle", "write_report"]
