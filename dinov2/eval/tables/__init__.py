"""An outcome -> files for people and programs: result.json, scores.csv, predictions.parquet, page.html, page.png."""

from dinov2.eval.tables.result import Result
from dinov2.eval.tables.sheet import Sheet, ranked, sheet_of
from dinov2.eval.tables.writing import Written, read_result, write_result

__all__ = ["Result", "Sheet", "Written", "ranked", "read_result", "sheet_of", "write_result"]
