"""Tokens that become text while they come."""

import pytest

from infra.serving.text import TextStream
from tests.tiny import tiny_tokenizer

TOKENIZER = tiny_tokenizer()


def pieces(text: str, stops: tuple[str, ...] = (), prompt: str = "") -> list[str]:
    stream = TextStream(TOKENIZER, TOKENIZER(prompt)["input_ids"], stops)
    said: list[str] = []
    for token in TOKENIZER(text, add_special_tokens=False)["input_ids"]:
        said.append(stream.add(token))
        if stream.stopped:
            break
    return [*said, stream.end()]


@pytest.mark.parametrize("text", ["the red cat sleeps", "a  b\n\n c", "größer 🐈‍⬛ 日本", "x" * 50])
@pytest.mark.parametrize("prompt", ["", "who is", "日"])
def test_the_pieces_put_together_are_the_text(text: str, prompt: str) -> None:
    assert "".join(pieces(text, prompt=prompt)) == text


def test_no_piece_holds_half_a_character() -> None:
    said = pieces("🐈日ß")
    assert not any("\ufffd" in piece for piece in said)
    assert said.count("") > 3


def test_bytes_that_never_become_a_character_come_out_in_the_end() -> None:
    torn = TOKENIZER("🐈", add_special_tokens=False)["input_ids"][:-1]
    stream = TextStream(TOKENIZER, [])
    assert [stream.add(token) for token in torn] == [""] * len(torn)
    assert stream.end() == "\ufffd"


def test_a_stop_string_over_several_tokens_is_never_shown_in_part() -> None:
    said = pieces("the cat sees the red bird", stops=("red bi", "zz"))
    assert "".join(said) == "the cat sees the "


def test_what_only_began_like_a_stop_string_is_shown() -> None:
    assert "".join(pieces("the red cat", stops=("red dog", "cats"))) == "the red cat"


def test_the_first_of_several_stop_strings_counts() -> None:
    assert "".join(pieces("a cat and a dog", stops=("dog", "cat"))) == "a "
