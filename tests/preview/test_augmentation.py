import re

import numpy as np

from dinov2.preview import augmentation_page
from dinov2.preview.page import outline
from tests.preview.conftest import maker_of


def page(manifest, *, rows: int = 2, steps: bool = False, **words: object) -> str:
    return augmentation_page(
        maker_of(manifest, **words), range(rows), title="Crops", preset="cxr", command="a command", steps=steps
    )


def test_a_page_has_a_film_a_row_and_a_box_a_crop(manifest):
    text = page(manifest)
    assert text.count('<section class="panel">') == 2
    assert len(re.findall(r'<rect class="(first|second|local) box-', text)) == 2 * (2 + 2)
    assert text.count("<figure") == 2 * (1 + 2 + 2)


def test_a_page_asks_nothing_of_another_place_and_runs_no_script(manifest):
    text = page(manifest, steps=True)
    assert "<script" not in text
    assert "default-src 'none'" in text
    assert not re.findall(r"""(?:src|href)=["'](?!data:)""", text)
    assert "http" not in text.replace("http-equiv", "")


def test_steps_are_there_where_they_are_asked_for(manifest):
    assert "not drawn" not in page(manifest, rows=1)
    text = page(manifest, rows=1, steps=True)
    assert text.count("<b>cut and resize</b>") == 3
    assert text.count("<b>blur</b>") == 3
    assert page(manifest, rows=1, steps=True, num_locals=0).count("<b>cut and resize</b>") == 2


def test_masks_are_drawn_only_where_patches_are_hidden(manifest):
    assert page(manifest, mask_sample_probability=1.0).count('class="mask" d="M') == 4
    assert 'class="mask" d=' not in page(manifest, loss_weight=0.0)


def test_names_of_films_are_no_markup(manifest):
    text = page(manifest, rows=6)
    assert "a&lt;b&gt;&amp;.png" in text
    assert "a<b>" not in text


def test_an_outline_covers_the_hidden_patches_and_no_other():
    mask = np.array([[1, 1, 0, 1], [0, 0, 0, 0], [0, 1, 1, 1]], dtype=bool)
    assert outline(mask) == "M0 0h2v1h-2zM3 0h1v1h-1zM1 2h3v1h-3z"
