"""Attention: weights sum to one over what is real, padding is never seen, scoring is what its paper says."""

import pytest
import torch

from vqa.attention import Attention


def build(scoring="product"):
    torch.manual_seed(0)
    return Attention(6, 5, hidden=7, glimpses=3, scoring=scoring, dropout=0.5).eval()


@pytest.mark.parametrize("scoring", ["product", "concat"])
def test_weights_cover_the_real_items_only(scoring):
    items, query = torch.randn(2, 4, 6), torch.randn(2, 5)
    mask = torch.tensor([[True, True, False, True], [True, False, False, False]])
    glimpses, weights, _ = build(scoring)(items, query, mask)
    assert glimpses.shape == (2, 18) and weights.shape == (2, 3, 4)
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(2, 3))
    assert (weights[:, :, :][~mask.unsqueeze(1).expand_as(weights)] == 0).all()
    torch.testing.assert_close(glimpses[1].view(3, 6), items[1, 0].expand(3, 6))  # one real item: nothing else to say


@pytest.mark.parametrize("scoring", ["product", "concat"])
def test_padding_and_order_change_nothing(scoring):
    attention = build(scoring)
    items, query, mask = torch.randn(2, 4, 6), torch.randn(2, 5), torch.ones(2, 4, dtype=torch.bool)
    glimpses, weights, _ = attention(items, query, mask)
    padded = torch.cat([items, 9 * torch.randn(2, 3, 6)], dim=1)
    more, more_weights, _ = attention(padded, query, torch.cat([mask, torch.zeros(2, 3, dtype=torch.bool)], dim=1))
    torch.testing.assert_close(more, glimpses)
    torch.testing.assert_close(more_weights[:, :, :4], weights)
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(attention(items[:, order], query, mask)[0], glimpses)


def test_an_index_shares_photos_among_questions():
    attention, items, query = build(), torch.randn(2, 4, 6), torch.randn(5, 5)
    mask, index = torch.tensor([[True] * 4, [True, True, False, False]]), torch.tensor([0, 1, 1, 0, 1])
    glimpses, weights, _ = attention(items, query, mask, index)
    expected, expected_weights, _ = attention(items[index], query, mask[index])
    torch.testing.assert_close(glimpses, expected)
    torch.testing.assert_close(weights, expected_weights)


def test_scores_are_the_papers():
    items, query, mask = torch.randn(1, 3, 6), torch.randn(1, 5), torch.ones(1, 3, dtype=torch.bool)
    for scoring in ("product", "concat"):
        attention = build(scoring)
        v, q = attention.item_hidden, attention.query_hidden
        for cell in range(3):  # by hand, cell by cell
            if scoring == "product":
                joint = (v.weight @ items[0, cell] + v.bias).tanh() * (q.weight @ query[0] + q.bias).tanh()
            else:
                both = torch.cat([items[0, cell], query[0]])
                joint = (torch.cat([v.weight, q.weight], dim=1) @ both + v.bias + q.bias).relu()
            score = attention.score.weight @ joint + attention.score.bias
            if cell == 0:
                scores = [score]
            else:
                scores.append(score)
        expected = torch.stack(scores, dim=-1).softmax(dim=-1)
        torch.testing.assert_close(attention(items, query, mask)[1][0], expected)
