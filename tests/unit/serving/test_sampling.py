"""How the next token is chosen."""

import torch

from infra.serving.sampling import Sampling, choose


def test_without_temperature_the_likeliest_token_is_chosen() -> None:
    logits = torch.tensor([[0.0, 3.0, 1.0], [2.0, 0.0, 1.0]])
    assert [choice.token for choice in choose(logits, [Sampling(), Sampling()])] == [1, 0]


def test_tokens_are_drawn_by_their_probabilities() -> None:
    odds = torch.tensor([0.5, 0.3, 0.2])
    sampling = Sampling(temperature=1.0, seed=0)
    drawn = [choose(odds.log().unsqueeze(0), [sampling])[0].token for _ in range(3000)]
    for token, share in enumerate(odds.tolist()):
        assert abs(drawn.count(token) / 3000 - share) < 0.03


def test_top_p_keeps_the_likeliest_tokens_that_make_up_the_share() -> None:
    odds = torch.tensor([[0.2, 0.5, 0.3]])
    half, most = Sampling(1.0, 0.5, seed=0), Sampling(1.0, 0.6, seed=0)
    assert {choose(odds.log(), [half])[0].token for _ in range(50)} == {1}
    assert {choose(odds.log(), [most])[0].token for _ in range(200)} == {1, 2}


def test_a_tiny_temperature_is_as_good_as_none() -> None:
    logits = torch.tensor([[0.0, 0.1]])
    assert {choose(logits, [Sampling(1e-30, seed=n)])[0].token for n in range(20)} == {1}


def test_rows_draw_from_their_own_seeds() -> None:
    logits = torch.zeros(1, 1000)
    alone = [choose(logits, [Sampling(1.0, seed=n)])[0].token for n in range(3)]
    together = choose(torch.zeros(4, 1000), [Sampling(), *(Sampling(1.0, seed=n) for n in range(3))])
    assert [choice.token for choice in together][1:] == alone
    assert len(set(alone)) == 3


def test_logprobs_are_given_to_those_who_ask() -> None:
    odds = torch.tensor([[0.25, 0.75], [0.25, 0.75]])
    asked, not_asked = choose(odds.log(), [Sampling(logprobs=1), Sampling()])
    assert asked.top[0][0] == 1
    assert abs((asked.logprob or 0) - odds[0, 1].log()) < 1e-6
    assert not_asked.logprob is None
