from dinov2.train.seeds import step_seed


def test_every_step_and_rank_has_its_own_seed_and_always_the_same() -> None:
    seeds = {step_seed(0, step=step, rank=rank) for step in range(50) for rank in range(4)}
    assert len(seeds) == 200
    assert step_seed(3, step=7, rank=1) == step_seed(3, step=7, rank=1)
    assert all(0 <= seed < 2**63 for seed in seeds)
