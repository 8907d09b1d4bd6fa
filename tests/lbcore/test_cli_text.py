"""Names and messages on a terminal."""

import pytest

from lbcore.cli.text import columns, printable, printable_message


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"plain name.txt", "plain name.txt"),
        ("größe-日本.txt".encode(), "größe-日本.txt"),
        (b"a\nb\tc\rd", r"a\nb\tc\rd"),
        (b"\x1b[2Jgone", r"\x1b[2Jgone"),
        (b"latin-\xe4", r"latin-\xe4"),
        (b"back\\slash", r"back\\slash"),
        ("right-\u202eto-left".encode(), r"right-\xe2\x80\xaeto-left"),
        ("c1-\x9b".encode(), r"c1-\xc2\x9b"),
        (b"\x7f", r"\x7f"),
        (b"", ""),
    ],
)
def test_a_name_is_shown_as_one_line_that_cannot_control_the_terminal(name: bytes, shown: str) -> None:
    assert printable(name) == shown
    assert printable(name).isprintable()


def test_different_names_look_different() -> None:
    names = [
        b"a\nb",
        b"a\\nb",
        b"a\\\nb",
        b"a\\x0ab",
        b"a\xffb",
        b"a\\xffb",
        "a\udcff".encode("utf-8", "surrogatepass"),
    ]

    assert len({printable(name) for name in names}) == len(names)


def test_a_message_keeps_its_lines_and_loses_control_characters() -> None:
    assert printable_message("one\ntwo \x1b[31m \udce4 \ud800 c:\\") == "one\ntwo \\x1b[31m \\xe4 \\xed\\xa0\\x80 c:\\"


def test_columns_are_aligned_and_end_without_spaces() -> None:
    assert columns([("A", "LONG", "C"), ("bb", "x", "")]) == ["A   LONG  C", "bb  x"]
