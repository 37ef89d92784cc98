"""What a successor knows of a run in a logger."""

from pathlib import Path

from dinov2.train.loggers.kept import Kept


def test_a_successor_knows_the_run_and_the_last_step(tmp_path: Path):
    kept = Kept(tmp_path, "mlflow", where="http://here")
    assert (kept.run_id, kept.step) == ("", -1)
    kept.remember(run_id="abc")
    kept.remember(step=7)
    again = Kept(tmp_path, "mlflow", where="http://here")
    assert (again.run_id, again.step) == ("abc", 7)
    assert [path.name for path in tmp_path.iterdir()] == ["mlflow.json"]


def test_a_run_on_one_server_is_none_on_another(tmp_path: Path):
    Kept(tmp_path, "mlflow", where="http://here").remember(run_id="abc", step=7)
    elsewhere = Kept(tmp_path, "mlflow", where="http://there")
    assert (elsewhere.run_id, elsewhere.step) == ("", -1)


def test_a_damaged_memory_is_none(tmp_path: Path):
    for content in ("", "[1, 2", '["a list"]'):
        (tmp_path / "wandb.json").write_text(content)
        assert Kept(tmp_path, "wandb", where="").run_id == ""
