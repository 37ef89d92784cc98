import os
import subprocess
import sys
import warnings

import pytest

from dinov2.preprocess.decode.complaints import overhearing, unspoken

CORRUPT = b"Corrupt JPEG data: 12 extraneous bytes before marker 0xd9\n"


@pytest.mark.parametrize(
    ("said", "is_damage"),
    [
        (CORRUPT, True),
        (b"Premature end of JPEG file\n", True),
        (b"Unsupported JPEG data precision 12\n", False),
        (b"undecodable 3, truncated 17, 12 films per second\n", False),
        (b"", False),
    ],
)
def test_damage_is_told_from_other_words_and_none_is_shown(said, is_damage, capfd):
    with overhearing() as heard:
        os.write(2, said)
    os.write(2, b"after\n")
    assert heard.is_damage is is_damage
    assert capfd.readouterr().err == "after\n"


def test_an_error_inside_gives_the_terminal_back(capfd):
    with pytest.raises(ValueError, match="broken"), overhearing():
        raise ValueError("broken")
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "after\n"


def test_a_process_without_a_terminal_can_listen_too():
    code = (
        "import os; os.close(2)\n"
        "from dinov2.preprocess.decode.complaints import overhearing\n"
        "with overhearing() as heard: os.write(2, b'Corrupt JPEG data: bad Huffman code')\n"
        "print(heard.is_damage, os.path.exists('/proc/self/fd/2'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "True False\n"


def test_warnings_are_kept_for_who_asks_and_shown_to_nobody(recwarn):
    with unspoken() as remarks:
        warnings.warn("a patient's name", stacklevel=1)
    assert [str(remark.message) for remark in remarks] == ["a patient's name"]
    assert not recwarn.list
